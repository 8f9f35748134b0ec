"""Masks that move with their images: the pixels that come in are left out of the loss, and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from lightning_vision.assembly import build_module, rebuild_module
from lightning_vision.augmentation.rotate import RandomRotate
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.resolve import Plan, resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import Batch

TURNED = ("augmentation=random_rotate", "augmentation.random_rotate.p=1", "augmentation.random_rotate.degree=45")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"), 10, ignore_index=None)


def plan(table: Path, *words: str, decoder: str = "unet", target: str = "mask") -> Plan:
    small = ("image_size=[32,40]", "encoder=unet", "encoder.base_channels=4", f"decoder={decoder}")
    return resolve(compose(["data=table", *small, f"data.target={target}", *words], {"data.path": str(table)}))


def transform(module: VisionModule) -> RandomRotate:
    return cast(RandomRotate, module.augmentation[0])


def test_a_step_leaves_out_the_corners(table: Path) -> None:
    module = build_module(plan(table, *TURNED))
    head = module.head()
    assert head.loss is not None
    assert (transform(module).ignored, head.loss.ignore_index, head.task.target.ignore_index) == (255, 255, None)
    batch: Batch = {
        "image": torch.randint(0, 256, (4, 3, 32, 40), dtype=torch.uint8),
        "target": torch.randint(0, 3, (4, 32, 40), dtype=torch.uint8),
        "index": torch.arange(4),
    }
    module.train()
    torch.manual_seed(0)
    loss = module.training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    # By hand: the mean over the pixels that the old image covers.
    module.zero_grad()
    torch.manual_seed(0)
    turned = module._augmented(batch, torch.Generator().manual_seed(int(torch.randint(2**62, ()))))
    target = turned["target"].long()
    assert 0.02 < (target == 255).double().mean() < 0.5
    rows = module.outputs(turned["image"])["output"].logits.movedim(1, -1)[target != 255].log_softmax(1)
    expected = -rows.gather(1, target[target != 255][:, None]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_where_nothing_moves_nothing_is_ignored(table: Path) -> None:
    for words in ((), ("augmentation=random_horizontal_flip",)):
        loss = build_module(plan(table, *words)).head().loss
        assert loss is not None
        assert loss.ignore_index is None, "ignoring costs time"
    labels = build_module(plan(table, *TURNED, decoder="classifier", target="label"))
    assert transform(labels).ignored is None
    assert labels.head().loss is not None
    assert labels.head().loss.ignore_index is None  # type: ignore[union-attr]


def test_the_value_that_the_data_ignore_is_taken(tmp_path: Path) -> None:
    table = write_discs(tmp_path, 10, ignore_index=7)
    for words in ((), TURNED):
        module = build_module(plan(table, "data.ignore_index=7", *words))
        assert module.head().loss.ignore_index == 7  # type: ignore[union-attr]
    assert transform(module).ignored == 7


def test_a_class_map_without_a_free_value_is_refused(table: Path) -> None:
    full = plan(table, *TURNED)
    names = tuple(map(str, range(256)))
    for output in full.outputs.values():
        output.target = replace(output.target, class_names=names)
    with pytest.raises(ConfigError, match="ignore_index=null with RandomRotate"):
        build_module(full)


def test_a_saved_model_is_built_again(table: Path) -> None:
    from lightning_vision import checkpoint as checkpoints

    module = build_module(plan(table, *TURNED))
    state = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(state)
    assert checkpoints.KEY in state
    again = rebuild_module(state)
    assert transform(again).ignored == 255
    assert again.head().loss.ignore_index == 255  # type: ignore[union-attr]


@pytest.mark.parametrize("degree", ["0", "-10"])
def test_an_angle_that_is_not_positive_is_refused_before_training(table: Path, degree: str) -> None:
    with pytest.raises(ConfigError, match="greater than 0"):
        plan(table, "augmentation=random_rotate", f"augmentation.random_rotate.degree={degree}")
