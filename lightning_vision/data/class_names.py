"""Classes of labels: which text is which class id, and in which order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.types import SPLITS, TargetSpec

_INTEGER = re.compile(r"[+-]?[0-9]+")


def read_class_names(class_names: str | Sequence[object] | None, folder: str) -> tuple[str, ...] | None:
    """Return the names of a list, or of a file with one name a line; None stays None.

    Args:
        class_names: List of names, or path of a file, looked up as it is and then in ``folder``.
        folder: Where the data lie.

    Raises:
        ConfigError: No such file, no names in it, or a name twice.
    """
    if class_names is None:
        return None
    if isinstance(class_names, str):
        given = os.path.expanduser(class_names)
        tried = [os.path.abspath(given), os.path.join(folder, given)]
        path = next((p for p in tried if os.path.isfile(p)), None)
        if path is None:
            raise ConfigError("data.class_names is no file", given=class_names, expected=" or ".join(dict.fromkeys(tried)))
        with open(path, encoding="utf-8-sig") as file:
            names = [line.strip() for line in file]
        while names and not names[-1]:
            names.pop()
    else:
        path, names = "data.class_names", [str(name).strip() for name in class_names]
    if not names:
        raise ConfigError(f"{path} holds no class names", expected="one name a line, the first is class 0")
    if "" in names:
        raise ConfigError(f"{path} holds an empty name", given=f"name {names.index('') + 1} of {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path} holds a class name twice", given=listed(twice))
    return tuple(names)


def encode_labels(
    values: PackedStrings,
    where: Callable[[int], str],
    class_names: tuple[str, ...] | None,
    num_classes: int | None,
    report: Callable[[DataError], None],
) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Turn label texts into class ids.

    With ``class_names`` a text is looked up among them; if that fails and all texts are integers, they are positions
    in the list. Without, the sorted distinct values are the classes (integers by value, texts by code point), except
    that ``num_classes`` and integers within 0 .. num_classes - 1 make every such integer a class, seen or not.

    Args:
        values: Label of each sample.
        where: Says in words where sample i comes from.
        class_names: The classes in order, or None.
        num_classes: The number of classes that the user expects, or None.
        report: Called with each error; it raises it, or collects it.

    Returns:
        int32 ``(N,)`` ids, -1 for a value that is no class (only if ``report`` returned), and the class names.
    """
    # Distinct values in order of appearance, and the code of each sample.
    codes = np.empty(len(values), np.int64)
    seen: dict[str, int] = {}
    first: list[int] = []
    for i, value in enumerate(values):
        code = seen.setdefault(value, len(seen))
        if code == len(first):
            first.append(i)
        codes[i] = code
    distinct = list(seen)
    integers = bool(distinct) and all(_INTEGER.fullmatch(v) for v in distinct)
    if class_names is not None:
        if num_classes is not None and num_classes != len(class_names):
            raise ConfigError(
                "data.num_classes contradicts data.class_names",
                given=f"num_classes={num_classes}, and {len(class_names)} class names",
                override=["data.num_classes=null", "data.class_names=null"],
            )
        by_name = {name: i for i, name in enumerate(class_names)}
        if integers and not all(v in by_name for v in distinct):
            by_name = {v: int(v) for v in distinct if 0 <= int(v) < len(class_names)}
        unknown = [v for v in distinct if v not in by_name]
        if unknown:
            shown = ", ".join(f"{v!r} ({where(first[seen[v]])})" for v in unknown[:5])
            rows = int(np.isin(codes, [seen[v] for v in unknown]).sum())
            report(
                DataError(
                    f"{rows} labels of {len(unknown)} values are not among the {len(class_names)} class names",
                    given=shown + (f" … and {len(unknown) - 5} more" if len(unknown) > 5 else ""),
                    expected=(f"0 to {len(class_names) - 1}, or " if integers else "") + listed(class_names),
                    nearest=nearest(unknown[0], class_names),
                    override="data.class_names=null",
                )
            )
        ids = [by_name.get(v, -1) for v in distinct]
        names = class_names
    elif integers and num_classes is not None and all(0 <= int(v) < num_classes for v in distinct):
        ids, names = [int(v) for v in distinct], tuple(str(i) for i in range(num_classes))
    else:
        ordered = sorted(distinct, key=int) if integers else sorted(distinct)
        # "1" and "01" are one number written in two ways.
        keys = [str(int(v)) if integers else v for v in ordered]
        names = tuple(dict.fromkeys(keys))
        position = {name: i for i, name in enumerate(names)}
        by_value = {v: position[k] for v, k in zip(ordered, keys, strict=True)}
        ids = [by_value[v] for v in distinct]
        if num_classes is not None and num_classes != len(names):
            report(
                DataError(
                    "data.num_classes contradicts the labels",
                    given=f"num_classes={num_classes}, and {len(names)} distinct labels: {listed(names, 10)}",
                    override=["data.num_classes=null", f"data.num_classes={len(names)}"],
                )
            )
    return np.asarray(ids, np.int32)[codes] if len(values) else np.zeros(0, np.int32), names


