from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.decode import decode_sized
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.loader import Loader
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.placement import Resize
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_mask
from lightning_vision.types import Batch, Geometry, TargetSpec

SPLIT = np.array([0, 1, 0, 2, 0, 0, 1, 0, 2, 0], np.uint8)


@pytest.fixture
def index(tmp_path: Path) -> SampleIndex:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(len(SPLIT)):
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(tmp_path / f"i{i}.png", exif=exif)
        write_mask(tmp_path / f"m{i}.png", rng.integers(0, 2, (16, 12), dtype=np.uint8))
    image, mask = (PackedStrings.from_strings(str(tmp_path / f"{k}{i}.png") for i in range(len(SPLIT))) for k in "im")
    return SampleIndex(image, SPLIT, mask=mask, target=TargetSpec("mask", ("a", "b"), 255), origin="table.csv")


def data_of(index: SampleIndex, cache: Path, batch_size: int = 4, **settings: Any) -> VisionDataModule:
    preprocessing = Preprocessing(lazy_cache_dir=str(cache), decode_threads=2, **settings)
    return VisionDataModule(index, Geometry(8, 6, 3), preprocessing, batch_size, seed=0, eval_batch_size=3)


def rows_of(loader: Loader | list[Loader]) -> list[int]:
    assert isinstance(loader, Loader)
    return [row for batch in loader for row in batch["index"].tolist()]


@pytest.mark.parametrize("mode", ["lazy", "eager", "lazy_cached"])
def test_every_split_has_its_rows(index: SampleIndex, tmp_path: Path, mode: str) -> None:
    data = data_of(index, tmp_path / "c", mode=mode)
    assert data.target == index.target
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    assert sorted(rows_of(data.train_dataloader())) == [0, 2, 4, 5, 7, 9]
    assert rows_of(data.val_dataloader()) == [1, 6]
    assert rows_of(data.test_dataloader()) == [3, 8]
    assert rows_of(data.predict_dataloader()) == list(range(10))
    data.teardown("fit")
    assert sorted(rows_of(data.train_dataloader())) == [0, 2, 4, 5, 7, 9]
    data.teardown("fit")
    stores = list((tmp_path / "c").iterdir()) if mode == "lazy_cached" else []
    assert len(stores) == (3 if mode == "lazy_cached" else 0)  # predict has none


def test_modes_give_the_same_batches(index: SampleIndex, tmp_path: Path) -> None:
    found = [list(data_of(index, tmp_path / "c", mode=m).train_dataloader()) for m in ("lazy", "eager", "lazy_cached")]
    for batches in found[1:]:
        for batch, expected in zip(batches, found[0], strict=True):
            assert batch.keys() == expected.keys() == {"image", "index", "target"}
            assert all(torch.equal(batch[k], expected[k]) for k in batch)  # type: ignore[literal-required]
    assert found[0][0]["image"].shape == (4, 3, 8, 6)
    assert found[0][0]["target"].shape == (4, 8, 6)
    assert found[0][0]["target"].dtype == torch.uint8


def test_batch_sizes_and_the_kept_epoch(index: SampleIndex, tmp_path: Path) -> None:
    data = data_of(index, tmp_path)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(5)
    assert data.train_dataloader() is loader
    assert data.train_dataloader().sampler.epoch == 5
    assert (loader.batch_size, data.predict_dataloader().batch_size) == (4, 3)


def test_splits_without_rows(index: SampleIndex, tmp_path: Path) -> None:
    train_only = data_of(index.take(index.rows("train")), tmp_path)
    train_only.setup("fit")
    assert train_only.val_dataloader() == train_only.test_dataloader() == []
    with pytest.raises(DataError, match=r"table.csv.*nothing to train on"):
        data_of(index.take(index.rows("val")), tmp_path).setup("fit")


def test_masks_and_sizes_of_the_files(index: SampleIndex, tmp_path: Path) -> None:
    data = data_of(index, tmp_path)
    assert data.original_size(3) == (16, 12)
    mask = data.original_mask(3)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, np.array(Image.open(index.mask_path(3))))


