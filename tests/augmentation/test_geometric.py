"""Turns, affine changes, zooms and mirror images: what is drawn, and what it does to images and class maps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import affine, rotate, scale_jitter
from lightning_vision.augmentation.affine import RandomAffine, from_new_to_old
from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.flip import RandomHorizontalFlip
from lightning_vision.augmentation.rotate import RandomRotate
from lightning_vision.augmentation.scale_jitter import ScaleJitter
from lightning_vision.augmentation.vertical_flip import RandomVerticalFlip
from lightning_vision.augmentation.warp import warp
from lightning_vision.errors import ConfigError
from lightning_vision.types import Batch

MOVING = [RandomRotate, RandomAffine, ScaleJitter]
ALL = [RandomHorizontalFlip, RandomVerticalFlip, *MOVING]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 12, height: int = 16, width: int = 21) -> tuple[Tensor, Tensor]:
    image = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(1))
    return image, torch.randint(0, 5, (count, height, width), dtype=torch.uint8, generator=seeded(2))


def built(kind: type[nn.Module], p: float = 1.0) -> nn.Module:
    return kind(p=p, ignored=255) if kind in MOVING else kind(p=p)


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The matrices that transforms hand over."""
    seen: list[Tensor] = []

    def spy(image: Tensor, target: Tensor | None, matrix: Tensor, *more: object) -> tuple[Tensor, Tensor | None]:
        seen.append(matrix)
        return image, target

    for module in (affine, rotate, scale_jitter):
        monkeypatch.setattr(module, "warp", spy)
    return seen


def test_angles_are_drawn_evenly_on_both_sides(maps: list[Tensor]) -> None:
    RandomRotate(30)(torch.zeros(4000, 1, 1, 1, dtype=torch.uint8), None, seeded())
    (matrix,) = maps
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]).rad2deg()
    assert angle.abs().max() <= 30
    assert angle.mean().item() == pytest.approx(0, abs=1)
    assert angle.std().item() == pytest.approx(60 / math.sqrt(12), abs=0.7)
    assert torch.allclose(matrix[:, :, :2] @ matrix[:, :, :2].mT, torch.eye(2), atol=1e-6), "it only turns"
    assert not matrix[:, :, 2].any(), "about the centre"


def test_zooms_keep_a_point_of_the_image_and_the_image_in_sight(maps: list[Tensor]) -> None:
    ScaleJitter((0.5, 2.0))(torch.zeros(4000, 1, 30, 50, dtype=torch.uint8), None, seeded())
    (matrix,) = maps
    scale, shift = 1 / matrix[:, 0, 0], matrix[:, :, 2]
    assert torch.equal(matrix[:, 0, 0], matrix[:, 1, 1])
    assert not matrix[:, 0, 1].any()
    assert scale.min() >= 0.499
    assert scale.max() <= 2.001
    assert scale.mean().item() == pytest.approx(1.25, abs=0.03)
    # Corners of the new image in the old one, and the other way round: one lies within the other.
    half = torch.tensor([25.0, 15.0])
    reach = half / scale[:, None]
    larger, smaller = scale > 1, scale < 1
    assert (shift.abs() + reach <= half + 1e-3)[larger].all()
    assert (shift.abs() + half <= reach + 1e-3)[smaller].all()
    assert (shift[larger] * scale[larger, None] / (half * (scale[larger, None] - 1))).std(0) == pytest.approx(
        [1 / math.sqrt(3)] * 2, abs=0.03
    ), "anywhere in the image"


def test_an_affine_change_draws_from_all_its_ranges(maps: list[Tensor]) -> None:
    RandomAffine(20, (0.1, 0.3), (0.5, 2.0), 0.0)(torch.zeros(4000, 1, 30, 50, dtype=torch.uint8), None, seeded())
    matrix = maps[0].double()
    old_to_new = matrix[:, :, :2].inverse()
    scale = old_to_new.det().sqrt()
    assert scale.min() >= 0.499
    assert scale.max() <= 2.001
    assert scale.mean().item() == pytest.approx(1.25, abs=0.03)
    angle = torch.atan2(old_to_new[:, 1, 0], old_to_new[:, 0, 0]).rad2deg()
    assert 19 < angle.abs().max() <= 20.001
    moved = -(old_to_new @ matrix[:, :, 2:])[..., 0]
    assert (moved.abs().amax(0) <= torch.tensor([5.001, 9.001])).all()
    assert moved.std(0).tolist() == pytest.approx([10 / math.sqrt(12), 18 / math.sqrt(12)], rel=0.05)


