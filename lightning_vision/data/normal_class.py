"""Anomaly detection knows two classes: what is normal, and everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import FurtherTarget, Problem, SampleIndex
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.types import SPLITS, Split, TargetSpec

NORMAL_NAMES = ("normal", "good", "ok", "healthy", "nominal", "functional", "0", "negative", "false")
ANOMALOUS = "anomalous"


def find_normal_class(
    labels: FurtherTarget, split: npt.NDArray[np.uint8], given: str | int, key: str = "decoder.normal_class"
) -> tuple[str, str]:
    """Return the name of the normal class, and how it is known.

    Args:
        labels: The labels of all rows.
        split: uint8 ``(N,)``: 0 train, 1 val, 2 test.
        given: Its name; ``auto``: a usual name, or the one class of the training rows.
        key: The setting, for messages.

    Raises:
        ConfigError: There is no such class, or it cannot be told.
        DataError: No training row is of it.
    """
    names = labels.target.class_names
    assert labels.label is not None
    trained = [names[i] for i in np.unique(labels.label[split == SPLITS.index("train")]).tolist() if i < len(names)]
    if given == "auto":
        found, why = _guessed(names, trained, key)
    elif str(given) in names:
        found, why = str(given), "it was given"
    else:
        near = nearest(str(given), names)
        raise ConfigError(
            f"{key} is no class of the data.",
            given=given,
            expected=listed(names),
            nearest=near,
            override=f"{key}={near or names[0]}",
        )
    if found not in trained:
        raise DataError(
            f"No training row is of the normal class {found}, and what is normal is learned from them.",
            given=f"training rows of {listed(trained)}" if trained else "no training rows",
            override=f"{key}={trained[0]}" if trained else None,
        )
    return found, why


def _guessed(names: tuple[str, ...], trained: list[str], key: str) -> tuple[str, str]:
    usual = [name for name in names if name.strip().lower() in NORMAL_NAMES]
    if len(usual) == 1:
        return usual[0], "a usual name of what is normal"
    if len(trained) == 1:
        return trained[0], "the one class of the training rows"
    raise ConfigError(
        "Which class is the normal one?",
        given=f"classes {listed(names)}, of which {listed(trained)} occur in training",
        expected=f"a name such as {listed(NORMAL_NAMES[:5])}, or one class in the training rows",
        override=f"{key}={names[0]}",
    )


def normal_or_not(labels: FurtherTarget, normal: str, anomalous: str | None = None) -> FurtherTarget:
    """Return class 0 for normal and class 1 for everything else, labels that are none of the classes included.

    Args:
        labels: Labels of any classes.
        normal: Name of the normal class; it need not be one of them.
        anomalous: Name of class 1; None: that of the one other class, or ``anomalous`` for several.
    """
    names = labels.target.class_names
    assert labels.label is not None
    others = [name for name in names if name != normal]
    anomalous = anomalous or (others[0] if len(others) == 1 else ANOMALOUS)
    is_normal = labels.label == (names.index(normal) if normal in names else -1)
    return FurtherTarget(TargetSpec("label", (normal, anomalous)), (~is_normal).astype(np.int32))


def as_normal_or_not(index: SampleIndex, normal: str, train_on_anomalies: bool) -> SampleIndex:
    """Return the index with class 0 for normal and class 1 for everything else.

    Args:
        index: Rows with labels.
        normal: Name of the normal class.
        train_on_anomalies: Keep anomalous rows in the training split; they are left out otherwise, with a note.
    """
    assert index.main_labels is not None
    names = index.main_labels.target.class_names
    found = normal_or_not(index.main_labels, normal)
    assert found.label is not None
    problems = list(index.problems)
    if len(names) > 2:
        others = [name for name in names if name != normal]
        problems.append(Problem("note", f"{found.target.class_names[1]} is everything but {normal}: {listed(others)}"))
    index = replace(index, label=found.label, target=found.target)
    left_out = (found.label == 1) & (index.split == SPLITS.index("train"))
    if left_out.any() and not train_on_anomalies:
        told = f"{int(left_out.sum())} anomalous rows are left out of the training split: it learns what is normal"
        problems.append(Problem("note", told))
        index = index.take(np.flatnonzero(~left_out))
    index.problems = tuple(problems)
    return index


def as_trained(index: SampleIndex, trained: TargetSpec, further: str | None = None) -> SampleIndex:
    """Return data to score, of any classes, with those of the checkpoint: its normal one, and everything else.

    Args:
        index: Rows with labels.
        trained: The classes of the checkpoint.
        further: Name of the further output whose labels these are; None for the main one.
    """
    labels = index.main_labels if further is None else index.further_targets[further]
    assert labels is not None
    found = replace(normal_or_not(labels, *trained.class_names), target=trained)
    assert found.label is not None
    if further is None:
        index = replace(index, label=found.label, target=trained)
    else:
        index = replace(index, further_targets={**index.further_targets, further: found})
    if found.label.all():
        told = f"no row is of the class {trained.class_names[0]}, so all {len(index)} count as anomalous"
        index.problems = (*index.problems, Problem("warning", told))
    return index


def occurring(label: npt.NDArray[np.int32], split: npt.NDArray[np.uint8], name: Split) -> tuple[bool, bool]:
    """Whether normal and anomalous rows occur in a split, of labels from ``normal_or_not``."""
    found = label[split == SPLITS.index(name)]
    return bool((found == 0).any()), bool((found == 1).any())
