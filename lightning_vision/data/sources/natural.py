"""The order in which people read names: ``frame_2`` before ``frame_10``."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"([0-9]+)")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """What to sort names by: numbers in them count by their value, and all else by its characters."""
    # The pieces alternate, beginning with text: numbers are compared with numbers alone.
    pieces: list[str | int] = [int(p) if i % 2 else p for i, p in enumerate(_NUMBER.split(name))]
    return pieces, name
