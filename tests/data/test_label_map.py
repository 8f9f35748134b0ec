"""Codes become names, and several labels one class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.label_map import read_label_map
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError

CODES = ["n01", "n02", "n03", "n01", "n02", "n03"]
MAP = {"n01": "tench", "n02": "goldfish", "n03": "goldfish"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ["image,label,split"]
    for i, code in enumerate(CODES):
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{code},train")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "t.csv"


def files(folder: Path) -> list[str]:
    (folder / "map.json").write_text(json.dumps(MAP))
    (folder / "map.yaml").write_text("".join(f"{k}: {v}\n" for k, v in MAP.items()))
    (folder / "map.csv").write_text("".join(f"{k},{v}\n" for k, v in MAP.items()))
    (folder / "map.tsv").write_text("\ufeff" + "".join(f"{k}\t {v} \n\n" for k, v in MAP.items()))
    return ["map.json", "map.yaml", "map.csv", "map.tsv"]


def test_every_form_of_a_map_says_the_same(table: Path) -> None:
    for form in (MAP, *files(table.parent)):
        assert read_label_map(form, str(table.parent)) == MAP


def test_a_table_is_read_with_the_names(table: Path) -> None:
    index = TableSource(str(table), label_map=MAP, val_fraction=0.0).read("label", 0)
    assert index.target is not None
    assert index.target.class_names == ("tench", "goldfish")
    assert index.label is not None
    assert index.label.tolist() == [0, 1, 1, 0, 1, 1]
    in_order = TableSource(str(table), label_map=MAP, class_names=["goldfish", "tench"], val_fraction=0.0)
    assert (np.asarray(in_order.read("label", 0).label) == [1, 0, 0, 1, 0, 0]).all()


def test_names_of_the_map_are_labels_too(table: Path) -> None:
    table.write_text(table.read_text().replace("0.png,n01", "0.png,tench"))
    index = TableSource(str(table), label_map=MAP, val_fraction=0.0).read("label", 0)
    assert index.label is not None
    assert index.label[0] == 0


def test_folders_are_renamed(tmp_path: Path) -> None:
    for i, code in enumerate(CODES):
        (tmp_path / code).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(tmp_path / code / f"{i}.png")
    index = FolderSource(str(tmp_path), label_map=MAP).read("label", 0)
    assert index.target is not None
    assert index.target.class_names == ("tench", "goldfish")


def test_what_the_map_does_not_know_is_an_error(table: Path) -> None:
    given = {"n01": "tench", "n02": "goldfish"}
    with pytest.raises(DataError, match=r"(?s)does not know.*'n03' \(row 4\)"):
        TableSource(str(table), label_map=given, val_fraction=0.0).read("label", 0)
    unknown = TableSource(str(table), label_map=given, unknown=["n03"], val_fraction=0.0).read("label", 0)
    assert unknown.label is not None
    assert unknown.label.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nowhere.csv", "is no file"),
        ({}, "no map"),
        ({"a": {"b": "c"}}, "no map"),
        ("bad.csv", "no label and name"),
        ("twice.csv", "a label twice"),
        ("bad.json", "cannot be read"),
    ],
)
def test_mistakes(tmp_path: Path, given: Any, says: str) -> None:
    (tmp_path / "bad.csv").write_text("n01 tench\n")
    (tmp_path / "twice.csv").write_text("n01,tench\nn01,fish\n")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=says):
        read_label_map(given, str(tmp_path))
