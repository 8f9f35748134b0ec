"""A few training images of each class."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_vision.data.few_shot import few_shot
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.errors import ConfigError
from lightning_vision.types import TargetSpec


def labelled(n: int = 90) -> SampleIndex:
    label = np.arange(n) % 3
    label[:2] = 3  # of no class
    return SampleIndex(
        PackedStrings.from_strings(map(str, range(n))),
        (np.arange(n) // 3 % 3).astype(np.uint8),
        label=label.astype(np.int32),
        target=TargetSpec("label", ("a", "b", "c"), ignore_index=3),
    )


def test_each_class_keeps_so_many_and_the_other_splits_stay() -> None:
    index = labelled()
    found = few_shot(index, 4, seed=1)
    train = found.rows("train")
    assert np.bincount(found.label[train], minlength=4).tolist() == [4, 4, 4, 2]
    for split in ("val", "test"):
        kept = [found.image_path(i) for i in found.rows(split)]
        assert kept == [index.image_path(i) for i in index.rows(split)]
    for row in range(len(found)):  # every image keeps its label
        assert found.label[row] == index.label[int(found.image_path(row))]


def test_the_seed_draws_and_too_few_are_all() -> None:
    index = labelled()
    draws = [[few_shot(index, 4, seed).image_path(i) for i in range(10)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    found = few_shot(index, 10, 0)
    assert len(found) == len(index)
    (note,) = found.problems
    assert note.severity == "note"
    assert note.message.endswith("which keep all: a (9), b (9)")
    assert not few_shot(index, 9, 0).problems


def test_masks_have_no_classes_to_draw_from() -> None:
    index = labelled()
    index.mask, index.label, index.target = index.image, None, TargetSpec("mask", ("a", "b"))
    with pytest.raises(ConfigError, match="images_per_class=null"):
        few_shot(index, 4, 0)
