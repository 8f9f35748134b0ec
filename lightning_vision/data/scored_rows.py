"""Which rows a test scores, and the name that its figures have."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from lightning_vision.data.index import SampleIndex
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import SPLITS

Called = Literal["train", "val", "test", "all"]
Choice = Literal["auto", "train", "val", "test", "all"]


def rows_to_score(index: SampleIndex, choice: Choice, other_data: bool) -> tuple[SampleIndex, Called]:
    """Return the rows of a choice, in the split ``test`` of an index of their own, and the name of their figures.

    Args:
        index: All rows.
        choice: A split, or ``all`` rows. ``auto``: the test split, else val; of other data that have neither, or are
            not split at all, all rows, as figures of the test.
        other_data: The model was not trained on these data, so a split that was drawn of them means nothing.

    Raises:
        ConfigError: No such choice, or a split of data that are not split.
        DataError: There is no row to score.
    """
    if choice not in get_args(Choice):
        raise ConfigError("split is none of its choices", given=choice, expected=get_args(Choice), override="split=all")
    if not len(index):
        raise DataError(f"{index.origin}: no rows, so there is nothing to score", override="data.path=OTHER_DATA")
    counts = index.counts()
    name: Called = "test"
    if choice != "auto":
        name = choice
        if choice != "all" and other_data and not index.is_split:
            raise ConfigError(
                f"{index.origin}: these data are not split into train, val and test",
                given=f"split={choice}",
                expected="split=all, or a column of splits (data.split=COLUMN)",
                override="split=all",
            )
    elif other_data and not (index.is_split and counts["test"] + counts["val"]):
        why = "no row is test or val" if index.is_split else "not split into train, val and test"
        print(f"{index.origin}: {why}, so all {len(index)} rows are scored")
        return index.as_split("test"), "test"
    elif not counts["test"]:
        name = "val"
    rows = np.arange(len(index)) if name == "all" else index.rows(name)
    if not len(rows):
        filled = [split for split in SPLITS if counts[split]]
        raise DataError(
            f"{index.origin}: no row is {'test or val' if choice == 'auto' else choice}, so there is nothing to score",
            given=", ".join(f"{count} {split}" for split, count in counts.items()),
            expected="rows of the split that is scored",
            override=[*(f"split={split}" for split in filled), "data.path=OTHER_DATA"],
        )
    return index.take(rows).as_split("test"), name
