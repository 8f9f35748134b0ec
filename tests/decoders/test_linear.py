from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_vision.decoders.linear import LinearDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import random_features
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((4, 6, 8), (4, 8, 16), 8)
VIT = FeatureInfo((5, 5, 5), (14, 14, 14), 5)


@pytest.mark.parametrize(("info", "size"), [(INFO, (64, 96)), (VIT, (70, 42))])
@pytest.mark.parametrize("num_maps", [1, 2, None])
@pytest.mark.parametrize("norm", ["batch", None])
def test_equals_a_linear_layer_on_joined_maps(
    info: FeatureInfo, size: tuple[int, int], num_maps: int | None, norm: str | None
) -> None:
    torch.manual_seed(0)
    decoder = LinearDecoder(info, 3, num_maps=num_maps, norm=norm).double()
    features = [3 * x.double() + 2 for x in random_features(info, size)]
    count = num_maps or len(features)
    strides = info.strides[-count:]
    joined = []
    for x, stride in zip(features[-count:], strides, strict=True):
        if norm:
            x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
        joined.append(
            x if stride == strides[0] else F.interpolate(x, scale_factor=stride // strides[0], mode="bilinear")
        )
    weight = torch.cat([head.weight for head in decoder.heads], 1)
    logits = F.conv2d(torch.cat(joined, 1), weight, decoder.heads[0].bias)
    expected = F.interpolate(logits, scale_factor=strides[0], mode="bilinear")
    torch.testing.assert_close(decoder(features, size), expected)


def test_is_linear_and_nothing_else() -> None:
    decoder = LinearDecoder(VIT, 3, num_maps=None)
    assert sum(p.numel() for p in decoder.parameters()) == 15 * 3 + 3
    assert LinearDecoder.one_scale_neck is None


def test_more_maps_than_there_are_are_refused() -> None:
    with pytest.raises(ConfigError, match="from 1 to 3"):
        LinearDecoder(INFO, 3, num_maps=4)
