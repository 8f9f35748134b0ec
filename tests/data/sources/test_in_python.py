from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_vision.actions.check import check
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.sources.in_python import settings_of, table_of
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image

pandas = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")

RGB = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)


def read(data: Any, folder: Path, wanted: str | None = "label", **settings: Any) -> SampleIndex:
    found = {key.removeprefix("data."): value for key, value in settings_of(data, str(folder)).items()}
    return TableSource(**(found | settings)).read(wanted, 0)  # type: ignore[arg-type]


def pixels(path: str) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image)


def test_tables_of_labels(tmp_path: Path) -> None:
    images = [np.full((4, 4), i, np.uint8) for i in range(6)]
    path = table_of(images, ["a,1", "ü"] * 3, ["train"] * 4 + ["test"] * 2, str(tmp_path))
    assert table_of(images, ["a,1", "ü"] * 3, ["train"] * 4 + ["test"] * 2, str(tmp_path)) == path
    index = TableSource(path, val_fraction=0).read("label", 0)
    assert index.target is not None
    assert index.target.class_names == ("a,1", "ü")
    assert index.counts() == {"train": 4, "val": 0, "test": 2}
    with Image.open(index.image_path(3)) as image:
        assert np.asarray(image).max() == 3
    assert table_of(images, [1, np.int64(0)] * 3, base=str(tmp_path)) != path


def test_tables_of_masks(tmp_path: Path) -> None:
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(6)]
    masks = [np.array([[0, 1], [2, i % 3]]) for i in range(6)]
    index = TableSource(table_of(images, masks, base=str(tmp_path))).read("mask", 0)
    assert index.target is not None
    assert index.target.num_classes == 3
    with Image.open(index.mask_path(4)) as image:
        assert np.asarray(image).tolist() == masks[4].tolist()


def test_columns_must_go_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 and 2"):
        table_of([RGB, RGB], ["a"], base=str(tmp_path))
    with pytest.raises(ConfigError, match="mix"):
        table_of([RGB, RGB], ["a", RGB], base=str(tmp_path))


def test_frames_of_all_kinds_of_images(tmp_path: Path) -> None:
    import torch

    path = write_image(tmp_path / "a.png", 5, 6)
    array = pixels(str(path))
    forms = [
        path,
        str(path),
        path.read_bytes(),
        Image.fromarray(array),
        array,
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        torch.from_numpy(array.copy()).permute(2, 0, 1) / 255,
        {"bytes": path.read_bytes(), "path": "gone.png"},
    ]
    frame = pandas.DataFrame({"photo": pandas.Series(forms, dtype=object), "sort": [1, 2] * 4})
    index = read(frame, tmp_path / "cache", image="photo", target="sort", val_fraction=0, test_fraction=0)
    assert len(index) == len(forms)
    for i in range(len(index)):
        np.testing.assert_array_equal(pixels(index.image_path(i)), array)
    assert set((tmp_path / "cache" / "images").iterdir()) == {tmp_path / "cache" / "images" / "photo"}


def test_frames_of_paths_start_where_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        write_image(tmp_path / "photos" / f"{i}.png", seed=i)
    monkeypatch.chdir(tmp_path)
    frame = pandas.DataFrame({"image": [f"photos/{i}.png" for i in range(4)], "label": list("abab")})
    index = read(frame, tmp_path / "cache")
    assert sorted(index.image) == [str(tmp_path / "photos" / f"{i}.png") for i in range(4)]
    moved = read(frame.assign(image=[f"{i}.png" for i in range(4)]), tmp_path / "cache", root=str(tmp_path / "photos"))
    assert list(moved.image) == list(index.image)


def test_missing_values_of_frames_are_empty_cells(tmp_path: Path) -> None:
    images = [np.full((4, 4), i, np.uint8) for i in range(4)]
    frame = pandas.DataFrame({"image": pandas.Series([*images, None], dtype=object), "label": [1, 2, None, 1, 2]})
    assert frame["label"].dtype == np.float64, "pandas makes floats of integers where one is missing"
    with pytest.raises(DataError, match=r"column label are empty\n  given: +row 4"):
        read(frame, tmp_path)
    whole = read(frame.dropna(), tmp_path, val_fraction=0, test_fraction=0)
    assert whole.target is not None
    assert whole.target.class_names == ("1", "2")


