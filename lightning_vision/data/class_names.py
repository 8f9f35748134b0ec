"""Classes of labels: which text is which class id, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.mask_colors import require_different
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.overrides import override
from lightning_vision.types import SPLITS, Palette

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)")
_COLORED = re.compile(r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\S.*)")


def find_file(given: str, folder: str, key: str) -> str:
    """Return the path of a file that a setting names, looked up as it is and then in ``folder``.

    Raises:
        ConfigError: There is no such file.
    """
    name = os.path.expanduser(given)
    tried = [os.path.abspath(name), os.path.join(folder, name)]
    path = next((p for p in tried if os.path.isfile(p)), None)
    if path is None:
        expected = " or ".join(dict.fromkeys(tried))
        raise ConfigError(f"{key} is no file", given=given, expected=expected, override=f"{key}=null")
    return path


def read_class_names(
    class_names: str | Sequence[object] | None, folder: str, key: str = "data.class_names"
) -> tuple[str, ...] | None:
    """Return the names of a list, or of a file with one name a line; None stays None.

    Args:
        class_names: List of names, or path of a file, looked up as it is and then in ``folder``.
        folder: Where the data lie.
        key: The setting, for messages.

    Raises:
        ConfigError: No such file, no names in it, or a name twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        path = find_file(class_names, folder, key)
        with open(path, encoding="utf-8-sig") as file:
            names = [line.strip() for line in file]
        while names and not names[-1]:
            names.pop()
    else:
        path, names = key, [str(name).strip() for name in class_names]
    if not names:
        raise ConfigError(f"{path} holds no class names", expected="one name a line, the first is class 0")
    if "" in names:
        raise ConfigError(f"{path} holds an empty name", given=f"name {names.index('') + 1} of {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path} holds a class name twice", given=listed(twice))
    return tuple(names)


def split_colors(
    class_names: tuple[str, ...] | None, key: str = "data.class_names"
) -> tuple[tuple[str, ...] | None, Palette | None]:
    """Tell the colours from the names where every line is ``red green blue name``, as in ``label_colors.txt``.

    Args:
        class_names: What ``read_class_names`` returned.
        key: The setting, for messages.

    Raises:
        ConfigError: A number above 255, or a name or colour twice.
    """
    lines = [_COLORED.fullmatch(line) for line in class_names or ()]
    found = [line for line in lines if line is not None]
    if not found or len(found) < len(lines):
        return class_names, None
    names = tuple(line[4] for line in found)
    colors = tuple((int(line[1]), int(line[2]), int(line[3])) for line in found)
    for name, color in zip(names, colors, strict=True):
        if max(color) > 255:
            raise ConfigError(f"{key}: {name} has no colour", given=listed(color), expected="0 to 255, three times")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{key} holds a class name twice", given=listed(twice))
    require_different(colors, key)
    return names, colors


@dataclass(frozen=True)
class Distinct:
    """The distinct texts of a column, in the order of their appearance.

    Args:
        first: The row where each is first.
        codes: int64 ``(N,)``, the position in ``first`` of each row's text.
    """

    first: dict[str, int]
    codes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: PackedStrings) -> Distinct:
        """Find them."""
        codes = np.empty(len(values), np.int64)
        seen: dict[str, int] = {}
        first: list[int] = []
        for i, value in enumerate(values):
            code = seen.setdefault(value, len(seen))
            if code == len(first):
                first.append(i)
            codes[i] = code
        return cls(dict(zip(seen, first, strict=True)), codes)


