"""Labels as a source finds them: numbered, and looked at for what is probably wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_vision.data.class_names import check_coverage, encode_labels, not_in_train, read_class_names
from lightning_vision.data.index import FurtherTarget, PackedStrings
from lightning_vision.data.label_cells import encode_flags, encode_sets, has_lists, is_list, is_set, names_in
from lightning_vision.data.label_map import apply_label_map, read_label_map
from lightning_vision.data.label_sets import NO, LabelSets
from lightning_vision.data.sources.problems import Problems
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.types import SPLITS, TargetKind, TargetSpec

# Words that other programs write for a missing value. Here a missing value is an empty cell.
MISSING_WORDS = frozenset(("nan", "<na>", "na", "n/a", "#n/a", "null", "none", "nat"))
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}(\.0*)?")  # a whole number, also as a float


@dataclass
class RawLabels:
    """The labels of every row as text.

    Args:
        kind: ``label``: a cell is one label; ``labels``: any number of them.
        columns: The cells by the name of their column: one, or with ``flags`` one for each label.
        flags: The cells say yes or no.
        separator: What stands between the labels of a cell; None = a cell is one label, whatever it holds.
        class_names: Names in the order of their ids: a list, or a file; None = found in the data.
        num_classes: Number of classes, compared with the data; None = found in the data.
        unknown: Labels that mean none of the classes.
        label_map: From labels to class names: a map, or a file.
    """

    kind: TargetKind
    columns: Mapping[str, PackedStrings]
    flags: bool = False
    separator: str | None = None
    class_names: str | Sequence[str] | None = None
    num_classes: int | None = None
    unknown: Sequence[str] | None = None
    label_map: str | Mapping[str, str] | None = None

    @property
    def cells(self) -> PackedStrings:
        """The one column of labels."""
        return next(iter(self.columns.values()))

    def numbered(
        self, where: Callable[[int], str], folder: str, problems: Problems
    ) -> tuple[FurtherTarget | None, npt.NDArray[np.bool_]]:
        """Give every label its id.

        Args:
            where: Says in words where row i comes from.
            folder: Where a relative file of class names is looked for.
            problems: Gets what is wrong.

        Returns:
            The target, None if there is no label at all; and bool ``(N,)``: rows whose label is none.
        """
        key = "data.class_names" if problems.output is None else f"outputs.{problems.output}.class_names"
        names = read_class_names(self.class_names, folder, key)
        if self.kind == "label" and has_lists(self.cells):
            row = next(i for i, cell in enumerate(self.cells) if is_list(cell))
            problems.error(
                DataError(
                    f"column {next(iter(self.columns))}, {where(row)}: neither text nor a number, but a list of labels",
                    given=listed(names_in(self.cells[row], None)),
                    expected="one label an image",
                    override="task=multilabel",
                )
            )
            return None, np.zeros(len(self.cells), np.bool_)
        cells = self.cells
        label_map = read_label_map(self.label_map, folder)
        if label_map is not None and self.kind == "labels":
            problems.error(
                ConfigError(
                    "data.label_map is for one label an image",
                    given="data.label_map with sets of labels",
                    override="data.label_map=null",
                )
            )
        elif label_map is not None:
            cells = apply_label_map(cells, label_map, where, problems.error, [str(word) for word in self.unknown or ()])
            # The names in the order of the map, also those that no row has.
            words = {str(word) for word in self.unknown or ()}
            names = names or tuple(name for name in dict.fromkeys(label_map.values()) if name not in words)
        if self.kind == "label":
            unknown = tuple(dict.fromkeys(str(word).strip() for word in self.unknown or ()))

            def report(error: DataError) -> None:
                if names is not None and self._has_sets_of(names):
                    error.overrides.insert(0, "task=multilabel")
                problems.error(error)

            label, found = encode_labels(cells, where, names, self.num_classes, report, unknown)
            ignored = len(found) if unknown else None
            return FurtherTarget(TargetSpec("label", found, ignore_index=ignored), label), label < 0
        if self.unknown:
            problems.error(
                ConfigError(
                    "data.unknown names labels that are no class, and here each image has a set of labels",
                    given=f"data.unknown=[{','.join(map(str, self.unknown))}]",
                    expected="one label an image; of a set of labels, empty cells of yes and no are unknown",
                    override="data.unknown=null",
                )
            )
        if self.flags:
            labels, found, wrong = encode_flags(self.columns, where, names, self.num_classes, problems.error)
        else:
            labels, found, wrong = encode_sets(cells, self.separator, where, names, self.num_classes, problems.error)
        if not found:
            if len(labels):
                column = listed(self.columns)
                problems.error(DataError(f"column {column}: no row has a label", expected="names of labels"))
            return None, wrong
        return FurtherTarget(TargetSpec("labels", found), labels=labels), wrong

    def _has_sets_of(self, names: Sequence[str]) -> bool:
        """Whether a cell is several of these names."""
        sep = self.separator
        return sep is not None and any(is_set(c, sep) and {*names_in(c, sep)} <= {*names} for c in self.cells)

    def check(
        self,
        target: FurtherTarget,
        split: npt.NDArray[np.uint8],
        where: Callable[[int], str],
        origin: str,
        problems: Problems,
        coverage: bool,
    ) -> None:
        """Look at which split has which label, and at labels that look odd.

        Args:
            target: The labels as numbers.
            split: uint8 ``(N,)``: 0 train, 1 val, 2 test.
            where: Says in words where row i comes from.
            origin: The file or folder.
            problems: Gets what is found.
            coverage: Every label must be in train, and there must be two.
        """
        by_user = self.class_names is not None or self.num_classes is not None
        names = target.target.class_names
        if target.label is not None:
            check_coverage(target.label, split, names, by_user, problems.error, problems.warn, coverage)
        elif target.labels is not None:
            _check_sets(target.labels, split, names, by_user, problems, coverage)
        if self.flags or self.kind == "labels":
            return
        first: dict[str, int] = {}
        for i, value in enumerate(self.cells):
            first.setdefault(value, i)
        if self.class_names is None:
            _odd_labels(first, where, origin, problems)
        if self.separator is not None:
            _look_like_sets(first, self.separator, where, problems)


def two_labels(
    image: PackedStrings,
    repeats: Sequence[Sequence[int]],
    target: FurtherTarget,
    where: Callable[[int], str],
    problems: Problems,
) -> None:
    """Warn of images that have one label here and another there.

    Args:
        image: Path of every image.
        repeats: Groups of rows with the same image.
        target: The labels.
        where: Says in words where row i comes from.
        problems: Gets the warning.
    """
    found = [rows for rows in repeats if len({target.key(i) for i in rows}) > 1]
    if found:
        shown = "; ".join(
            f"{image[rows[0]]}: " + listed((f"{target.text(i)} ({where(i)})" for i in rows), 5) for rows in found[:5]
        )
        problems.warn(f"{len(found)} images have different labels in different rows: {shown}")


def _odd_labels(first: Mapping[str, int], where: Callable[[int], str], origin: str, problems: Problems) -> None:
    """Look for one number written in two ways, and for words that mean a missing value elsewhere."""
    same: dict[int, list[str]] = {}
    for value in first:
        if _WHOLE.fullmatch(value):
            same.setdefault(int(float(value)), []).append(value)
    twice = [values for values in same.values() if len(values) > 1]
    shown = "; ".join(" and ".join(f"{v} ({where(first[v])})" for v in values[:5]) for values in twice[:5])
    if twice and not all(value.lstrip("+-").isdecimal() for value in first):
        problems.error(
            DataError(
                f"{origin}: labels that are one number written in different ways would be different classes",
                given=shown,
                expected="one way to write a class, or all classes in data.class_names",
            )
        )
    elif twice:
        problems.note(f"labels that are one number written in different ways are one class: {shown}")
    alike: dict[str, list[str]] = {}
    for value in first:
        alike.setdefault(" ".join(value.casefold().split()), []).append(value)
    shown = "; ".join(
        " and ".join(f"{v} ({where(first[v])})" for v in values[:5]) for values in alike.values() if len(values) > 1
    )
    if shown:
        problems.warn(f"labels that differ in capitals or spaces alone are different classes: {shown}")
    words = [f"{value} ({where(i)})" for value, i in first.items() if value.lower() in MISSING_WORDS - {"none"}]
    if words:
        problems.warn(f"labels that often stand for a missing value are classes here: {listed(words)}")


def _look_like_sets(first: Mapping[str, int], separator: str, where: Callable[[int], str], problems: Problems) -> None:
    """Warn of cells that may be several labels, where one was wanted."""
    found = [f"{value!r} ({where(i)})" for value, i in first.items() if is_set(value, separator)]
    if found:
        problems.warn(
            f"{len(found)} labels hold {separator!r} (data.separator), and each is one class here; task=multilabel "
            f"takes them as sets of labels: {listed(found, 5)}"
        )


def _check_sets(
    sets: LabelSets,
    split: npt.NDArray[np.uint8],
    names: tuple[str, ...],
    by_user: bool,
    problems: Problems,
    coverage: bool,
) -> None:
    """Look for labels of val or test that train lacks, for labels that train has never or always, for empty sets."""
    parts = [np.flatnonzero(split == s).astype(np.int64) for s in range(len(SPLITS))]
    counts = [sets.counts(rows) for rows in parts]
    empty = sum(int((~(cells != NO).any(axis=1)).sum()) for cells in sets.blocks())
    if empty:
        problems.note(f"{empty} of {len(sets)} rows have no label at all")
    if not len(parts[0]):
        return  # nothing is trained on: data for test or predict
    yes, unknown = counts[0]
    if coverage:
        not_in_train([has for has, _ in counts], names, "labels", by_user, problems.error, problems.warn)
    never = [names[c] for c in np.flatnonzero(yes == 0) if not (coverage and (counts[1][0] + counts[2][0])[c])]
    if never:
        problems.warn(f"labels that no row of train has: {listed(never, 10)}")
    always = [names[c] for c in np.flatnonzero((yes > 0) & (yes + unknown == len(parts[0])))]
    if always:
        problems.warn(f"labels that every row of train has: {listed(always, 10)}")
