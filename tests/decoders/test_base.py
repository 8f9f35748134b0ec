from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_vision.decoders.base import cells, levels_of, resample
from lightning_vision.types import FeatureInfo


def naive_bilinear(x: Tensor, from_stride: float, to_stride: float, size: tuple[int, int]) -> Tensor:
    """Every cell by its centre in pixels, edges repeated."""
    height, width = cells(size, to_stride)
    out = torch.zeros(*x.shape[:2], height, width, dtype=x.dtype)
    for r in range(height):
        for c in range(width):
            places = []
            for i, n in ((r, x.shape[-2]), (c, x.shape[-1])):
                p = max((i + 0.5) * to_stride / from_stride - 0.5, 0.0)
                low = min(int(p), n - 1)
                places.append((low, min(low + 1, n - 1), p - int(p)))
            (r0, r1, fr), (c0, c1, fc) = places
            top = x[..., r0, c0] * (1 - fc) + x[..., r0, c1] * fc
            bottom = x[..., r1, c0] * (1 - fc) + x[..., r1, c1] * fc
            out[..., r, c] = top * (1 - fr) + bottom * fr
    return out


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    from_stride=st.sampled_from([1, 2, 3.5, 4, 7, 8, 14, 16]),
    to_stride=st.sampled_from([1, 2, 4, 8]),
)
def test_a_cell_stays_over_its_pixels(height: int, width: int, from_stride: float, to_stride: float) -> None:
    size = (height, width)
    x = torch.randn(1, 2, *cells(size, from_stride), dtype=torch.float64)
    found = resample(x, from_stride, to_stride, size)
    torch.testing.assert_close(found, naive_bilinear(x, from_stride, to_stride, size))


def test_nearest_repeats_each_cell() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    found = resample(x, 4, 2, (7, 9), mode="nearest")
    expected = x.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., :4, :5]
    assert torch.equal(found, expected)


def test_the_same_stride_changes_nothing() -> None:
    x = torch.randn(1, 1, 3, 4)
    assert resample(x, 8, 8, (20, 30)) is x


@pytest.mark.parametrize(
    ("size", "stride", "expected"), [((7, 8), 4, (2, 2)), ((7, 8), 3.5, (2, 3)), ((1, 1), 32, (1, 1))]
)
def test_cells_round_up(size: tuple[int, int], stride: float, expected: tuple[int, int]) -> None:
    assert cells(size, stride) == expected


@pytest.mark.parametrize(
    ("strides", "finest", "expected"),
    [
        ((2, 4, 8), 1, {2: 0, 4: 1, 8: 2}),
        ((2, 4, 8), 4, {4: 1, 8: 2}),
        ((2, 2, 8, 8), 1, {2: 1, 8: 3}),  # the deepest speaks for its stride
        ((1, 2), 4, {1: 0, 2: 1}),  # no others
        ((14, 14, 14), 4, {14: 2}),
    ],
)
def test_levels_are_the_strides_to_decode(strides: tuple[int, ...], finest: int, expected: dict[int, int]) -> None:
    found = levels_of(FeatureInfo((3,) * len(strides), strides, 3), finest)
    assert list(found.items()) == list(expected.items())
