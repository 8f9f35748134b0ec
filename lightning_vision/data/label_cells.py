"""From cells to sets of labels: names joined by a separator, lists, or a column of yes and no for each label.

A table holds text. A list of a typed column becomes the text of its items, each after ``LIST_MARK``, so that names may
hold any separator and an empty list is not a missing one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lightning_vision.data.class_names import Distinct, number_names
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.label_sets import NO, YES, LabelSets
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.types import UNKNOWN

LIST_MARK = "\x02"  # no white space, so that stripping leaves it, and in no text that people write
_FLAGS = {"1": YES, "1.0": YES, "true": YES, "yes": YES, "0": NO, "0.0": NO, "false": NO, "no": NO, "": UNKNOWN}
_ODD = 254
_BLOCK = 1 << 12  # distinct cells whose labels are unpacked at once


def list_text(names: Iterable[str]) -> str:
    """Write a list of names as the text of one cell."""
    return LIST_MARK + LIST_MARK.join(names)


def names_in(cell: str, separator: str | None) -> list[str]:
    """Return the names in a cell, stripped, without empty ones; without a separator the cell is one name."""
    if is_list(cell):
        cell, separator = cell[1:], LIST_MARK
    parts = [cell] if separator is None else cell.split(separator)
    return [name for part in parts if (name := part.strip())]


def is_list(cell: str) -> bool:
    """Whether a cell is a list, also one of a single name or none."""
    return cell.startswith(LIST_MARK)


def is_set(cell: str, separator: str) -> bool:
    """Whether a cell is more than one name: a list, or names with a separator between them."""
    return is_list(cell) or (separator in cell and len(names_in(cell, separator)) > 1)


def has_lists(cells: PackedStrings) -> bool:
    """Whether a column is one of lists, whose empty cells are missing values."""
    return bool((cells.data[cells.offsets[:-1][~cells.empty]] == ord(LIST_MARK)).any())


def encode_sets(
    cells: PackedStrings,
    separator: str | None,
    where: Callable[[int], str],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    report: Callable[[DataError], None],
) -> tuple[LabelSets, tuple[str, ...], npt.NDArray[np.bool_]]:
    """Turn cells of names into sets of labels; an empty cell is a row without any label.

    Args:
        cells: Names of each sample.
        separator: What stands between the names of a cell; None = a cell is one name.
        where: Says in words where sample i comes from.
        class_names: The labels in order, or None; see ``number_names``.
        num_classes: The number of labels that the user expects, or None.
        report: Called with each error; it raises it, or collects it.

    Returns:
        The sets, the names of the labels, and bool ``(N,)``: rows with a name that is no label (only if ``report``
        returned).
    """
    distinct = Distinct.of(cells)
    sets = [names_in(cell, separator) for cell in distinct.first]
    first: dict[str, int] = {}
    for found, row in zip(sets, distinct.first.values(), strict=True):
        for name in found:
            first.setdefault(name, row)

    def rows_with(texts: Sequence[str]) -> int:
        some = set(texts)
        return int(np.isin(distinct.codes, [i for i, found in enumerate(sets) if not some.isdisjoint(found)]).sum())

    by_name, names = number_names(first, where, class_names, num_classes, report, rows_with)
    ids = [[by_name[name] for name in found] for found in sets]
    wrong = np.array([-1 in found for found in ids] or [False])[distinct.codes]

    def unpacked() -> Iterable[npt.NDArray[np.uint8]]:
        for start in range(0, len(ids), _BLOCK):
            some = ids[start : start + _BLOCK]
            block = np.zeros((len(some), len(names)), np.uint8)
            for row, found in enumerate(some):
                block[row, [i for i in found if i >= 0]] = YES
            yield block

    return LabelSets.from_blocks(unpacked(), len(names)).take(distinct.codes), names, wrong


def encode_flags(
    columns: Mapping[str, PackedStrings],
    where: Callable[[int], str],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    report: Callable[[DataError], None],
) -> tuple[LabelSets, tuple[str, ...], npt.NDArray[np.bool_]]:
    """Turn a column of yes and no for each label into sets of labels; an empty cell is unknown.

    Args:
        columns: The cells by the name of the label; all as long.
        where: Says in words where sample i comes from.
        class_names: The labels in order, or None for the order of the columns; a label without a column is unknown in
            every row.
        num_classes: The number of labels that the user expects, or None.
        report: Called with each error; it raises it, or collects it.

    Returns:
        The sets, the names of the labels, and bool ``(N,)``: rows with a cell that is neither yes nor no (only if
        ``report`` returned).
    """
    num_rows = len(next(iter(columns.values())))
    names = tuple(columns) if class_names is None else class_names
    if class_names is not None:
        first = dict.fromkeys(columns, 0)
        ids, names = number_names(first, lambda row: "a column", class_names, num_classes, report, len)
    else:
        ids = {name: i for i, name in enumerate(columns)}
        if num_classes is not None and num_classes != len(names):
            raise ConfigError(
                "data.num_classes contradicts data.target",
                given=f"num_classes={num_classes}, and {len(names)} columns: {listed(names, 10)}",
                override=["data.num_classes=null", f"data.num_classes={len(names)}"],
            )
    twice = [name for name in columns if ids[name] >= 0 and list(ids.values()).count(ids[name]) > 1]
    if twice:
        raise ConfigError("several columns are one label", given=listed(twice), override="data.class_names=null")
    wrong = np.zeros(num_rows, np.bool_)

    def flags() -> Iterable[tuple[int, npt.NDArray[np.uint8]]]:
        for name, cells in columns.items():
            found = _flags(cells)
            odd = np.flatnonzero(found == _ODD)
            if len(odd):
                wrong[odd] = True
                found[odd] = UNKNOWN
                values: dict[str, int] = {}
                for row in odd.tolist():
                    values.setdefault(cells[row], row)
                report(
                    DataError(
                        f"{len(odd)} cells of column {name} are neither yes nor no",
                        given=listed((f"{value!r} ({where(row)})" for value, row in values.items()), 5),
                        expected="1 or 0, 1.0 or 0.0, true or false, yes or no, in any case; empty = unknown",
                    )
                )
            if ids[name] >= 0:
                yield ids[name], found

    return LabelSets.from_columns(flags(), num_rows, len(names)), names, wrong


def _flags(cells: PackedStrings) -> npt.NDArray[np.uint8]:
    """Read a column: uint8 ``(N,)`` of 1, 0, 255 (empty) and 254 (anything else)."""
    found = np.full(len(cells), UNKNOWN, np.uint8)
    lengths = np.diff(cells.offsets)
    short = np.flatnonzero(lengths == 1)
    digits = cells.data[cells.offsets[:-1][short]]
    found[short] = np.where(digits == ord("1"), YES, np.where(digits == ord("0"), NO, _ODD))
    longer = np.flatnonzero(lengths > 1)
    found[longer] = [_FLAGS.get(text.lower(), _ODD) for text in cells.take(longer)]
    return found
