"""What was found while a source read its data: raised at once, or collected."""

from __future__ import annotations

from lightning_vision.data.index import Problem, Severity
from lightning_vision.errors import VisionError


class Problems:
    """Errors are raised at once if reading is strict, and collected otherwise; warnings and notes are collected.

    Args:
        strict: Raise errors.
        output: The output that all is said of, where it is not the main one: its name stands before each message, and
            no settings are offered, because those of the main output do not mend it.
        found: What was found so far; gets the rest.
    """

    def __init__(self, strict: bool, output: str | None = None, found: list[Problem] | None = None) -> None:
        self.strict = strict
        self.output = output
        self.found = [] if found is None else found

    def about(self, output: str) -> Problems:
        """The same problems, for what is said of a further output."""
        return Problems(self.strict, output, self.found)

    def error(self, error: VisionError) -> None:
        """Raise the error, or note it."""
        if self.output is not None:
            error.summary, error.overrides = f"output {self.output}: {error.summary}", []
        if self.strict:
            raise error
        self.found.append(Problem("error", str(error)))

    def warn(self, message: str) -> None:
        """Note something that is probably wrong but does not stop a run."""
        self._add("warning", message)

    def note(self, message: str) -> None:
        """Note something worth knowing."""
        self._add("note", message)

    def _add(self, severity: Severity, message: str) -> None:
        self.found.append(Problem(severity, message if self.output is None else f"output {self.output}: {message}"))
