"""HYDRA_FULL_ERROR: Hydra is told to raise what it would print, and everything else sees the user's own value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "HYDRA_FULL_ERROR"
given = os.environ.get(NAME)


def asked() -> bool:
    """Whether the user wants whole tracebacks."""
    return given == "1"


@contextmanager
def variable(value: str | None) -> Iterator[None]:
    """Set the variable for a while, or take it out: the processes that a run starts must see the user's own."""
    before = os.environ.pop(NAME, None)
    if value is not None:
        os.environ[NAME] = value
    try:
        yield
    finally:
        os.environ.pop(NAME, None)
        if before is not None:
            os.environ[NAME] = before
