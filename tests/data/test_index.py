from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.index import PackedStrings, SampleIndex

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=30)


@given(TEXTS)
def test_strings_come_back(texts: list[str]) -> None:
    packed = PackedStrings.from_strings(iter(texts))
    assert list(packed) == texts
    assert len(packed) == len(texts)
    assert [packed[i - len(texts)] for i in range(len(texts))] == texts
    assert pickle.loads(pickle.dumps(packed)) == packed


@given(TEXTS.filter(bool), st.data())
def test_take_is_list_indexing(texts: list[str], data: st.DataObject) -> None:
    packed = PackedStrings.from_strings(texts)
    rows = data.draw(st.lists(st.integers(-len(texts), len(texts) - 1), max_size=50))
    assert list(packed.take(rows)) == [texts[i] for i in rows]


def test_take_over_many_blocks() -> None:
    texts = [str(i) * (i % 5) for i in range(40_000)]
    rows = np.random.default_rng(0).integers(0, len(texts), 50_000)
    assert list(PackedStrings.from_strings(texts).take(rows)) == [texts[i] for i in rows]


def test_names_that_are_not_utf8_survive() -> None:
    name = os.fsdecode(b"/data/\xff\xfe.jpg")
    assert PackedStrings.from_strings([name])[0] == name


@pytest.mark.parametrize("row", [2, -3])
def test_rows_out_of_range(row: int) -> None:
    packed = PackedStrings.from_strings(["a", "b"])
    with pytest.raises(IndexError):
        packed[row]
    with pytest.raises(IndexError):
        packed.take([0, row])


def test_a_million_rows_take_about_fifty_megabytes() -> None:
    n = 100_000
    index = SampleIndex(
        PackedStrings.from_strings(f"/data/images/train/{i:09d}/{i % 7:04d}.jpg" for i in range(n)),
        np.zeros(n, np.uint8),
        label=np.zeros(n, np.int32),
    )
    assert index.nbytes <= 1.4 * int(index.image.offsets[-1]) + 5 * n
    assert len(pickle.dumps(index)) < 1.01 * index.nbytes + 1000


def test_splits() -> None:
    index = SampleIndex(PackedStrings.from_strings("abcde"), np.array([0, 1, 0, 2, 0]), label=np.arange(5))
    assert index.counts() == {"train": 3, "val": 1, "test": 1}
    assert index.rows("train").tolist() == [0, 2, 4]
    assert index.rows("train").dtype == np.int64
    part = index.take(index.rows("train"))
    assert [part.image_path(i) for i in range(3)] == ["a", "c", "e"]
    assert part.label is not None
    assert part.label.tolist() == [0, 2, 4]
    assert index.as_split("val").counts() == {"train": 0, "val": 5, "test": 0}
    assert index.counts()["val"] == 1


def test_columns_must_agree() -> None:
    with pytest.raises(ValueError, match="label has 2 rows"):
        SampleIndex(PackedStrings.from_strings("abc"), np.zeros(3, np.uint8), label=np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="split 3"):
        SampleIndex(PackedStrings.from_strings("a"), np.array([3], np.uint8))
    with pytest.raises(ValueError, match="no masks"):
        SampleIndex(PackedStrings.from_strings("a"), np.array([0], np.uint8)).mask_path(0)
