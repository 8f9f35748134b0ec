from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import warp as module
from lightning_vision.augmentation.warp import warp


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 3, height: int = 9, width: int = 12) -> tuple[Tensor, Tensor]:
    image = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(1))
    return image, torch.randint(0, 5, (count, height, width), dtype=torch.uint8, generator=seeded(2))


def turn(degrees: float, scale: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    a = math.radians(degrees)
    return torch.tensor(
        [[math.cos(a) / scale, -math.sin(a) / scale, shift[0]], [math.sin(a) / scale, math.cos(a) / scale, shift[1]]]
    )


def every(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


def naive(
    image: Tensor, mask: Tensor, matrix: Tensor, fill: int, ignored: int
) -> tuple[list[list[list[float]]], list[list[set[int]]]]:
    """One image ``(C, H, W)`` pixel by pixel; of a mask all values that its rounding may give."""
    (a, b, c), (d, e, f) = matrix.double().tolist()
    channels, height, width = image.shape
    old, ids = image.tolist(), mask.tolist()

    def value(plane: list[list[int]], row: int, column: int, outside: int) -> int:
        return plane[row][column] if 0 <= row < height and 0 <= column < width else outside

    new = [[[0.0] * width for _ in range(height)] for _ in range(channels)]
    labels: list[list[set[int]]] = [[set() for _ in range(width)] for _ in range(height)]
    for i in range(height):
        for j in range(width):
            x, y = j - (width - 1) / 2, i - (height - 1) / 2
            column, row = a * x + b * y + c + (width - 1) / 2, d * x + e * y + f + (height - 1) / 2
            left, top = math.floor(column), math.floor(row)
            right, low = column - left, row - top
            for k in range(channels):
                new[k][i][j] = sum(
                    share * value(old[k], top + dy, left + dx, fill)
                    for dx, dy, share in [
                        (0, 0, (1 - right) * (1 - low)),
                        (1, 0, right * (1 - low)),
                        (0, 1, (1 - right) * low),
                        (1, 1, right * low),
                    ]
                )
            # float32 lies within this of a place that is as near to two pixels.
            labels[i][j] = {
                value(ids, round(row + dy), round(column + dx), ignored) for dx in (-1e-4, 1e-4) for dy in (-1e-4, 1e-4)
            }
    return new, labels


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4),
    st.tuples(st.floats(-5, 5, width=32), st.floats(-5, 5, width=32)),
    st.sampled_from([0, 77, 255]),
    st.sampled_from([255, 3]),
)
def test_every_pixel_is_that_of_a_plain_loop(
    channels: int, size: tuple[int, int], turned: list[float], shift: tuple[float, float], fill: int, ignored: int
) -> None:
    image, mask = batch(channels, 1, *size)
    matrix = torch.tensor([[turned[0], turned[1], shift[0]], [turned[2], turned[3], shift[1]]])
    new, moved = warp(image, mask, matrix[None], every(1), fill, ignored)
    values, labels = naive(image[0], mask[0], matrix, fill, ignored)
    assert (new[0].double() - torch.tensor(values, dtype=torch.float64)).abs().max() < 0.51
    assert moved is not None
    assert all(
        label in allowed
        for row, beside in zip(moved[0].tolist(), labels, strict=True)
        for label, allowed in zip(row, beside, strict=True)
    )


@pytest.mark.parametrize("degrees", [-170.0, -33.3, 10.0, 90.0])
def test_a_turn_is_torchvisions(degrees: float) -> None:
    image, mask = batch(3, 3, 31, 40)
    new, moved = warp(image, mask, turn(degrees).expand(3, 2, 3), every(3), 0, 255)
    # Without their fill, by which they multiply the border twice.
    theirs = vision.rotate(image, degrees, InterpolationMode.BILINEAR)
    assert (new.int() - theirs.int()).abs().max() <= 1
    assert (new != theirs).double().mean() < 1e-3, "values between two whole numbers only"
    nearest = vision.rotate(mask[:, None], degrees, InterpolationMode.NEAREST, fill=[255.0])[:, 0]
    assert moved is not None
    assert (moved != nearest).double().mean() < 1e-3, "places between two pixels only"


def test_whole_steps_and_quarter_turns_are_exact() -> None:
    image, mask = batch(3, 4, 8, 8)
    maps = torch.stack([turn(0), turn(90), turn(180), turn(0, shift=(2, -1))])
    new, moved = warp(image, mask, maps, every(4), 9, 255)
    assert moved is not None
    for old, result, outside in [(image, new, 9), (mask, moved, 255)]:
        assert torch.equal(result[0], old[0])
        assert torch.equal(result[1], old[1].rot90(1, (-2, -1)))
        assert torch.equal(result[2], old[2].rot90(2, (-2, -1)))
        shifted = torch.full_like(old[3], outside)
        shifted[..., 1:, :-2] = old[3][..., :-1, 2:]
        assert torch.equal(result[3], shifted)


def test_the_others_stay_and_so_does_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = batch(4, 7)
    before, chosen = (image.clone(), mask.clone()), torch.tensor([1, 0, 1, 1, 0, 0, 1]).bool()
    maps = torch.stack([turn(10.0 * i) for i in range(7)])
    new, moved = warp(image, mask, maps, chosen, 0, 255)
    assert moved is not None
    assert torch.equal(new[~chosen], image[~chosen])
    assert torch.equal(moved[~chosen], mask[~chosen])
    assert (new[2:4] != image[2:4]).flatten(1).any(1).all()
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])
    for floats in (1, 3 * image[0].numel()):
        monkeypatch.setattr(module, "IN_CACHE", floats)
        again, again_moved = warp(image, mask, maps, chosen, 0, 255)
        assert torch.equal(again, new)
        assert again_moved is not None
        assert torch.equal(again_moved, moved)
    last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(warp(last, None, maps, chosen, 0, None)[0], new)
    none = warp(image, mask, maps, torch.zeros(7, dtype=torch.bool), 0, 255)
    assert none[0] is image
    assert none[1] is mask


def test_targets_that_are_no_class_maps_stay() -> None:
    image, mask = batch()
    maps, ids = turn(20).expand(3, 2, 3), torch.arange(3)
    assert warp(image, ids, maps, every(3), 0, None)[1] is ids
    wide = warp(image, mask.long() * 1000, maps, every(3), 0, 255)[1]
    assert wide is not None
    assert wide.dtype == torch.int64
    narrow = warp(image, mask, maps, every(3), 0, 255)[1]
    assert narrow is not None
    assert torch.equal(wide, torch.where(narrow == 255, 255, narrow.long() * 1000))
    with pytest.raises(ValueError, match="outside"):
        warp(image, mask, maps, every(3), 0, None)
    empty = warp(image[:0], mask[:0], maps[:0], every(0), 0, 255)
    assert empty[0].shape == (0, 3, 9, 12)
