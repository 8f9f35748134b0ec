from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.config import compose
from lightning_vision.encoders.unet import UNetEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder


def test_the_default_is_the_paper() -> None:
    with torch.device("meta"):
        encoder = UNetEncoder()
    assert encoder.info.channels == (64, 128, 256, 512, 1024)
    assert encoder.info.strides == (1, 2, 4, 8, 16)
    assert encoder.info.embed_dim == 1024


def double_convolution(level: Any, x: Tensor, norm: bool) -> Tensor:
    for conv in (m for m in level if isinstance(m, nn.Conv2d)):
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        x = F.relu(F.batch_norm(x, None, None, training=True) if norm else x)
    return x


@pytest.mark.parametrize("conv_norm", ["batch", None])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_each_level_is_two_convolutions_behind_a_pooling(conv_norm: Any, depth: int) -> None:
    torch.manual_seed(0)
    encoder = UNetEncoder(conv_norm, base_channels=3, depth=depth)
    x = torch.randn(2, 3, 64, 96)
    maps = encoder.pyramid(x)
    assert len(maps) == depth + 1
    for i, (level, found) in enumerate(zip(encoder.levels, maps, strict=True)):
        x = double_convolution(level, F.max_pool2d(x, 2) if i else x, conv_norm == "batch")
        torch.testing.assert_close(found, x)
    assert torch.equal(encoder.embed(torch.zeros(1, 3, 64, 64)), torch.zeros(1, 3 * 2**depth))


@pytest.mark.parametrize("conv_norm", ["batch", None])
@pytest.mark.parametrize("depth", [1, 3])
def test_keeps_the_contract(conv_norm: Any, depth: int) -> None:
    torch.manual_seed(0)

    def build(**changes: Any) -> UNetEncoder:
        return UNetEncoder(**{"conv_norm": conv_norm, "base_channels": 4, "depth": depth, **changes})

    check_encoder(build(), build)


EFFECTS: dict[str, Any] = {"conv_norm": None, "base_channels": 5, "depth": 2}


@pytest.mark.parametrize("name", EFFECTS)
def test_every_setting_has_an_effect(name: str) -> None:
    x = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    outputs = []
    for change in ({}, {name: EFFECTS[name]}):
        torch.manual_seed(0)
        outputs.append(UNetEncoder(**{"base_channels": 4, "depth": 3, **change}).train().embed(x))
    assert outputs[0].shape != outputs[1].shape or not torch.allclose(outputs[0], outputs[1])


def test_every_setting_is_tried() -> None:
    common = {"num_channels", "trainable", "skip", "adapter"}
    assert set(EFFECTS) == set(inspect.signature(UNetEncoder).parameters) - common


def test_the_documented_defaults_and_options() -> None:
    encoder = compose(["encoder=unet"]).encoder
    assert (encoder.conv_norm, encoder.skip, encoder.adapter) == ("batch", False, None)
    assert compose(["encoder=unet", "encoder.conv_norm=null"]).encoder.conv_norm is None
    with pytest.raises(ConfigError, match="one of batch or null"):
        compose(["encoder=unet", "encoder.conv_norm=layer"])
