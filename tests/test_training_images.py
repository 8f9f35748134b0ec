"""Repeats and another size of training images: what the root settings come to, and where they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lightning_vision.assembly import build_data, build_module
from lightning_vision.config import compose
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.runfolder import announce
from lightning_vision.testing.discs import write_discs
from lightning_vision.training_images import check_train_size
from lightning_vision.types import Geometry


class Cropping:
    """An augmentation that says that it cuts the model's input out."""

    injected: ClassVar[tuple[str, ...]] = ("size",)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def test_images_are_repeated_only_where_they_are_augmented(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)nothing is augmented.*try: +repeats=1"):
        resolve(compose(["data=table", "augmentation=none", "repeats=3"], {"data.path": str(table)}))


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 3), ({"repeats": 3}, 3), ({"num_items_per_epoch": 25}, 6), ({"repeats": 2, "num_items_per_epoch": 4}, 1)],
)
def test_steps_of_an_epoch(settings: dict[str, Any], steps: int) -> None:
    files = PackedStrings.from_strings(f"/f/{i}.png" for i in range(20))
    index = SampleIndex(files, np.repeat([0, 1, 2], [10, 6, 4]).astype(np.uint8))
    data = build_data(index, Geometry(2, 2, 3), Preprocessing(), {"batch_size": 4, "seed": 0, **settings})
    assert len(data.train_dataloader()) == steps
    assert len(data.train_rows_dataloader()) == 3
    assert [len(loader) for loader in (data.val_dataloader(), data.test_dataloader()) if loader] == [2, 1]
    assert len(data.predict_dataloader()) == 5


def test_training_images_of_another_size_must_be_cropped(table: Path) -> None:
    words = ["data=table", "image_size=[24,32]", "augmentation=random_horizontal_flip"]
    given = {"data.path": str(table), "data.ignore_index": 255, "preprocessing.train_size": [30, 32]}
    with pytest.raises(ConfigError, match=r"(?s)train_size=\[30, 32\] with image_size=24 x 32.*train_size=null"):
        resolve(compose(words, given))
    # The size of the input itself is none, and a crop takes any.
    resolve(compose(words, {**given, "preprocessing.train_size": [24, 32]}))
    config = {
        "preprocessing": {"train_size": 40},
        "augmentation": {"flip": None, "crop": {"_target_": f"{__name__}.Cropping"}},
    }
    check_train_size(config, Geometry(24, 32, 3), Geometry(40, 40, 3))
    with pytest.raises(ConfigError, match="augmentation none"):
        check_train_size({**config, "augmentation": {}}, Geometry(24, 32, 3), Geometry(40, 40, 3))


def test_a_run_says_what_is_asked_of_training_images(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=table", "decoder=classifier", "image_size=[24,32]", "augmentation=random_resized_crop"]
    values = {"data.path": str(table), "preprocessing.train_size": [30, 32], "repeats": 3}
    plan = resolve(compose(words, values))
    module = build_module(plan)
    announce(plan, module, build_data(plan.index, plan.geometry, plan.preprocessing, plan.config))
    said = capsys.readouterr().out
    assert "24 x 32 pixels (cut out of 30 x 32 in training)" in said
    assert f"{plan.index.counts()['train']} training images an epoch, each drawn image 3 times" in said
