"""The class balance: counts against a loop over the data, and a page for any number of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lightning_vision as lv
from lightning_vision.data.index import FurtherTarget, PackedStrings, SampleIndex
from lightning_vision.data.label_sets import LabelSets
from lightning_vision.reports import classes
from lightning_vision.reports.classes import Balance, balance_of, classes_image
from lightning_vision.types import TargetSpec


def masks(folder: Path, count: int) -> tuple[SampleIndex, np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 3, (count, 6, 8)).astype(np.uint8)
    pixels[0] = 1
    pixels[:, 0, 0] = 255
    for i, mask in enumerate(pixels):
        Image.fromarray(mask).save(folder / f"{i}.png")
    paths = PackedStrings.from_strings([str(folder / f"{i}.png") for i in range(count)])
    split = (np.arange(count) % 2).astype(np.uint8)
    target = TargetSpec("mask", ("a", "b", "c"), ignore_index=255)
    return SampleIndex(paths, split, mask=paths, target=target), pixels


def test_masks_are_counted_by_pixels_and_by_images(tmp_path: Path) -> None:
    index, pixels = masks(tmp_path, 8)
    balance = balance_of(index, None)
    assert balance is not None
    assert balance.note == ""
    assert balance.rows == {"train": 4, "val": 4, "test": 0}
    train = pixels[::2]
    for c in range(3):
        assert balance.classes[c]["train"] == pytest.approx((train == c).sum() / (train != 255).sum())
        assert balance.masks[c]["train"] == (train == c).any((1, 2)).sum()


def test_of_many_masks_some_are_read_and_the_picture_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = masks(tmp_path, 9)
    monkeypatch.setattr(classes, "MASKS", 2)
    balance = balance_of(index, None)
    assert balance is not None
    assert balance.rows == {"train": 2, "val": 2, "test": 0}
    assert balance.note == "of 4 masks, evenly over all 9"


def test_labels_that_occur_together() -> None:
    rng = np.random.default_rng(1)
    sets = rng.choice([0, 1, 255], (20, 3), p=[0.5, 0.4, 0.1]).astype(np.uint8)
    names = ("a", "b", "c")
    found = FurtherTarget(TargetSpec("labels", names), labels=LabelSets.from_blocks([sets], 3))
    paths = PackedStrings.from_strings(["x"] * 20)
    split = np.repeat([0, 2], 10).astype(np.uint8)
    balance = balance_of(SampleIndex(paths, split), found)
    assert balance is not None
    assert balance.pairs is not None
    for i in range(3):
        assert balance.classes[i]["train"] == (sets[:10, i] == 1).sum()
        for j in range(3):
            assert balance.pairs[i, j] == sum(row[i] == 1 and row[j] == 1 for row in sets[:10])


@pytest.mark.parametrize("count", [1, 2, 11, 150, 1000])
def test_any_number_of_classes_has_a_page_that_a_screen_shows(count: int) -> None:
    names = [f"日本語 {i} $" if i % 3 else "long name " * 9 for i in range(count)]
    rows = [{"name": name, "train": i, "val": 0, "test": 10**6} for i, name in enumerate(names)]
    page = classes_image(Balance(rows, {"train": 5, "val": 0, "test": 9}))
    assert page.height < 1200
    assert page.width < 2200
    together = Balance(rows, {"train": 5}, pairs=np.ones((count, count), np.int64))
    assert classes_image(together).width < 2600


def test_a_check_draws_all_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lv.check(plots="classes", quick=True, output_dir=str(tmp_path))
    assert (tmp_path / "plots/classes.png").stat().st_size > 1000
    assert f"classes: {tmp_path}" in capsys.readouterr().out
