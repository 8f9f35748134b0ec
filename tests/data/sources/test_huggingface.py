from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources import memory
from lightning_vision.data.sources.huggingface import HuggingFaceSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import class_folders, write_image, write_mask

datasets = pytest.importorskip("datasets")
LABEL = datasets.ClassLabel(names=["zebra", "ant"])


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def read(path: Path | str, wanted: str | None = "label", strict: bool = True, **settings: Any) -> SampleIndex:
    cache = Path(path).parent / "cache" if isinstance(path, Path) else None
    preprocessing = Preprocessing(
        lazy_cache_dir=cache and str(cache), missing_value_strategy=settings.pop("strategy", "error")
    )
    return HuggingFaceSource(str(path), **settings).read(wanted, 0, strict, preprocessing)  # type: ignore[arg-type]


def part(count: int, first: int = 0, **more: Any) -> Any:
    columns = {
        "photo": [np.full((4, 4, 3), first + i, np.uint8) for i in range(count)],
        "sort": [i % 2 for i in range(count)],
    }
    features = {"photo": datasets.Image(), "sort": LABEL} | {name: feature for name, (feature, _) in more.items()}
    columns |= {name: values for name, (_, values) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def values(index: SampleIndex) -> list[int]:
    from PIL import Image

    found = []
    for path in index.image:
        with Image.open(path) as image:
            found.append(int(np.asarray(image).max()))
    return found


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    datasets.DatasetDict(train=part(4), validation=part(2, 10), test=part(2, 20)).save_to_disk(tmp_path / "d")
    index = read(tmp_path / "d")
    assert index.target is not None
    assert index.target.class_names == ("zebra", "ant")
    assert index.counts() == {"train": 4, "val": 2, "test": 2}
    assert values(index) == [0, 1, 2, 3, 10, 11, 20, 21]
    assert index.label is not None
    assert index.label.tolist() == [0, 1] * 4
    assert [p.name for p in (tmp_path / "cache" / "images").iterdir()] == ["photo"]


def test_a_second_run_writes_and_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(6).save_to_disk(tmp_path / "d")
    first = read(tmp_path / "d")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}

    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("an image is spooled again")

    monkeypatch.setattr("lightning_vision.data.sources.arrow.spool_one", refuse)
    again = read(tmp_path / "d")
    assert list(again.image) == list(first.image)
    assert again.split.tolist() == first.split.tolist()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_other_content_in_the_same_folder(tmp_path: Path) -> None:
    part(4).save_to_disk(tmp_path / "d")
    read(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    part(4, 50).save_to_disk(tmp_path / "d")
    assert values(read(tmp_path / "d")) == [50, 51, 52, 53]


def test_interrupted_spooling_leaves_whole_files_and_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part(4).save_to_disk(tmp_path / "d")
    spool, seen = memory.spool_one, []

    def interrupt(*given: Any, **named: Any) -> str:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return spool(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr("lightning_vision.data.sources.arrow.spool_one", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path / "d")
    names = [p.suffix for p in (tmp_path / "cache" / "images" / "photo").iterdir()]
    assert names == [".png", ".png"]
    assert values(read(tmp_path / "d")) == [0, 1, 2, 3]


def test_parquet_arrow_and_folders_of_images(tmp_path: Path) -> None:
    part(4).to_parquet(str(tmp_path / "p" / "train.parquet")) if (tmp_path / "p").mkdir() is None else None
    assert values(read(tmp_path / "p" / "train.parquet")) == [0, 1, 2, 3]
    part(4).save_to_disk(tmp_path / "d")
    arrow = next((tmp_path / "d").glob("*.arrow"))
    assert values(read(arrow)) == [0, 1, 2, 3]
    class_folders(tmp_path / "folders", splits=("train", "test"))
    index = read(tmp_path / "folders")
    assert index.target is not None
    assert index.target.class_names == ("cat", "dog")
    assert index.counts()["test"] == 6
    assert all(Path(p).is_relative_to(tmp_path / "folders") for p in index.image), "files stand for themselves"


def test_splits_by_name(tmp_path: Path) -> None:
    datasets.DatasetDict(all=part(4), held=part(2, 10), unsupervised=part(2, 20)).save_to_disk(tmp_path / "d")
    with pytest.raises(ConfigError, match="no split of the dataset has a usual name") as error:
        read(tmp_path / "d")
    assert error.value.overrides == ["data.train_split=all"]
    index = read(tmp_path / "d", train_split="all", test_split="held", val_fraction=0)
    assert index.counts() == {"train": 4, "val": 0, "test": 2}
    assert any("unsupervised" in p.message for p in index.problems)
    with pytest.raises(ConfigError, match=r"data\.test_split is no split") as error:
        read(tmp_path / "d", test_split="hold")
    assert error.value.nearest == "held"


def test_labels_that_are_not_there(tmp_path: Path) -> None:
    unlabelled = part(2, 10).map(lambda row: {"sort": -1}, load_from_cache_file=False)
    datasets.DatasetDict(train=part(4), test=unlabelled).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match="2 cells of column sort are empty") as error:
        read(tmp_path / "d")
    assert error.value.given == "row test 0, 1"
    assert len(read(tmp_path / "d", strategy="drop_row")) == 4


def test_masks_and_several_images(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "m.png", [[0, 1], [2, 0]])
    dataset = part(
        5,
        mask=(datasets.Image(), [str(mask)] * 5),
        other=(datasets.Image(), [str(write_image(tmp_path / f"{i}.png", seed=i)) for i in range(5)]),
    )
    dataset.save_to_disk(tmp_path / "d")
    index = read(tmp_path / "d", "mask", inputs=["photo", "other"])
    assert index.target is not None
    assert index.target.num_classes == 3
    assert len(index.further) == 1
    assert Path(index.mask_path(0)).read_bytes() == mask.read_bytes()
    with pytest.raises(ConfigError, match="no column with a usual name for images") as error:
        read(tmp_path / "d", "mask")
    assert error.value.overrides == ["data.image=photo"]


def test_groups(tmp_path: Path) -> None:
    part(12, patient=(datasets.Value("string"), [str(i // 3) for i in range(12)])).save_to_disk(tmp_path / "d")
    index = read(tmp_path / "d", group="patient", val_fraction=0.25, test_fraction=0.25)
    assert index.counts() == {"train": 6, "val": 3, "test": 3}
    assert all(len(set(index.split[i : i + 3].tolist())) == 1 for i in range(0, 12, 3))


def test_what_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "empty")
    with pytest.raises(ConfigError, match="cannot be fetched from the hub") as error:
        read("nobody/nothing")
    assert "save_to_disk" in error.value.overrides[0]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="need the package datasets") as error:
        read(tmp_path / "empty")
    assert error.value.overrides == ["pip install 'lightning_vision[datasets]'"]