def check_coverage(
    label: npt.NDArray[np.int32],
    split: npt.NDArray[np.uint8],
    names: tuple[str, ...],
    listed_by_user: bool,
    report: Callable[[DataError], None],
    warn: Callable[[str], None],
) -> None:
    """Look for a single class, and for classes that occur in val or test but never in train."""
    counts = [np.bincount(label[(split == s) & (label >= 0)], minlength=len(names)) for s in range(len(SPLITS))]
    if not counts[0].any():
        return  # nothing is trained on: data for test or predict
    if len(names) < 2:
        report(
            DataError(
                "all images have one label, so there is nothing to tell apart",
                given=listed(names),
                expected="at least two classes",
                override="data.target=OTHER_COLUMN",
            )
        )
    for s in (1, 2):
        unseen = [f"{names[c]} ({counts[s][c]})" for c in np.flatnonzero((counts[s] > 0) & (counts[0] == 0))]
        if not unseen:
            continue
        message = f"classes that occur in {SPLITS[s]} but not in train: {listed(unseen, 10)}"
        if listed_by_user:
            warn(message)
        else:
            report(DataError(message, expected="every class in train", override="data.class_names=classes.txt"))
    empty = [names[c] for c in np.flatnonzero(sum(counts) == 0)]
    if empty:
        warn(f"classes without any sample: {listed(empty, 10)}")


def align(index: SampleIndex, target: TargetSpec) -> SampleIndex:
    """Return the index with the class ids of ``target``, as a checkpoint knows them: classes are matched by name.

    Raises:
        DataError: Another kind of target, or classes that ``target`` does not have.
    """
    own = index.target
    if own is None or own == target:
        return index
    if own.kind != target.kind:
        raise DataError(
            f"{index.origin}: the target is not what the model was trained for", given=own.kind, expected=target.kind
        )
    if own.kind == "mask":
        # How the files are written may differ (0/255 here, 0/1 there); what the classes mean may not.
        default = all(n == str(i) for i, n in enumerate(own.class_names)) or own.class_names == BINARY_NAMES
        if own.num_classes > target.num_classes or not (
            default or own.class_names == target.class_names[: own.num_classes]
        ):
            raise _other_classes(index.origin, own, target)
        names, palette = target.class_names, target.palette
        return replace(index, target=replace(own, class_names=names, palette=palette))
    unknown = [name for name in own.class_names if name not in target.class_names]
    if unknown:
        raise _other_classes(index.origin, own, target)
    assert index.label is not None
    ids = np.array([target.class_names.index(name) for name in own.class_names], np.int32)
    return replace(index, label=ids[index.label], target=target)


BINARY_NAMES = ("background", "foreground")


def _other_classes(origin: str, own: TargetSpec, target: TargetSpec) -> DataError:
    unknown = [name for name in own.class_names if name not in target.class_names]
    return DataError(
        f"{origin}: classes that the model does not know",
        given=listed(unknown or own.class_names),
        expected=listed(target.class_names),
        nearest=nearest(unknown[0], target.class_names) if unknown else None,
    )
