from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.decoders import joined_conv
from lightning_vision.decoders.base import cells, resample
from lightning_vision.decoders.joined_conv import JoinedConv, conv_resampled

WAYS = ("_conv_doubled", "_conv_by_matrices")


def plain(x: Tensor, kernel: Tensor, from_stride: int, to_stride: int, size: tuple[int, int], mode: str) -> Tensor:
    return F.conv2d(resample(x, from_stride, to_stride, size, mode), kernel, padding=1)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    from_stride=st.sampled_from([1, 2, 4, 6, 7, 14, 16, 32]),
    to_stride=st.sampled_from([1, 2, 4, 6]),
    channels=st.sampled_from([1, 40]),
    mode=st.sampled_from(["nearest", "bilinear"]),
)
def test_whichever_way_is_taken_it_is_the_same_function(
    height: int, width: int, from_stride: int, to_stride: int, channels: int, mode: str
) -> None:
    size = (height, width)
    x = torch.randn(2, channels, *cells(size, from_stride), dtype=torch.float64)
    kernel = torch.randn(2, channels, 3, 3, dtype=torch.float64)
    found = conv_resampled(x, kernel, from_stride, to_stride, size, mode)
    torch.testing.assert_close(found, plain(x, kernel, from_stride, to_stride, size, mode))


@pytest.mark.parametrize(
    ("channels", "from_stride", "size", "mode", "taken"),
    [
        (64, 4, (64, 64), "nearest", "_conv_doubled"),
        (64, 16, (64, 64), "nearest", "_conv_by_matrices"),
        (64, 4, (64, 62), "nearest", "_conv_by_matrices"),  # the last column is cut: not doubled
        (64, 8, (64, 64), "bilinear", "_conv_by_matrices"),
        (2, 4, (64, 64), "bilinear", None),
        (64, 2, (64, 64), "nearest", None),
    ],
)
def test_the_cheapest_way_is_taken_with_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    from_stride: int,
    size: tuple[int, int],
    mode: str,
    taken: str | None,
) -> None:
    x = torch.randn(2, channels, *cells(size, from_stride), dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(3, channels, 3, 3, dtype=torch.float64, requires_grad=True)
    used = []
    for way in WAYS:
        original = getattr(joined_conv, way)
        monkeypatch.setattr(joined_conv, way, lambda *a, way=way, original=original: used.append(way) or original(*a))
    found = conv_resampled(x, kernel, from_stride, 2, size, mode)
    assert used == ([taken] if taken else [])
    expected = plain(x, kernel, from_stride, 2, size, mode)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    ours, naive = (torch.autograd.grad((y * weights).sum(), (x, kernel)) for y in (found, expected))
    torch.testing.assert_close(ours, naive)


@pytest.mark.parametrize("size", [(64, 64), (95, 127), (97, 33)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("bias", [True, False])
def test_maps_are_joined_as_one_convolution_does(size: tuple[int, int], mode: str, bias: bool) -> None:
    channels, strides = [3, 20, 5], [4, 8, 16]
    joined = JoinedConv(list(zip(channels, strides, strict=True)), 6, 4, mode, bias).double()
    if bias:
        torch.nn.init.normal_(joined.bias)
    maps = [torch.randn(2, c, *cells(size, s), dtype=torch.float64) for c, s in zip(channels, strides, strict=True)]
    resampled = [resample(x, s, 4, size, mode) for x, s in zip(maps, strides, strict=True)]
    expected = F.conv2d(torch.cat(resampled, 1), joined.weight, joined.bias, padding=1)
    torch.testing.assert_close(joined(maps, size), expected)
