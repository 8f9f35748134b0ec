"""Mistakes that are easily made and easily missed: each is named, and what is proposed leads on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image, write_mask, write_table


def test_two_images_do_not_share_a_mask(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "b.bmp"):
        write_image(tmp_path / "images" / name)
    for name in ("a.png", "b.png"):
        write_mask(tmp_path / "masks" / name, np.eye(20, 30, dtype=np.uint8))
    with pytest.raises(DataError, match=r"(?s)two images with the name of one mask.*b\.bmp.*b\.png"):
        FolderSource(str(tmp_path)).read("mask", 0)


def test_labels_that_differ_in_capitals_are_warned_of(tmp_path: Path) -> None:
    labels = ["Rain", "rain", "sun", " sun", "Rain", "rain"]
    rows = []
    for i, label in enumerate(labels):
        write_image(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": label, "split": "train" if i < 4 else "val"})
    index = TableSource(str(write_table(tmp_path / "t.csv", rows))).read("label", 0)
    (warning,) = [p.message for p in index.problems if "capitals" in p.message]
    assert "Rain (row 2) and rain (row 3)" in warning
    assert "sun" not in warning  # spaces around a cell are no part of it


def test_a_column_of_groups_is_never_guessed(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png")
    table = write_table(tmp_path / "t.csv", [{"image": "0.png", "label": "a", "scan": "1"}])
    with pytest.raises(ConfigError) as caught:
        TableSource(str(table), group="patient").read("label", 0)
    assert caught.value.overrides == ["data.group=null"]


def test_a_dataset_on_disk_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    for source in (TableSource(str(tmp_path)), FolderSource(str(tmp_path))):
        with pytest.raises((ConfigError, DataError)) as caught:
            source.read("label", 0)
        assert caught.value.overrides == [f"data=huggingface data.path={tmp_path}"]
