"""How a prediction gets on: a bar where a person watches, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

SECONDS = 10  # between two lines


class Pace:
    """Images and images per second, on the terminal's error stream or as lines of the output.

    Args:
        total: Images of the source, None where nobody knows.
        done: Images that an earlier run dealt with.
    """

    def __init__(self, total: int | None, done: int = 0) -> None:
        self.total = total
        self.first = self.done = done
        self._start = self._said = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("predicting", total=total, completed=done)

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done - self.first) / max(time.monotonic() - self._start, 1e-9)

    def reached(self, row: int) -> None:
        """Show that so many images are dealt with."""
        self.done = row
        if self._bar is not None:
            self._bar.update(self._task, completed=row, description=f"predicting, {self.rate:.1f} images/s")
        elif time.monotonic() - self._said >= SECONDS:
            self._said = time.monotonic()
            of = "" if self.total is None else f" of {self.total}"
            print(f"{row}{of} images, {self.rate:.1f} a second", flush=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
