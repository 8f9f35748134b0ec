from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.geometry import infer_geometry
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.report import check_index
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import mask_table, write_image, write_table


def labelled(folder: Path, count: int = 8) -> Path:
    names = [write_image(folder / f"{i}.png", 6, 7, seed=i).name for i in range(count)]
    splits = ["train"] * (count - 2) + ["val"] * 2
    rows = [{"image": n, "label": "ab"[i % 2], "split": s} for i, (n, s) in enumerate(zip(names, splits, strict=True))]
    return write_table(folder / "t.csv", rows)


def loaded(path: Path, **settings: Any) -> tuple[list[int], list[str]]:
    """Rows of an epoch of training batches, and the names of what was bad."""
    preprocessing = Preprocessing(**settings)
    index = TableSource(str(path)).read("label", 0, preprocessing=preprocessing)
    data = VisionDataModule(index, infer_geometry(index, preprocessing), preprocessing, 3, 0)
    data.setup("fit")
    rows = [int(i) for batch in data.train_dataloader() for i in batch["index"]]
    data.teardown()
    return sorted(rows), sorted(Path(name).name for name, _ in data.bad)


@pytest.mark.parametrize("mode", ["lazy", "lazy_cached", "eager"])
def test_training_goes_on_without_missing_images(tmp_path: Path, mode: str) -> None:
    path = labelled(tmp_path)
    for i in (0, 3):
        (tmp_path / f"{i}.png").unlink()
    settings = {"mode": mode, "lazy_cache_dir": str(tmp_path / "cache")}
    with pytest.raises(DataError, match="2 of 8 image files do not exist") as error:
        loaded(path, **settings)
    assert any("on_bad_image=skip" in override for override in error.value.overrides)
    assert loaded(path, on_bad_image="skip", **settings) == ([1, 2, 4, 5], ["0.png", "3.png"])
    assert loaded(path, on_bad_image="blank", **settings) == ([0, 1, 2, 3, 4, 5], ["0.png", "3.png"])


@pytest.mark.parametrize(("on_bad_image", "severity"), [("error", "error"), ("skip", "warning"), ("blank", "warning")])
def test_check_counts_them_once(tmp_path: Path, on_bad_image: Any, severity: str) -> None:
    path = labelled(tmp_path)
    (tmp_path / "0.png").unlink()
    preprocessing = Preprocessing(on_bad_image=on_bad_image)
    report = check_index(TableSource(str(path)).read("label", 0, False, preprocessing), preprocessing)
    found = [p for p in report.problems if "0.png" in p.message]
    assert [p.severity for p in found] == [severity]
    assert "1 of 8 image files do not exist" in found[0].message
    assert report.ok == (severity == "warning")
    assert report.geometry is not None
    assert (report.geometry.height, report.geometry.width) == (6, 7), "that of the first readable image"


@pytest.mark.parametrize("on_bad_image", ["skip", "blank"])
def test_more_than_half_is_a_wrong_folder(tmp_path: Path, on_bad_image: Any) -> None:
    path, preprocessing = labelled(tmp_path), Preprocessing(on_bad_image=on_bad_image)
    read: Callable[[], Any] = lambda: TableSource(str(path)).read("label", 0, preprocessing=preprocessing)  # noqa: E731
    for i in range(4):
        (tmp_path / f"{i}.png").unlink()
    assert len(read()) == 8
    (tmp_path / "4.png").unlink()
    with pytest.raises(DataError, match="5 of 8 image files do not exist") as error:
        read()
    assert ["data.root=FOLDER" in override for override in error.value.overrides] == [True]


@pytest.mark.parametrize("on_bad_image", ["skip", "blank"])
def test_missing_masks_too(tmp_path: Path, on_bad_image: Any) -> None:
    path = mask_table(tmp_path)
    preprocessing = Preprocessing(on_bad_image=on_bad_image)
    source = TableSource(str(path), ignore_index=255)
    index = source.read("mask", 0)
    row = int(index.rows("train")[0])
    Path(index.mask_path(row)).unlink()
    index = source.read("mask", 0, preprocessing=preprocessing)
    warnings = [p.message for p in index.problems if p.severity == "warning"]
    assert [m for m in warnings if Path(index.mask_path(row)).name in m] == warnings[:1]
    assert "mask files do not exist" in warnings[0]
    assert check_index(source.read("mask", 0, False, preprocessing), preprocessing).ok
    data = VisionDataModule(index, infer_geometry(index, preprocessing), preprocessing, 4, 0)
    data.setup("fit")
    rows = np.concatenate([batch["index"] for batch in data.train_dataloader()])
    assert (row in rows) == (on_bad_image == "blank")
    data.teardown()


def test_lists_of_files(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / "a.png"), tmp_path / "gone.png"]
    index = FilesSource(paths).read(preprocessing=Preprocessing(on_bad_image="skip"))
    assert [(p.severity, "gone.png" in p.message) for p in index.problems] == [("warning", True)]
