from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.index import FurtherTarget, PackedStrings, SampleIndex
from lightning_vision.data.label_sets import LabelSets
from lightning_vision.types import TargetSpec

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


SETS = LabelSets.from_blocks([np.array([[1, 0], [255, 0], [0, 0]], np.uint8)], 2)


def test_labels_of_every_form() -> None:
    label = FurtherTarget(TargetSpec("label", ("a", "b"), ignore_index=2), np.array([1, 2, 0]))  # type: ignore[arg-type]
    sets = FurtherTarget(TargetSpec("labels", ("a", "b")), labels=SETS)
    assert [label.text(i) for i in range(3)] == ["b", "unknown", "a"]
    assert [sets.text(i) for i in range(3)] == ["a", "no label", "no label"]
    assert (label.unknown(np.arange(3)), sets.unknown(np.arange(3))) == (1, 1)
    assert label.values(np.arange(3)).dtype == np.int64
    assert sets.values(np.array([1, 0])).tolist() == [[255, 0], [1, 0]]
    assert len({sets.key(i) for i in range(3)}) == 3
    for labels in (label, sets):
        assert len(labels) == 3
        assert len(labels.take([2, 0])) == 2
        assert labels.take([2, 0]).key(1) == labels.key(0)
    with pytest.raises(ValueError, match="either a label or a set"):
        FurtherTarget(label.target)
    with pytest.raises(ValueError, match="sets of 2 labels for 3 classes"):
        FurtherTarget(TargetSpec("labels", ("a", "b", "c")), labels=SETS)


def test_sets_and_further_targets_go_with_their_rows() -> None:
    further = {"x": FurtherTarget(TargetSpec("label", ("a", "b")), np.array([0, 1, 0], np.int32))}
    index = SampleIndex(
        PackedStrings.from_strings("abc"),
        np.array([0, 1, 0]),
        target=TargetSpec("labels", ("a", "b")),
        labels=SETS,
        further_targets=further,
    )
    part = index.take([2, 1])
    assert part.labels == SETS.take([2, 1])
    assert part.further_targets["x"].values(np.arange(2)).tolist() == [0, 1]
    assert index.as_split("val").labels is SETS
    assert index.main_labels is not None
    assert index.main_labels.labels is SETS
    assert index.nbytes == index.image.nbytes + 3 + SETS.nbytes + 12
    for wrong in ({"labels": SETS.take([0])}, {"further_targets": {"x": further["x"].take([0])}}):
        with pytest.raises(ValueError, match=r"(labels|x) has 1 rows, image has 3"):
            SampleIndex(PackedStrings.from_strings("abc"), np.zeros(3, np.uint8), **wrong)  # type: ignore[arg-type]