def encode_labels(
    values: PackedStrings,
    where: Callable[[int], str],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    report: Callable[[DataError], None],
    unknown: Sequence[str] = (),
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Turn label texts into class ids; see ``number_names`` for which text is which.

    Args:
        values: Label of each sample.
        where: Says in words where sample i comes from.
        class_names: The classes in order, or None.
        num_classes: The number of classes that the user expects, or None.
        report: Called with each error; it raises it, or collects it.
        unknown: Texts that mean none of the classes.

    Returns:
        int32 ``(N,)`` ids and the class names. The id of ``unknown`` is the number of classes; -1 is that of a value
        that is no class (only if ``report`` returned).
    """
    distinct = Distinct.of(values)
    codes = {value: code for code, value in enumerate(distinct.first)}
    missing = [word for word in unknown if word not in codes]
    if missing:
        near = nearest(missing[0], codes)
        report(
            DataError(
                "data.unknown names labels that no row has",
                given=listed(missing),
                expected=f"some of {listed(codes)}",
                nearest=near,
                override="data.unknown=null" if near is None else override("data.unknown", [near]),
            )
        )
    both = [word for word in unknown if word in (class_names or ())]
    if both:
        raise ConfigError(
            "data.unknown names labels that are classes in data.class_names",
            given=listed(both),
            override=["data.unknown=null", "data.class_names=null"],
        )
    known = {value: row for value, row in distinct.first.items() if value not in unknown}

    def rows_with(texts: Sequence[str]) -> int:
        return int(np.isin(distinct.codes, [codes[text] for text in texts]).sum())

    ids, names = number_names(known, where, class_names, num_classes, report, rows_with)
    by_code = np.array([ids.get(value, len(names)) for value in distinct.first] or [0], np.int32)
    return by_code[distinct.codes], names


def number_names(
    first: Mapping[str, int],
    where: Callable[[int], str],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    report: Callable[[DataError], None],
    rows_with: Callable[[Sequence[str]], int],
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Tell which distinct text is which class.

    With ``class_names`` a text is looked up among them; integers are positions in the list if none of the names is a
    number. Without, the sorted distinct values are the classes (numbers by value, texts by code point), except
    that ``num_classes`` and integers within 0 .. num_classes - 1 make every such integer a class, seen or not.

    Args:
        first: The distinct texts, and where each occurs first.
        where: Says in words where sample i comes from.
        class_names: The classes in order, or None.
        num_classes: The number of classes that the user expects, or None.
        report: Called with each error; it raises it, or collects it.
        rows_with: Counts the rows that have one of some texts.

    Returns:
        The id of each text, -1 for one that is no class (only if ``report`` returned), and the class names.
    """
    distinct = list(first)
    integers = bool(distinct) and all(_INTEGER.fullmatch(v) for v in distinct)
    if class_names is not None:
        if num_classes is not None and num_classes != len(class_names):
            raise ConfigError(
                "data.num_classes contradicts data.class_names",
                given=f"num_classes={num_classes}, and {len(class_names)} class names",
                override=["data.num_classes=null", f"data.num_classes={len(class_names)}"],
            )
        by_name = {name: i for i, name in enumerate(class_names)}
        # Names that are numbers themselves are never taken for positions: 1, 2, 3 would silently become 2, 3, none.
        if integers and not any(_INTEGER.fullmatch(name) for name in class_names):
            by_name = {v: int(v) for v in distinct if 0 <= int(v) < len(class_names)}
        foreign = [v for v in distinct if v not in by_name]
        if foreign:
            shown = ", ".join(f"{v!r} ({where(first[v])})" for v in foreign[:5])
            report(
                DataError(
                    f"{rows_with(foreign)} labels of {len(foreign)} values are not among the {len(class_names)} "
                    "class names",
                    given=shown + (f" … and {len(foreign) - 5} more" if len(foreign) > 5 else ""),
                    expected=(f"0 to {len(class_names) - 1}, for " if by_name.keys().isdisjoint(class_names) else "")
                    + listed(class_names),
                    nearest=nearest(foreign[0], class_names),
                    override="data.class_names=null",
                )
            )
        return {v: by_name.get(v, -1) for v in distinct}, class_names
    if integers and num_classes is not None and all(0 <= int(v) < num_classes for v in distinct):
        return {v: int(v) for v in distinct}, tuple(str(i) for i in range(num_classes))
    numbers = all(_NUMBER.fullmatch(v) for v in distinct)
    ordered = sorted(distinct, key=int if integers else float) if numbers else sorted(distinct)
    # "1" and "01" are one number written in two ways.
    keys = [str(int(v)) if integers else v for v in ordered]
    names = tuple(dict.fromkeys(keys))
    position = {name: i for i, name in enumerate(names)}
    if num_classes is not None and num_classes != len(names):
        report(
            DataError(
                "data.num_classes contradicts the labels",
                given=f"num_classes={num_classes}, and {len(names)} distinct labels: {listed(names, 10)}",
                override=["data.num_classes=null", f"data.num_classes={len(names)}"],
            )
        )
    return {v: position[k] for v, k in zip(ordered, keys, strict=True)}, names


def check_coverage(
    label: npt.NDArray[np.int32],
    split: npt.NDArray[np.uint8],
    names: tuple[str, ...],
    listed_by_user: bool,
    report: Callable[[DataError], None],
    warn: Callable[[str], None],
    coverage: bool = True,
) -> None:
    """Look for a single class, and for classes that occur in val or test but never in train.

    Args:
        label: int32 ``(N,)`` class ids; -1, and the number of classes, are none of them.
        split: uint8 ``(N,)``: 0 train, 1 val, 2 test.
        names: The classes.
        listed_by_user: The user said what the classes are, so that a class may be missing.
        report: Called with each error.
        warn: Called with each warning.
        coverage: False: one class is enough, and train need not have all.
    """
    counts = [_class_counts(label[split == s], len(names)) for s in range(len(SPLITS))]
    if not (label[split == 0] >= 0).any():
        return  # nothing is trained on: data for test or predict
    if not counts[0].any():
        message = "no label of train is one of the classes, so there is nothing to learn"
        report(DataError(message, expected="rows of the classes in train", override="data.unknown=null"))
        return
    if coverage and len(names) < 2:
        report(
            DataError(
                "all images have one label, so there is nothing to tell apart",
                given=listed(names),
                expected="at least two classes in the target column, or two folders of classes",
            )
        )
    if coverage:
        not_in_train(counts, names, "classes", listed_by_user, report, warn)
    empty = [names[c] for c in np.flatnonzero(sum(counts) == 0)]
    if empty:
        warn(f"classes without any sample: {listed(empty, 10)}")


def _class_counts(label: npt.NDArray[np.int32], num_classes: int) -> npt.NDArray[np.int64]:
    return np.bincount(label[label >= 0], minlength=num_classes)[:num_classes]


def not_in_train(
    counts: Sequence[npt.NDArray[np.int64]],
    names: tuple[str, ...],
    what: str,
    listed_by_user: bool,
    report: Callable[[DataError], None],
    warn: Callable[[str], None],
) -> None:
    """Report classes that occur in val or test but never in train: an error, or a warning where the user listed them.

    Args:
        counts: int64 ``(C,)`` for train, val and test: the samples of each class.
        names: The classes.
        what: What they are called.
        listed_by_user: The user said what the classes are.
        report: Called with each error.
        warn: Called with each warning.
    """
    for s in (1, 2):
        unseen = [f"{names[c]} ({counts[s][c]})" for c in np.flatnonzero((counts[s] > 0) & (counts[0] == 0))]
        if not unseen:
            continue
        message = f"{what} that occur in {SPLITS[s]} but not in train: {listed(unseen, 10)}"
        if listed_by_user:
            warn(message)
        else:
            plain = all(_PLAIN.fullmatch(name) for name in names) and len(names) <= 20
            override = f"data.class_names=[{','.join(names)}]" if plain else "data.class_names=classes.txt"
            report(DataError(message, expected="every class in train", override=override))
