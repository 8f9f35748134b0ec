"""Values from Python as the cells of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, time
from numbers import Real
from typing import Any

import numpy as np

from lightning_vision.data.label_cells import list_text
from lightning_vision.errors import DataError


def is_missing(value: Any) -> bool:
    """True for None, NaN, and the NA and NaT of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def as_text(values: Iterable[Any], names: Sequence[str] | None = None, lists_of_ids: bool = False) -> Iterator[str]:
    """Yield values as stripped text; a missing one is empty.

    Args:
        values: Text, numbers or dates. Whole numbers that became floats, because some are missing, are whole again.
            Lists, sets and arrays ``(n,)`` of text are sets of labels; see ``label_cells``.
        names: The values are class ids, and these their names; -1, the id of what has no label, is a missing value.
        lists_of_ids: Lists of integers are sets of labels too, and no boxes or the like.

    Raises:
        DataError: A value is something else, or an id without a name; with its row, counted from 1.
    """
    for row, value in enumerate(values, start=1):
        if getattr(value, "ndim", None) == 0:
            value = value.item()  # a scalar of numpy or torch
        elif getattr(value, "ndim", None) == 1:
            value = value.tolist()
        if is_missing(value):
            yield ""
        elif isinstance(value, list | tuple | set | frozenset):
            yield _list_text(value, row, names, lists_of_ids)
        elif isinstance(value, str):
            yield value.strip()
        elif names is not None and isinstance(value, int):
            if not -1 <= value < len(names):
                raise DataError(f"row {row}: a class id without a name", given=value, expected=f"0 to {len(names) - 1}")
            yield "" if value == -1 else names[value].strip()
        elif isinstance(value, Real | date | time):
            yield str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        else:
            raise _neither(row, value)


def _list_text(value: Collection[Any], row: int, names: Sequence[str] | None, ids: bool) -> str:
    items = [item.item() if getattr(item, "ndim", None) == 0 else item for item in value]
    numbers = ids or names is not None
    if not all(isinstance(item, str) or (numbers and type(item) is int) for item in items):
        raise _neither(row, value)
    try:
        texts = [text for text in as_text(items, names) if text]
    except DataError as error:  # its row is that of the item
        summary = f"row {row}: {error.summary.partition(': ')[2]}"
        raise DataError(summary, given=error.given, expected=error.expected) from error
    return list_text(sorted(texts) if isinstance(value, set | frozenset) else texts)


def _neither(row: int, value: Any) -> DataError:
    return DataError(f"row {row}: neither text nor a number", given=type(value).__name__)
