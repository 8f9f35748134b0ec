from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import resized_crop
from lightning_vision.augmentation.resized_crop import RandomResizedCrop
from lightning_vision.errors import ConfigError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 12, height: int = 37, width: int = 53) -> Tensor:
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_each_image_is_its_own_part_as_torchvision_cuts_it(channels: int) -> None:
    image, crop = batch(channels), RandomResizedCrop()
    cropped, _ = crop(image, None, seeded())
    boxes = crop.boxes(len(image), 37, 53, seeded()).int().tolist()
    assert len({tuple(box) for box in boxes}) == len(boxes), "each image is drawn by itself"
    for one, before, (top, left, height, width) in zip(cropped, image, boxes, strict=True):
        expected = vision.resized_crop(before.float(), top, left, height, width, [37, 53], antialias=True)
        assert (one.float() - expected).abs().max() <= 1.001, "rounded along each axis"
    assert cropped.dtype == torch.uint8
    assert cropped.shape == image.shape


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("size", [(37, 53), (20, 64), (11, 9)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_both_ways_give_the_models_size_as_torchvision_does(channels: int, size: tuple[int, int], mode: str) -> None:
    image = batch(channels)
    crop = RandomResizedCrop((0.01, 1.0), interpolation=mode, size=size)  # type: ignore[arg-type]
    boxes = crop.boxes(len(image), 37, 53, seeded())
    single, together = crop(image, None, seeded())[0], resized_crop._at_once(image, boxes, size, mode)
    assert single.shape == together.shape == (12, channels, *size)
    for one, other, before, (top, left, height, width) in zip(
        single, together, image, boxes.int().tolist(), strict=True
    ):
        way = vision.InterpolationMode(mode)
        expected = vision.resized_crop(before.double(), top, left, height, width, list(size), way, antialias=True)
        assert (other - expected.clamp(0, 255)).abs().max() < 0.502
        # Cubics overshoot, and uint8 cuts that off between the axes too.
        theirs = vision.resized_crop(before, top, left, height, width, list(size), way, antialias=True)
        assert (one.int() - theirs.int()).abs().max() <= 1
        if mode == "bilinear":
            assert (one.int() - other.int()).abs().max() <= 1


def test_a_mask_gets_the_models_size_too() -> None:
    mask = torch.arange(37 * 53).view(1, 37, 53)
    _, moved = RandomResizedCrop(p=0, size=(20, 64))(batch(count=1), mask, seeded())
    rows, columns = [(2 * i + 1) * 37 // 40 for i in range(20)], [(2 * i + 1) * 53 // 128 for i in range(64)]
    assert moved is not None
    assert torch.equal(moved[0], mask[0][rows][:, columns])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_a_mask_is_cut_as_its_image_by_the_nearest_pixel(dtype: torch.dtype) -> None:
    mask = torch.randint(0, 5, (12, 37, 53), generator=seeded(2)).to(dtype)
    mask[:, ::7] = 255
    crop = RandomResizedCrop()
    _, moved = crop(batch(), mask, seeded())
    assert moved is not None
    assert moved.dtype == dtype
    for one, before, (top, left, height, width) in zip(
        moved, mask, crop.boxes(12, 37, 53, seeded()).int().tolist(), strict=True
    ):
        rows = [top + (2 * i + 1) * height // 74 for i in range(37)]
        columns = [left + (2 * i + 1) * width // 106 for i in range(53)]
        assert torch.equal(one, before[rows][:, columns])


def test_class_ids_stay() -> None:
    labels = torch.arange(12)
    assert RandomResizedCrop()(batch(), labels, seeded())[1] is labels


def test_parts_are_drawn_from_the_ranges() -> None:
    boxes = RandomResizedCrop((0.3, 0.6), (0.5, 1.5)).boxes(20_000, 400, 300, seeded()).double()
    top, left, height, width = boxes.T
    area, ratio = height * width / 120_000, width / height
    assert (area > 0.295).all()
    assert (area < 0.605).all()
    assert (ratio > 0.49).all()
    assert (ratio < 1.51).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 400).all()
    assert (left + width <= 300).all()
    # A ratio and its inverse are as likely, and every place is.
    narrow = RandomResizedCrop((0.3, 0.6), (0.5, 2.0)).boxes(20_000, 400, 400, seeded())
    assert (narrow[:, 3] > narrow[:, 2]).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (top / (400 - height).clamp(min=1)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert (left / (300 - width).clamp(min=1)).mean().item() == pytest.approx(0.5, abs=0.02)
    assert boxes.frac().abs().sum() == 0


@pytest.mark.parametrize(
    ("size", "ratio", "expected"),
    [
        ((10, 100), (0.75, 4 / 3), (0, 43, 10, 13)),
        ((100, 10), (0.75, 4 / 3), (43, 0, 13, 10)),
        ((1, 50), (1.0, 1.0), (0, 24, 1, 1)),
    ],
)
def test_where_nothing_fits_it_is_the_largest_part_in_the_middle(
    size: tuple[int, int], ratio: tuple[float, float], expected: tuple[int, ...]
) -> None:
    boxes = RandomResizedCrop((0.9, 1.0), ratio).boxes(5, *size, seeded())
    assert boxes.tolist() == [list(expected)] * 5


def test_probability() -> None:
    image, mask = batch(count=400, height=8, width=9), torch.arange(400 * 72).view(400, 8, 9)
    cropped, moved = RandomResizedCrop((0.2, 0.5), p=0)(image, mask, seeded())
    assert torch.equal(cropped, image)
    assert moved is not None
    assert torch.equal(moved, mask)
    assert torch.equal(
        resized_crop._at_once(image, RandomResizedCrop(p=0).boxes(400, 8, 9, seeded()), (8, 9), "bilinear"), image
    )
    boxes = RandomResizedCrop((0.2, 0.5), p=0.3).boxes(400, 8, 9, seeded())
    assert (boxes != torch.tensor([0.0, 0, 8, 9])).any(1).double().mean().item() == pytest.approx(0.3, abs=0.06)


def test_the_generator_decides_and_the_input_stays() -> None:
    image = batch()
    before = image.clone()
    a = RandomResizedCrop()(image, None, seeded(3))[0]
    torch.rand(10)
    assert torch.equal(a, RandomResizedCrop()(image, None, seeded(3))[0])
    assert not torch.equal(a, RandomResizedCrop()(image, None, seeded(4))[0])
    assert torch.equal(image, before)
    assert RandomResizedCrop()(image[:0], None, seeded())[0].shape == (0, 3, 37, 53)
    last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(RandomResizedCrop()(last, None, seeded(3))[0], a)


@pytest.mark.parametrize(
    "arguments",
    [{"scale": (0.0, 1.0)}, {"scale": (0.5, 1.2)}, {"scale": (0.6, 0.5)}, {"ratio": (0.0, 1.0)}, {"ratio": (1.0,)}],
)
def test_wrong_ranges_are_refused(arguments: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match=f"augmentation.random_resized_crop.{next(iter(arguments))}="):
        RandomResizedCrop(**arguments)  # type: ignore[arg-type]