@pytest.mark.parametrize(("angle", "way", "scale", "shear"), [(20.0, (3, -4), 1.3, 12.0), (-70.0, (1, 2), 0.8, -30.0)])
def test_an_affine_change_is_torchvisions(angle: float, way: tuple[int, int], scale: float, shear: float) -> None:
    image, mask = batch(count=1, height=31, width=40)
    drawn = (math.radians(angle), *map(float, way), math.radians(shear), scale)
    matrix = from_new_to_old(*(torch.tensor([value]) for value in drawn))
    new, moved = warp(image, mask, matrix, torch.ones(1, dtype=torch.bool), 0, 255)
    arguments = (angle, list(way), scale, [shear, 0.0])
    assert (new.int() - vision.affine(image, *arguments, InterpolationMode.BILINEAR).int()).abs().max() <= 1
    nearest = vision.affine(mask[:, None], *arguments, InterpolationMode.NEAREST, fill=[255.0])[:, 0]
    assert moved is not None
    assert (moved != nearest).double().mean() < 2e-3, "places between two pixels only"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_every_channel_and_the_class_map_move_alike(kind: type[nn.Module], channels: int) -> None:
    # One picture in all channels, black and white: then a class map that shows it too must agree where
    # it is clear: the nearest of four pixels has at least a quarter of the weight.
    shown = torch.zeros(12, 24, 24, dtype=torch.uint8)
    shown[:, 5:12, 4:17] = 1
    image = (255 * shown)[:, None].repeat(1, channels, 1, 1)
    new, moved = built(kind)(image, shown, seeded())
    assert new.dtype == torch.uint8
    assert torch.equal(new, new[:, :1].expand_as(new))
    assert (new != image).flatten(1).any(1).sum() > 9
    clear = (new[:, 0] < 63) | (new[:, 0] > 192)
    inside = moved != 255
    assert torch.equal((new[:, 0] > 127)[clear & inside], (moved == 1)[clear & inside])
    assert inside.all() == (kind not in MOVING)


@pytest.mark.parametrize("kind", ALL)
def test_probability_labels_and_the_generator(kind: type[nn.Module]) -> None:
    image, mask = batch(1, 400, 6, 7)
    before = image.clone()
    new, moved = built(kind, 0.3)(image, mask, seeded(3))
    changed = (new != image).flatten(1).any(1)
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.07)
    assert torch.equal(moved[~changed], mask[~changed])
    assert torch.equal(image, before)
    torch.rand(10)
    assert torch.equal(built(kind, 0.3)(image, mask, seeded(3))[0], new)
    assert not torch.equal(built(kind, 0.3)(image, mask, seeded(4))[0], new)
    labels = torch.arange(400)
    assert built(kind)(image, labels, seeded())[1] is labels
    assert torch.equal(built(kind, 0.3)(image, None, seeded(3))[0], new)
    assert built(kind, 0)(image, mask, seeded())[0].equal(image)
    assert built(kind)(image[:0], mask[:0], seeded())[0].shape == (0, 1, 6, 7)


def test_a_vertical_flip_turns_the_rows_round() -> None:
    image, mask = batch()
    new, moved = RandomVerticalFlip(1)(image, mask, seeded())
    assert torch.equal(new, image.flip(2))
    assert moved is not None
    assert torch.equal(moved, mask.flip(1))


def test_the_images_of_a_sample_move_alike() -> None:
    image, mask = batch()
    several: Batch = {"image": image.repeat(1, 2, 1, 1), "target": mask, "index": torch.arange(12)}
    moved = augmented(several, [RandomRotate(40, 1.0, ignored=255)], seeded(), num_inputs=2)
    single, target = RandomRotate(40, 1.0, ignored=255)(image, mask, seeded())
    assert torch.equal(moved["image"], single.repeat(1, 2, 1, 1))
    assert target is not None
    assert torch.equal(moved["target"], target)


@pytest.mark.parametrize(("kind", "name"), [(RandomAffine, "random_affine"), (ScaleJitter, "scale_jitter")])
def test_a_range_that_begins_behind_its_end_is_refused(kind: type[nn.Module], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"augmentation.{name}.scale=\[0.5,2.0\]"):
        kind(scale=(1.2, 0.8))
