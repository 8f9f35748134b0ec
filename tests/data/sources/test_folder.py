from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import class_folders, write_image, write_mask

VALUES = np.array([[0, 1], [1, 2]])


def read(folder: Path, wanted: str | None = "label", strict: bool = True, **settings: object) -> SampleIndex:
    return FolderSource(str(folder), **settings).read(wanted, 0, strict)  # type: ignore[arg-type]


def test_classes(tmp_path: Path) -> None:
    index = read(class_folders(tmp_path, count=10))
    assert index.target is not None
    assert index.target.class_names == ("cat", "dog")
    assert index.counts() == {"train": 16, "val": 2, "test": 2}
    assert not index.is_split
    for i in range(len(index)):
        assert index.label is not None
        assert Path(index.image_path(i)).parent.name == index.target.class_names[index.label[i]]


def test_classes_in_splits(tmp_path: Path) -> None:
    index = read(class_folders(tmp_path, splits=("Train", "valid", "testing")))
    assert index.counts() == {"train": 6, "val": 6, "test": 6}
    for i in range(len(index)):
        assert Path(index.image_path(i)).parts[-3] == ("Train", "valid", "testing")[index.split[i]]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    index = read(class_folders(tmp_path, classes=("bus", "train")))
    assert index.target is not None
    assert index.target.class_names == ("bus", "train")


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    class_folders(tmp_path)
    for name in ("cat/Thumbs.db", "cat/.hidden.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    write_image(tmp_path / "cat" / "deeper" / "x.png")
    index = read(tmp_path)
    assert len(index) == 7
    assert [p.severity for p in index.problems] == ["note", "note"]
    assert any("3 files" in p.message for p in index.problems)
    assert any("drew" in p.message for p in index.problems), "a split that is drawn is said"


def pair(folder: Path, name: str, images: str = "images", masks: str = "masks", end: str = "") -> None:
    write_image(folder / images / f"{name}.jpg", 2, 2)
    write_mask(folder / masks / f"{name}{end}.png", VALUES)


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images/{}", "masks/{}"), ("{}/images", "{}/masks"), ("{}/imgs", "{}/labels"), ("images/{}", "annotations/{}")],
)
def test_masks_in_splits(tmp_path: Path, images: str, masks: str) -> None:
    for part in ("train", "val", "test"):
        pair(tmp_path, "a", images.format(part), masks.format(part))
        pair(tmp_path, "b", images.format(part), masks.format(part), end="_mask")
    index = read(tmp_path, "mask")
    assert index.counts() == {"train": 2, "val": 2, "test": 2}
    assert index.target is not None
    assert index.target.num_classes == 3
    for i in range(6):
        image, mask = Path(index.image_path(i)), Path(index.mask_path(i))
        assert mask.stem.removesuffix("_mask") == image.stem
        assert ("train", "val", "test")[index.split[i]] in image.parts
        assert ("train", "val", "test")[index.split[i]] in mask.parts


def test_masks_without_splits(tmp_path: Path) -> None:
    for i in range(10):
        pair(tmp_path, str(i))
    index = read(tmp_path, "mask")
    assert index.counts() == {"train": 8, "val": 1, "test": 1}
    assert not index.is_split


def test_the_folder_of_masks_is_chosen(tmp_path: Path) -> None:
    for i in range(3):
        pair(tmp_path, str(i), masks="masks_a")
        pair(tmp_path, str(i), masks="masks_b")
    with pytest.raises(ConfigError, match="masks_a, masks_b"):
        read(tmp_path, "mask")
    assert "masks_b" in read(tmp_path, "mask", masks="masks_b").mask_path(0)
    with pytest.raises(ConfigError, match="images, masks_a, masks_b"):
        read(tmp_path, "mask", masks="mask_b")


def test_images_without_masks_are_named(tmp_path: Path) -> None:
    for i in range(3):
        pair(tmp_path, str(i))
    write_image(tmp_path / "images" / "lonely.jpg")
    write_mask(tmp_path / "masks" / "unused.png", VALUES)
    with pytest.raises(DataError, match=r"1 images have no mask in masks\n.*lonely\.jpg"):
        read(tmp_path, "mask")
    index = read(tmp_path, "mask", strict=False)
    assert len(index) == 3
    assert [p.severity for p in index.problems] == ["error", "warning", "note"]
    assert "unused" in index.problems[1].message


def test_an_exact_name_goes_before_a_suffix(tmp_path: Path) -> None:
    for name in ("a", "a_mask", "b"):
        pair(tmp_path, name)
    index = read(tmp_path, "mask", val_fraction=0, test_fraction=0)
    pairs = {Path(index.image_path(i)).stem: Path(index.mask_path(i)).stem for i in range(3)}
    assert pairs == {"a": "a", "a_mask": "a_mask", "b": "b"}
    write_image(tmp_path / "masks" / "b.bmp")
    with pytest.raises(DataError, match="two masks of one image"):
        read(tmp_path, "mask")


def test_the_wrong_kind(tmp_path: Path) -> None:
    class_folders(tmp_path / "classes")
    pair(tmp_path / "pairs", "a")
    with pytest.raises(ConfigError, match="decoder=classifier"):
        read(tmp_path / "classes", "mask")
    with pytest.raises(ConfigError, match="decoder=unet"):
        read(tmp_path / "pairs", "label")
    assert len(read(tmp_path / "pairs", None)) == 1
    assert len(read(tmp_path / "classes", None)) == 6


def test_folders_that_are_neither(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an empty folder"):
        read(tmp_path)
    write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg"):
        read(tmp_path)
    write_image(tmp_path / "images" / "a.jpg")
    with pytest.raises(DataError, match="images beside masks"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        read(tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "no")


def test_a_folder_has_no_empty_cells(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png")
    source = FolderSource(str(tmp_path))
    with pytest.raises(ConfigError, match="needs preprocessing"):
        source.read("label", 0, preprocessing=Preprocessing(missing_value_strategy="fill_with_const"))
    index = source.read("label", 0, preprocessing=Preprocessing(missing_value_strategy="bfill"))
    assert any("is for tables" in problem.message for problem in index.problems if problem.severity == "note")


@pytest.mark.real_data
def test_real_folders(data_root: Path) -> None:
    root = data_root if (data_root / "camvid").is_dir() else data_root / "data"
    weather = read(root / "weather")
    assert weather.counts() == {"train": 320, "val": 80, "test": 120}
    nuclei = read(root / "nuclei", "mask", masks="masks_255")
    assert nuclei.counts() == {"train": 120, "val": 30, "test": 26}
    assert nuclei.target is not None
    assert nuclei.target.mask_values == "binary"
