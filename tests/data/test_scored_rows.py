"""Which rows a test scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.scored_rows import rows_to_score
from lightning_vision.errors import ConfigError, DataError


def index(*splits: int, is_split: bool = True) -> SampleIndex:
    names = PackedStrings.from_strings(f"{i}.png" for i in range(len(splits)))
    return SampleIndex(names, np.array(splits, np.uint8), origin="table.csv", is_split=is_split)


@pytest.mark.parametrize(
    ("choice", "other", "splits", "is_split", "rows", "called"),
    [
        ("auto", False, [0, 2, 1, 2], True, [1, 3], "test"),
        ("auto", False, [0, 1, 1], True, [1, 2], "val"),
        ("auto", True, [0, 1, 0], True, [1], "val"),
        ("auto", True, [0, 0], True, [0, 1], "test"),
        ("auto", True, [0, 1, 2], False, [0, 1, 2], "test"),
        ("auto", False, [0, 1, 2], False, [2], "test"),
        ("train", False, [0, 2, 0], True, [0, 2], "train"),
        ("val", False, [0, 1, 2], False, [1], "val"),
        ("test", True, [0, 1, 2], True, [2], "test"),
        ("all", True, [0, 1, 2], False, [0, 1, 2], "all"),
    ],
)
def test_rows_and_the_name_of_their_figures(
    choice: Any, other: bool, splits: list[int], is_split: bool, rows: list[int], called: str
) -> None:
    found, name = rows_to_score(index(*splits, is_split=is_split), choice, other)
    assert name == called
    assert [found.image_path(i) for i in found.rows("test")] == [f"{row}.png" for row in rows]
    assert found.counts()["train"] == found.counts()["val"] == 0


def test_what_cannot_be_scored_says_what_can() -> None:
    with pytest.raises(ConfigError, match="not split") as unsplit:
        rows_to_score(index(0, 1, is_split=False), "val", True)
    assert unsplit.value.overrides == ["split=all"]
    with pytest.raises(DataError, match="no row is val") as empty:
        rows_to_score(index(0, 2), "val", False)
    assert empty.value.overrides[:2] == ["split=train", "split=test"]
    with pytest.raises(DataError, match="no row is test or val"):
        rows_to_score(index(0), "auto", False)
    with pytest.raises(DataError, match="no rows"):
        rows_to_score(index(), "all", True)
    with pytest.raises(ConfigError, match="none of its choices"):
        rows_to_score(index(0), "vla", False)  # type: ignore[arg-type]
