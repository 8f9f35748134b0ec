from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.huggingface import HuggingFaceSource
from lightning_vision.data.sources.in_python import settings_of
from lightning_vision.data.sources.shapes import SHAPES, ShapesSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import class_folders, write_image, write_mask, write_table

WEATHER = ["sun", "rain", "sun", "rain", "sun", "rain"]
TAGS = ["a|b", "", "b", "a", "a|b", "b"]


def table(folder: Path, **more: Any) -> str:
    columns: dict[str, Any] = {
        "image": [write_image(folder / f"{i}.png", 4, 4, seed=i).name for i in range(6)],
        "mask": [write_mask(folder / f"m{i}.png", [[0, 1], [1, 0]]).name for i in range(6)],
        "weather": WEATHER,
        "tags": TAGS,
        "wet": list("010101"),
        "split": ["train"] * 4 + ["val"] * 2,
    } | more
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return str(write_table(folder / "t.csv", rows))


def read(path: str, wanted: str | None, further: dict[str, Any], strict: bool = True, **settings: Any) -> SampleIndex:
    strategy = Preprocessing(missing_value_strategy=settings.pop("strategy", "error"))
    return TableSource(path, **settings).read(wanted, 0, strict, strategy, further=further)  # type: ignore[arg-type]


def test_a_mask_with_labels_and_sets(tmp_path: Path) -> None:
    further = {
        "weather": ("weather", "label", ["sun", "rain"]),
        "tags": ("tags", "labels", None),
        "flags": (["wet"], "labels", None),
    }
    index = read(table(tmp_path), "mask", further)
    assert index.target is not None
    assert index.target.kind == "mask"
    assert list(index.further_targets) == ["weather", "tags", "flags"]
    weather, tags, flags = index.further_targets.values()
    assert (weather.target.kind, weather.target.class_names) == ("label", ("sun", "rain"))
    assert weather.label is not None
    assert weather.label.tolist() == [0, 1] * 3
    assert weather.label.dtype == np.int32
    assert (tags.target.kind, tags.target.class_names) == ("labels", ("a", "b"))
    assert tags.values(np.arange(6)).tolist() == [[1, 1], [0, 0], [0, 1], [1, 0], [1, 1], [0, 1]]
    assert flags.target.class_names == ("wet",)
    assert flags.values(np.arange(6)).tolist() == [[i % 2] for i in range(6)]
    assert index.take([5, 0]).further_targets["weather"].values(np.arange(2)).tolist() == [1, 0]
    assert index.as_split("test").further_targets["tags"].labels == tags.labels
    alone = read(table(tmp_path), "mask", {})
    assert index.nbytes == alone.nbytes + 6 * 4 + 6 + 6


def test_two_labels(tmp_path: Path) -> None:
    path = table(tmp_path, label=["x", "y"] * 3, mood=["p", "p", "q", "q", "p", "q"])
    index = read(path, "label", {"mood": ("mood", "label", None)})
    assert index.label is not None
    assert index.label.tolist() == [0, 1] * 3
    assert index.further_targets["mood"].values(np.arange(6)).tolist() == [0, 0, 1, 1, 0, 1]
    only = read(path, None, {"mood": ("mood", "label", None)})
    assert only.target is None
    assert only.further_targets["mood"].target.class_names == ("p", "q")


def test_columns_are_found(tmp_path: Path) -> None:
    path = table(tmp_path, label=["x", "y"] * 3, category=["p", "q"] * 3)
    found = read(path, "label", {"one": (None, "label", None), "two": (None, "labels", None)}).further_targets
    assert found["one"].target.class_names == ("p", "q")
    assert found["two"].target.class_names == ("a", "b")
    with pytest.raises(ConfigError, match="output two names no column") as error:
        read(path, "label", {"one": (None, "label", None), "two": (None, "label", None)})
    assert "of which image, label, category are taken" in str(error.value.given)


def test_wrong_columns(tmp_path: Path) -> None:
    path = table(tmp_path)
    with pytest.raises(ConfigError, match="output w has no such column") as error:
        read(path, "mask", {"w": ("wether", "label", None)})
    assert error.value.nearest == "weather"
    for column, kind in (
        (["wet", "wat"], "labels"),
        (["wet", "wet"], "labels"),
        ([], "labels"),
        (["wet", "tags"], "label"),
    ):
        with pytest.raises(ConfigError, match="output w has no such columns"):
            read(path, "mask", {"w": (column, kind, None)})
    with pytest.raises(ConfigError, match="a mask is the main target"):
        read(path, None, {"w": ("mask", "mask", None)})
    with pytest.raises(ConfigError, match="its column holds masks"):
        read(path, None, {"w": ("mask", "label", None)})


