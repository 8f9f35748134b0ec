"""The Hugging Face hub, and machines that cannot reach it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

# Seconds to wait for a connection before the hub counts as out of reach.
PATIENCE = 5


def reachable() -> bool:
    """Return whether the hub answers. Behind a proxy it is taken to."""
    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Use only what is already on this machine if the hub is out of reach.

    Left alone, the hub's client retries each file for half a minute, with a log line for each attempt, before it says
    so.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
