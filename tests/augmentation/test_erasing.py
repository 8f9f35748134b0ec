from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.erasing import RandomErasing
from lightning_vision.errors import ConfigError
from lightning_vision.types import Batch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def black(count: int = 50, channels: int = 3) -> torch.Tensor:
    return torch.zeros(count, channels, 20, 30, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_hidden_is_the_rectangle_that_was_drawn(channels: int) -> None:
    erase = RandomErasing(p=0.6, fill=9)
    new, _ = erase(black(channels=channels), None, seeded())
    colours = channels - (channels in (2, 4))
    together = erase._at_once(black(channels=channels), erase.boxes(50, 20, 30, seeded()), colours, seeded())
    assert torch.equal(together, new)
    for one, (top, left, height, width) in zip(new, erase.boxes(50, 20, 30, seeded()).tolist(), strict=True):
        expected = torch.zeros(channels, 20, 30, dtype=torch.uint8)
        expected[:colours, top : top + height, left : left + width] = 9
        assert torch.equal(one, expected), "alpha stays"


def test_rectangles_are_drawn_as_timm_draws_them() -> None:
    top, left, height, width = RandomErasing(p=0.5, min_area=0.1, max_area=0.2).boxes(20_000, 400, 300, seeded()).T
    hidden = height > 0
    assert hidden.double().mean().item() == pytest.approx(0.5, abs=0.02)
    top, left, height, width = (value[hidden].double() for value in (top, left, height, width))
    area, aspect = height * width / 120_000, (height / width).log()
    assert area.min() > 0.098
    assert area.max() < 0.202
    assert area.mean().item() == pytest.approx(0.15, abs=0.002)
    assert aspect.abs().max() < -math.log(0.29)
    assert aspect.mean().item() == pytest.approx(0, abs=0.03)
    assert (top + height <= 400).all()
    assert (left + width <= 300).all()
    assert (top / (400 - height)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert (left / (300 - width)).mean().item() == pytest.approx(0.5, abs=0.02)
    # Where nothing fits, nothing is hidden.
    assert not RandomErasing(1, 0.9, 1.0, 4.0, 5.0).boxes(9, 400, 300, seeded()).any()


@pytest.mark.parametrize("way", ["_one_by_one", "_at_once"])
def test_modes(way: str) -> None:
    def erased(mode: Literal["rand", "pixel"], count: int = 50) -> torch.Tensor:
        erase = RandomErasing(1.0, 0.3, 0.4, mode=mode)
        boxes = erase.boxes(count, 20, 30, seeded())
        return getattr(erase, way)(black(count), boxes, 3, seeded())

    colour = erased("rand")
    assert all(len(channel.unique()) <= 2 for one in colour for channel in one), "one value each"
    assert len(colour.amax((2, 3)).unique()) > 40
    noise = erased("pixel", 400)
    values = noise[noise > 0].double()
    assert values.mean().item() == pytest.approx(128, abs=1)
    assert values.std().item() == pytest.approx(255 / math.sqrt(12), abs=1)
    assert torch.equal(erased("pixel", 400), noise)


def test_targets_stay_and_each_image_of_a_sample_is_drawn_by_itself() -> None:
    mask = torch.ones(50, 20, 30, dtype=torch.uint8)
    assert RandomErasing(p=1)(black(), mask, seeded())[1] is mask
    batch: Batch = {"image": black(channels=6), "target": mask, "index": torch.arange(50)}
    moved = augmented(batch, [RandomErasing(p=1)], seeded(), num_inputs=2)
    assert moved["target"] is mask
    first, second = moved["image"].split(3, 1)
    assert (first != second).flatten(1).any(1).sum() > 40
    assert torch.equal(RandomErasing(p=0)(black() + 3, None, seeded())[0], black() + 3)
    assert RandomErasing()(black(0), None, seeded())[0].shape == (0, 3, 20, 30)


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_area=0\.1"):
        RandomErasing(min_area=0.3, max_area=0.1)
    with pytest.raises(ConfigError, match=r"min_aspect=2, max_aspect=0\.5"):
        RandomErasing(min_aspect=2)
