"""Errors for people: what was given, what was expected, the nearest valid choice, and an override that works."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class VisionError(Exception):
    """An error that a user can mend. The command line shows it without a traceback and exits with code 2.

    Args:
        summary: One sentence that says what is wrong.
        given: What was found, as the user wrote it.
        expected: What would have been right: the valid names, the range, the type.
        nearest: The valid choice nearest to what was given.
        override: Words to type that work, such as ``encoder=resnet``.
    """

    def __init__(
        self,
        summary: str,
        *,
        given: object = None,
        expected: object = None,
        nearest: str | None = None,
        override: str | Sequence[str] | None = None,
    ) -> None:
        self.summary = summary
        self.given = given
        self.expected = expected
        self.nearest = nearest
        self.overrides: list[str] = [override] if isinstance(override, str) else list(override or [])
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.summary]
        if self.given is not None:
            lines.append(f"  given:        {self.given}")
        if self.expected is not None:
            lines.append(f"  expected:     {self.expected}")
        if self.nearest is not None:
            lines.append(f"  did you mean: {self.nearest}")
        lines += [f"  {'try:' if i == 0 else 'or:':<13} {o}" for i, o in enumerate(self.overrides)]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive Exception's own pickling, which process pools need.
        return (_rebuild, (type(self), self.__dict__.copy()))


def _rebuild(cls: type[VisionError], state: dict[str, object]) -> VisionError:
    error = cls(str(state["summary"]))
    error.__dict__.update(state)
    error.args = (str(error),)
    return error


class ConfigError(VisionError):
    """The configuration is wrong: a name, a value, or two settings that do not go together."""


class DataError(VisionError):
    """The data are wrong: a missing file or column, an unreadable image, a mask that does not fit."""


class CheckpointError(VisionError):
    """A checkpoint cannot be saved or read, or does not go with the data."""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """Return the valid name most similar to ``name``, or None if nothing is similar."""
    # Of a short name, such as a number, half is much.
    cutoff = 0.5 if len(str(name)) <= 4 else 0.55
    matches = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=cutoff)
    return matches[0] if matches else None


def listed(names: Iterable[object], limit: int = 40) -> str:
    """Join names by commas, cut after ``limit`` with the count of the rest."""
    all_names = [str(n) for n in names]
    text = ", ".join(all_names[:limit])
    return f"{text} … and {len(all_names) - limit} more" if len(all_names) > limit else text
