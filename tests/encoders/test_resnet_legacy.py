from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_vision.config import compose
from lightning_vision.encoders.resnet_legacy import PRETRAINED, ResNetLegacy
from lightning_vision.errors import ConfigError

NARROW = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}


def test_the_documented_options_and_default() -> None:
    assert compose(["encoder=resnet_legacy"]).encoder.model_variant == "50"
    for variant in ("18", "34", "50", "101", "152"):
        compose(["encoder=resnet_legacy", f"encoder.model_variant={variant}"])
    with pytest.raises(ConfigError, match="one of 18, 34, 50, 101, 152"):
        compose(["encoder=resnet_legacy", "encoder.model_variant=20"])


def test_the_variants_with_weights_are_timms() -> None:
    having = {n.partition(".")[0] for n in timm.list_models("resnetv2_*", pretrained=True)}
    assert {v for v in ("18", "34", "50", "101", "152") if f"resnetv2_{v}" in having} == set(PRETRAINED)


def test_no_weights_of_a_depth_are_no_random_weights() -> None:
    with pytest.raises(ConfigError) as caught:
        ResNetLegacy("152")
    assert "There are no pretrained weights of this depth" in str(caught.value)
    assert "encoder.use_pretrained=false" in caught.value.overrides


def test_blocks_normalise_before_they_convolve() -> None:
    encoder = ResNetLegacy("18", NARROW, use_pretrained=False)
    order: list[str] = []
    for name, module in encoder.model.stages[1].blocks[0].named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    encoder.eval().embed(torch.randn(1, 3, 64, 64))
    assert order == ["norm1", "downsample.conv", "conv1", "norm2", "conv2"]


def test_local_weights_are_timms(tmp_path: Path) -> None:
    plain = timm.create_model("resnetv2_18", pretrained=False).eval()
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = ResNetLegacy(18, weights=str(tmp_path), keep_head=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(encoder.classify(x), plain(x))
    assert len(encoder.head_classes) == 1000


def test_the_successor_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ResNetLegacy("18", NARROW, use_pretrained=False)
    assert "use encoder=resnet" in caplog.text
