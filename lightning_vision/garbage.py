"""Garbage collection while a command starts: off until everything is imported.

A pass among the objects that parsing configs and importing torch and Lightning make takes up to 0.3 s, finds nothing,
and happens several times.
"""

from __future__ import annotations

import gc

_held = False


def hold() -> None:
    """Switch the collection off until ``release``. For a process of our own: not for a notebook or a library's user."""
    global _held
    _held = gc.isenabled()
    gc.disable()


def end() -> None:
    """Before the process ends: what stayed frozen would be reported as leaked by libraries that check."""
    release(freeze=False)
    gc.unfreeze()


def release(freeze: bool = True) -> None:
    """Switch it on again where ``hold`` switched it off.

    Args:
        freeze: Leave what exists by now out of all later passes.
    """
    global _held
    if _held:
        _held = False
        if freeze:
            gc.freeze()
        gc.enable()
