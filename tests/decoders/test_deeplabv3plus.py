from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.deeplabv3plus import DeepLabV3PlusDecoder
from lightning_vision.testing.conformance import random_features
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((4, 6, 8), (4, 8, 16), 8)


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    return F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True))


def separable(x: Tensor, convs: nn.Sequential, dilation: int = 1) -> Tensor:
    """Each channel by itself, in a loop, then the mixing of channels."""
    depth, point = convs[0].weight, convs[1].weight
    maps = [F.conv2d(x[:, i : i + 1], depth[i : i + 1], padding=dilation, dilation=dilation) for i in range(x.shape[1])]
    return torch.einsum("oi,bihw->bohw", point[:, :, 0, 0], torch.cat(maps, 1))


def naive(decoder: DeepLabV3PlusDecoder, features: list[Tensor], rates: tuple[int, ...], up: int) -> Tensor:
    """As the paper draws it: everything is joined, then projected."""
    x = features[-1]
    one, *atrous, average = decoder.pooling.branches
    found = [normed(F.conv2d(x, one[0].weight), one[1])]
    found += [normed(separable(x, branch[0], rate), branch[1]) for branch, rate in zip(atrous, rates, strict=True)]
    pooled = normed(F.conv2d(F.adaptive_avg_pool2d(x, 1), average[0].weight), average[1])
    found.append(F.interpolate(pooled, x.shape[-2:]))
    weight = torch.cat([project.weight for project in decoder.pooling.project], 1)
    x = normed(F.conv2d(torch.cat(found, 1), weight), decoder.pooling.rest[0])
    x = normed(separable(x, decoder.refine[0]), decoder.refine[1])
    x = F.interpolate(x, scale_factor=up, mode="bilinear")
    beside = normed(F.conv2d(features[0], decoder.beside[0].weight), decoder.beside[1])
    joined = [separable(y, convs) for y, convs in zip((x, beside), decoder.joins, strict=True)]
    x = normed(joined[0] + joined[1], decoder.rest[0])
    return F.interpolate(decoder.head(x), scale_factor=4, mode="bilinear")


def test_equals_a_naive_reference() -> None:
    torch.manual_seed(0)
    decoder = DeepLabV3PlusDecoder(INFO, 3, num_channels=5, skip_channels=2, dropout=0.0).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    features = [x.double() for x in random_features(INFO, (320, 352))]
    expected = naive(decoder, features, (6, 12, 18), 4)
    torch.testing.assert_close(decoder(features, (320, 352)), expected)


@pytest.mark.parametrize(
    ("stride", "given", "expected"),
    [
        (16, None, [6, 12, 18]),
        (32, None, [3, 6, 9]),
        (8, None, [12, 24, 36]),
        (128, None, [1, 2, 2]),
        (16, [2, 5], [2, 5]),
    ],
)
def test_holes_follow_the_stride(stride: int, given: list[int] | None, expected: list[int]) -> None:
    decoder = DeepLabV3PlusDecoder(FeatureInfo((4,), (stride,), 4), 2, num_channels=4, atrous_rates=given)
    found = [m.dilation[0] for m in decoder.pooling.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert found == expected


@pytest.mark.parametrize(
    ("strides", "fine"), [((2, 4, 8, 16), 4), ((1, 2, 16), 2), ((8, 16), 8), ((1, 2), 1), ((16, 16), 16), ((2, 4), 2)]
)
def test_the_finest_map_of_stride_4_or_more_is_joined(strides: tuple[int, ...], fine: int) -> None:
    decoder = DeepLabV3PlusDecoder(FeatureInfo((4,) * len(strides), strides, 4), 2, num_channels=4)
    assert decoder.fine == fine
    assert (decoder.beside is None) == (fine == strides[-1])


def test_widths() -> None:
    decoder = DeepLabV3PlusDecoder(INFO, 2, num_channels=10, skip_channels=3)
    assert decoder.head.in_channels == 10
    assert decoder.beside[0].out_channels == 3
