"""Values from Python as the cells of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time
from numbers import Real
from typing import Any

import numpy as np

from lightning_vision.errors import DataError


def is_missing(value: Any) -> bool:
    """True for None, NaN, and the NA and NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def as_text(values: Iterable[Any], names: Sequence[str] | None = None) -> Iterator[str]:
    """Yield values as stripped text; a missing one is empty.

    Args:
        values: Text, numbers or dates. Whole numbers that became floats, because some are missing, are whole again.
        names: The values are class ids, and these their names; -1, the id of what has no label, is a missing value.

    Raises:
        DataError: A value is something else, or an id without a name; with its row, counted from 1.
    """
    for row, value in enumerate(values, start=1):
        if getattr(value, "ndim", None) == 0:
            value = value.item()  # a scalar of numpy or torch
        if is_missing(value):
            yield ""
        elif isinstance(value, str):
            yield value.strip()
        elif names is not None and isinstance(value, int):
            if not -1 <= value < len(names):
                raise DataError(f"row {row}: a class id without a name", given=value, expected=f"0 to {len(names) - 1}")
            yield "" if value == -1 else names[value].strip()
        elif isinstance(value, Real | date | time):
            yield str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        else:
            raise DataError(f"row {row}: neither text nor a number", given=type(value).__name__)