def test_batch_of_any_rows(index: SampleIndex, tmp_path: Path) -> None:
    data = data_of(index, tmp_path)
    batch = data.batch(np.array([8, 0, 1]))
    assert batch["index"].tolist() == [8, 0, 1]
    assert torch.equal(batch["image"][2], next(iter(data.val_dataloader()))["image"][0])  # type: ignore[call-overload]


def test_an_unreadable_image_is_an_error_unless_it_is_to_be_skipped(index: SampleIndex, tmp_path: Path) -> None:
    Path(index.image_path(2)).write_bytes(b"")
    plain = SampleIndex(index.image, index.split)
    data = data_of(plain, tmp_path)
    for loader in (data.train_dataloader(), data.predict_dataloader()):
        with pytest.raises(DataError, match=r"i2\.png"):
            rows_of(loader)
    skipping = data_of(plain, tmp_path, on_bad_image="skip")
    assert rows_of(skipping.predict_dataloader()) == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert skipping.bad == [(index.image_path(2), "the file is empty")]
    assert sorted(rows_of(skipping.train_dataloader())) == [0, 4, 5, 7, 9]


def test_eager_decodes_at_setup(index: SampleIndex, tmp_path: Path) -> None:
    data = data_of(index, tmp_path, mode="eager")
    data.setup("fit")
    Path(index.image_path(0)).unlink()
    assert sorted(rows_of(data.train_dataloader())) == [0, 2, 4, 5, 7, 9]


def test_threads_follow_the_setting(index: SampleIndex, tmp_path: Path) -> None:
    assert data_of(index, tmp_path).train_dataloader().threads == 2
    free = VisionDataModule(index, Geometry(8, 6, 3), Preprocessing(), 4, seed=0)
    assert free.train_dataloader().threads >= 1
    assert free.eval_batch_size == 4


@pytest.mark.parametrize("mode", ["lazy", "eager", "lazy_cached"])
def test_training_images_have_a_size_of_their_own(index: SampleIndex, tmp_path: Path, mode: str) -> None:
    target = index.target
    assert target is not None

    def check(batch: Batch, size: tuple[int, int], resize: Resize) -> None:
        for row, image, mask in zip(batch["index"].tolist(), batch["image"], batch["target"], strict=True):
            expected, file = decode_sized(index.image_path(row), Geometry(*size, 3), resize)
            assert torch.equal(image, expected)
            assert torch.equal(mask, decode_mask(index.mask_path(row), target, size, file, resize=resize))

    test_form = Resize("resize_crop", 0.95)
    # In one cache folder: stores of different sizes never mix.
    for settings, size, resize in (
        ({"train_size": (12, 10)}, (12, 10), Resize("resize_crop", 1.0)),
        ({"train_size": 9, "train_resize_method": "resize_pad"}, (9, 9), Resize("resize_pad")),
        ({"train_resize_method": "interpolate"}, (8, 6), Resize()),
        ({}, (8, 6), test_form),
    ):
        data = data_of(index, tmp_path / "c", mode=mode, resize_method="resize_crop", crop_fraction=0.95, **settings)
        for _ in range(2):  # decoded, and read back
            for batch in data.train_dataloader():
                check(batch, size, resize)
        check(data.batch(np.array([4, 1]), training=True), size, resize)
        loaders = [
            data.train_rows_dataloader(),
            data.val_dataloader(),
            data.test_dataloader(),
            data.predict_dataloader(),
        ]
        for loader in loaders:
            assert isinstance(loader, Loader)
            for batch in loader:
                check(batch, (8, 6), test_form)
        check(data.batch(np.array([4, 1])), (8, 6), test_form)
        data.teardown()
    stores = list((tmp_path / "c").iterdir()) if mode == "lazy_cached" else []
    assert len(stores) == (6 if stores else 0)  # of four training forms, validation and test


def test_training_images_are_not_smaller_than_the_input(index: SampleIndex, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)12 x 5.*8 x 6.*preprocessing\.train_size='?\[12,6\]"):
        data_of(index, tmp_path, train_size=(12, 5))
