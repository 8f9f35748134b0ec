from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image, write_mask

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(folder: Path, name: str = "t.parquet", **columns: Any) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)
    return folder / name


def contents(folder: Path, count: int) -> list[bytes]:
    return [write_image(folder / f"{i}.png", 4, 4, seed=i).read_bytes() for i in range(count)]


def read(path: Path, wanted: str | None = "label", strict: bool = True, **settings: Any) -> SampleIndex:
    preprocessing = Preprocessing(
        lazy_cache_dir=str(path.parent / "cache"), missing_value_strategy=settings.pop("strategy", "error")
    )
    return TableSource(str(path), **settings).read(wanted, 0, strict, preprocessing)  # type: ignore[arg-type]


def test_paths(tmp_path: Path) -> None:
    contents(tmp_path, 4)
    names, labels = [f"{i}.png" for i in range(4)], ["b", " a ", "a", "b"]
    index = read(write(tmp_path, image=names, label=labels, split=["train", "train", "val", "test"]))
    assert index.target is not None
    assert index.target.class_names == ("a", "b")
    assert index.split.tolist() == [0, 0, 1, 2]
    assert list(index.image) == [str(tmp_path / name) for name in names]
    assert not (tmp_path / "cache" / "images").exists()


def test_bytes_are_spooled_once(tmp_path: Path) -> None:
    images = contents(tmp_path / "of", 4)
    structs = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(images)]
    path = write(tmp_path, left=images, right=structs, label=[0, 1, 0, 1])
    index = read(path, inputs=["left", "right"])
    for column, name in zip(index.images, ("left", "right"), strict=True):
        assert [Path(p).read_bytes() for p in column] == images
        assert {Path(p).parent for p in column} == {tmp_path / "cache" / "images" / name}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert list(read(path, inputs=["left", "right"]).image) == list(index.image)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before, "nothing is written again"
    Path(index.image_path(2)).unlink()
    assert list(read(path, inputs=["left", "right"]).image) == list(index.image), "what was deleted is there again"


def test_another_content_under_the_same_name(tmp_path: Path) -> None:
    images = contents(tmp_path / "of", 4)
    read(write(tmp_path, image=images[:2], label=[0, 1]), val_fraction=0, test_fraction=0)
    index = read(write(tmp_path, image=images[2:], label=[0, 1]), val_fraction=0, test_fraction=0)
    assert [Path(p).read_bytes() for p in index.image] == images[2:]


def test_structs_without_bytes_are_paths(tmp_path: Path) -> None:
    contents(tmp_path, 2)
    structs = [{"bytes": None, "path": "0.png"}, {"bytes": None, "path": str(tmp_path / "1.png")}]
    index = read(write(tmp_path, image=structs, label=["a", "b"]), val_fraction=0, test_fraction=0)
    assert list(index.image) == [str(tmp_path / "0.png"), str(tmp_path / "1.png")]


def test_masks(tmp_path: Path) -> None:
    masks = [write_mask(tmp_path / f"m{i}.png", [[0, 1], [2, i % 3]]).read_bytes() for i in range(4)]
    structs = [{"bytes": b, "path": None} for b in masks]
    index = read(write(tmp_path, image=contents(tmp_path / "of", 4), label=structs), "mask")
    assert index.target is not None
    assert index.target.num_classes == 3
    assert Path(index.mask_path(3)).read_bytes() == masks[3]


def test_missing_values(tmp_path: Path) -> None:
    images = contents(tmp_path / "of", 3)
    path = write(tmp_path, image=[images[0], None, images[1], images[2]], label=["a", "b", None, "b"])
    with pytest.raises(DataError, match=r"column label are empty\n  given: +row 3"):
        read(path)
    index = read(path, strategy="drop_row", val_fraction=0, test_fraction=0)
    assert [Path(p).read_bytes() for p in index.image] == [images[0], images[2]]


def test_names_of_class_ids(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    rows = {"image": [np.full((3, 3), i, np.uint8) for i in range(4)], "label": [1, 0, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "t.parquet"))
    index = read(tmp_path / "t.parquet")
    assert index.target is not None
    assert index.target.class_names == ("zebra", "ant")
    assert index.label is not None
    assert index.label.tolist() == [1, 0, 0, 1]


def test_numbers_as_labels(tmp_path: Path) -> None:
    images = contents(tmp_path / "of", 4)
    for labels, names in (
        ([10, 9, 9, 10], ("9", "10")),
        ([1.0, 2.0, 2.0, 1.0], ("1", "2")),
        ([True, False] * 2, ("False", "True")),
    ):
        index = read(write(tmp_path, image=images, label=labels))
        assert index.target is not None
        assert index.target.class_names == names


def test_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"image,label\n")
    with pytest.raises(DataError, match="no Parquet file"):
        read(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "gone.parquet")
    path = write(tmp_path, image=contents(tmp_path / "of", 1), label=[[1, 2]])
    with pytest.raises(DataError, match="column label, row 1: neither text nor a number"):
        read(path)
    with pytest.raises(DataError, match="no samples"):
        read(write(tmp_path, image=pa.array([], pa.binary()), label=pa.array([], pa.string())))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="need the package pyarrow") as error:
        read(path)
    assert error.value.overrides[0] == "pip install 'lightning_vision[parquet]'"


def test_bytes_that_are_no_image_are_found_like_files_that_are_none(tmp_path: Path) -> None:
    images = [*contents(tmp_path / "of", 3), b"no image"]
    index = read(write(tmp_path, image=images, label=list("abab")), val_fraction=0, test_fraction=0)
    assert Path(index.image_path(3)).read_bytes() == b"no image"


def test_images_to_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_VISION_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, image=contents(tmp_path / "of", 3))
    index = FilesSource(str(path)).read()
    assert index.counts()["test"] == 3
    with Image.open(index.image_path(2)) as image:
        assert image.size == (4, 4)