def test_columns_that_no_table_can_hold_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [np.full((4, 4), i, np.uint8) for i in range(4)]
    frame = pandas.DataFrame(
        {
            "image": images,
            "label": list("abab"),
            "boxes": [[1, 2]] * 4,
            "about": [{"camera": 1}] * 4,
            "thumbs": [b"none"] * 4,
        }
    )
    index = read(frame, tmp_path, val_fraction=0, test_fraction=0)
    assert len(index) == 4
    said = capsys.readouterr().out
    assert "read without column boxes, row 1: neither text nor a number (list)" in said
    assert "column about" in said
    assert "column thumbs" in said
    with pytest.raises(ConfigError, match=r"data\.target is no column"):
        read(frame, tmp_path, target="boxes")


@pytest.mark.parametrize("name", ["a;b;c;d", "a,b|c", "a\tb\tc"])
def test_names_of_columns_may_hold_delimiters(tmp_path: Path, name: str) -> None:
    images = [np.full((4, 4), i, np.uint8) for i in range(4)]
    frame = pandas.DataFrame({"image": images, "label": ["x;1", "y\t2"] * 2, name: [1] * 4})
    index = read(frame, tmp_path, val_fraction=0, test_fraction=0)
    assert index.target is not None
    assert index.target.class_names == ("x;1", "y\t2")
    assert read(frame, tmp_path, "label", target=name, num_classes=2, val_fraction=0, test_fraction=0).label is not None


def test_a_drawn_split_does_not_depend_on_the_cache_folder(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"image": [np.full((4, 4), i, np.uint8) for i in range(40)], "label": list("abab") * 10})
    splits = [read(frame, tmp_path / name, val_fraction=0.3).split.tolist() for name in ("one", "other/place")]
    assert splits[0] == splits[1]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column image, row 2: bytes that are no image"):
        settings_of(pandas.DataFrame({"image": [RGB, b"no image"], "label": [1, 2]}), str(tmp_path))
    with pytest.raises(DataError, match="column labels, row 1: neither text nor a number"):
        settings_of(pandas.DataFrame({"image": [RGB], "labels": [[1, 2]]}), str(tmp_path))
    for wrong in (object(), (1, 2, 3), 7):
        with pytest.raises(ConfigError, match="data is"):
            settings_of(wrong)


def test_datasets_keep_their_classes_and_splits(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})

    def part(count: int) -> Any:
        images = [np.full((4, 4, 3), i, np.uint8) for i in range(count)]
        return datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(count)]}, features=features)

    index = read(datasets.DatasetDict(train=part(6), validation=part(2), extra=part(2)), tmp_path)
    assert index.target is not None
    assert index.target.class_names == ("zebra", "ant")
    assert index.label is not None
    assert index.label.tolist() == [0, 1] * 4
    assert index.counts() == {"train": 6, "val": 2, "test": 0}
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    alone = read(part(6), tmp_path)
    assert not alone.is_split
    assert read(part(6), tmp_path).split.tolist() == alone.split.tolist()
    images = [p for p in tmp_path.rglob("*.png")]
    assert len(images) == 6, "the same image is one file"
    assert before[0] > 0
    with pytest.raises(ConfigError, match="rows to go back to"):
        settings_of(part(6).to_iterable_dataset())


def test_the_actions_take_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [np.full((8, 8, 3), 40 * i % 256, np.uint8) for i in range(12)]
    frame = pandas.DataFrame({"image": images, "label": ["dark", "bright"] * 6, "split": ["train"] * 10 + ["val"] * 2})
    values = {"preprocessing.lazy_cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "run")}
    assert check(data=frame, decoder="classifier", overrides=values)
    assert "train 10, val 2" in capsys.readouterr().out
    assert not check(
        data=frame.assign(split="train "), decoder="classifier", overrides=values | {"data.target": "split"}
    )
