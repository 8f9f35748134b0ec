"""Repeats and another size of training images: what the root settings come to, and where they are refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from lightning_vision.assembly import build_data, build_module
from lightning_vision.checks import plain
from lightning_vision.config import compose
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.runfolder import announce
from lightning_vision.testing.discs import write_discs
from lightning_vision.training_images import check_repeats, check_train_size
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
    ("words", "given", "better"),
    [
        ("loss=nt_xent augmentation=views repeats=2", "repeats=2 with", ["repeats=1"]),
        ("augmentation=mixup repeats=8 batch_size=8", "repeats=8 and batch_size=8", ["repeats=2", "batch_size=32"]),
        ("augmentation=cutmix repeats=3 batch_size=2", "augmentation.cutmix", ["repeats=1", "batch_size=12"]),
    ],
)
def test_copies_of_an_image_do_not_stand_for_others(words: str, given: str, better: list[str]) -> None:
    refused = plain(compose(["loss=softmax_cross_entropy", *words.split()]))
    with pytest.raises(ConfigError) as caught:
        check_repeats(refused)
    assert given in str(caught.value.given)
    assert caught.value.overrides == better
    for word in better:
        check_repeats(refused | {word.split("=")[0]: int(word.split("=")[1])})
    if "mix" in words:  # four processes take turns at the copies, so that each has fewer
        check_repeats(refused | {"trainer": refused["trainer"] | {"devices": 2, "num_nodes": 2}})


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
    # What is there stays, with its settings.
    with pytest.raises(ConfigError) as caught:
        resolve(compose([*words, "augmentation=light"], given))
    turned = "{type:random_rotate,degree:10.0}"
    brightness = "{type:random_brightness,min:0.8,max:1.25}"
    better = f"augmentation=[random_resized_crop,random_horizontal_flip,{turned},{brightness}]"
    assert [shlex.split(line) for line in caught.value.overrides] == [[better], ["preprocessing.train_size=null"]]
    resolve(compose([*words, better], given))
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
