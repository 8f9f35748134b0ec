"""Ctrl-C and SIGTERM while Lightning runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

SIGTERM_EXIT = 143  # what a shell reports of a process that SIGTERM ended


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Give back what Lightning turns into a SystemExit.

    Its own exit code is 1 after Ctrl-C, as after any error, and 0 after SIGTERM, as if the run had finished; and a
    SystemExit would end an interactive session.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed.
        SystemExit: SIGTERM was received; with the code 143.
    """
    try:
        yield
    except SystemExit as error:
        if trainer.received_sigterm:
            raise SystemExit(SIGTERM_EXIT) from error
        raise KeyboardInterrupt from error