def test_the_checks_of_the_main_label(tmp_path: Path) -> None:
    path = table(tmp_path, weather=["sun", "rain", "sun", "sun", "fog", "rain"])
    with pytest.raises(DataError, match=r"output w: classes that occur in val but not in train: fog \(1\)") as error:
        read(path, "mask", {"w": ("weather", "label", None)})
    assert error.value.overrides == []
    index = TableSource(path).read("mask", 0, coverage=False, further={"w": ("weather", "label", None)})
    assert index.problems == ()
    index = read(path, "mask", {"w": ("weather", "label", ["fog", "sun", "rain"])})
    assert [p.message for p in index.problems] == ["output w: classes that occur in val but not in train: fog (1)"]
    with pytest.raises(DataError, match="output w: 1 labels of 1 values are not among the 2 class names"):
        read(path, "mask", {"w": ("weather", "label", ["rain", "sun"])})
    with pytest.raises(ConfigError, match=r"outputs\.w\.class_names holds a class name twice"):
        read(path, "mask", {"w": ("weather", "label", ["rain", "rain"])})
    index = read(path, "mask", {"w": ("weather", "label", ["rain", "sun"])}, strict=False)
    assert len(index) == 5, "a row without a class is left out"
    assert len(index.further_targets["w"]) == 5
    assert index.problems[0].severity == "error"


def test_empty_cells(tmp_path: Path) -> None:
    path = table(tmp_path, weather=["sun", "", "sun", "rain", "sun", "rain"], wet=["1", "", "0", "1", "0", "1"])
    further = {"w": ("weather", "label", None), "t": ("tags", "labels", None), "f": (["wet"], "labels", None)}
    with pytest.raises(DataError, match="1 cells of column weather are empty"):
        read(path, "mask", further)
    index = read(path, "mask", further, strategy="drop_row")
    assert len(index) == 5
    del further["w"]
    index = read(path, "mask", further)
    assert index.further_targets["f"].values(np.arange(6))[1].tolist() == [255]
    assert index.further_targets["t"].values(np.arange(6))[1].tolist() == [0, 0]


def test_rows_that_are_filled(tmp_path: Path) -> None:
    path = table(tmp_path, image=["0.png", "", "2.png", "3.png", "4.png", "5.png"])
    for i in range(6):
        write_image(tmp_path / f"{i}.png", 4, 4, seed=i)
    for strategy, expected in (("bfill", [0, 0, 0, 1, 0, 1]), ("ffill", [0, 0, 0, 1, 0, 1])):
        index = read(path, "mask", {"w": ("weather", "label", ["sun", "rain"])}, strategy=strategy)
        assert index.further_targets["w"].values(np.arange(6)).tolist() == expected


def test_a_drawn_split_goes_by_the_first_labels(tmp_path: Path) -> None:
    path = table(tmp_path)
    lines = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join(line.rpartition(",")[0] for line in lines))
    source = TableSource(path, val_fraction=0.34, test_fraction=0)
    for seed in range(5):
        index = source.read("mask", seed, further={"w": ("weather", "label", None)})
        assert sorted(index.further_targets["w"].values(index.rows("val")).tolist()) == [0, 1]


def test_sources_without_columns_refuse(tmp_path: Path) -> None:
    class_folders(tmp_path / "tree")
    further: Any = {"w": ("weather", "label", None)}
    for source in (FolderSource(str(tmp_path / "tree")), FilesSource(str(tmp_path / "tree"))):
        with pytest.raises(ConfigError, match="several outputs need several") as error:
            source.read(None, 0, further=further)
        assert error.value.overrides[0].startswith("data=table")
    index = FilesSource(table(tmp_path)).read("mask", further=further)
    assert index.further_targets["w"].target.class_names == ("rain", "sun")


def test_the_drawn_shapes_have_both(tmp_path: Path) -> None:
    index = ShapesSource(60, 32, path=str(tmp_path)).read("mask", 0, further={"shape": ("label", "label", None)})
    assert index.target is not None
    assert index.target.kind == "mask"
    assert index.further_targets["shape"].target.class_names == SHAPES


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    names = datasets.ClassLabel(names=["z", "a"])
    features = datasets.Features({"image": datasets.Image(), "label": names, "mood": names, "tags": [names]})
    rows = {
        "image": [np.full((3, 3), i, np.uint8) for i in range(4)],
        "label": [0, 1, 0, 1],
        "mood": [1, 1, 0, 0],
        "tags": [[0, 1], [], [1], [0]],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "d")
    further: Any = {"mood": ("mood", "label", None), "tags": ("tags", "labels", None)}
    cache = Preprocessing(lazy_cache_dir=str(tmp_path / "cache"))
    found = {k.removeprefix("data."): v for k, v in settings_of(data, str(tmp_path / "cache")).items()}
    for source in (HuggingFaceSource(str(tmp_path / "d"), test_fraction=0), TableSource(**found, test_fraction=0)):
        source.settings.val_fraction = 0.0
        index = source.read("label", 0, preprocessing=cache, further=further)
        assert index.further_targets["mood"].target.class_names == ("z", "a")
        assert index.further_targets["mood"].values(np.arange(4)).tolist() == [1, 1, 0, 0]
        assert index.further_targets["tags"].values(np.arange(4)).tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]
