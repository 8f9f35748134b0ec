"""Any encoder with any decoder: every pair of files in conf/, built as a run builds it, forward and backward."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lightning_vision.config import conf_dir
from lightning_vision.decoders.base import Decoder
from lightning_vision.encoders.base import Encoder
from lightning_vision.necks.pyramid import PyramidNeck
from lightning_vision.testing.conformance import check_encoder

# What makes an encoder small and keeps it off the network. One that is not listed is built as it is written.
SMALL: dict[str, list[dict[str, Any]]] = {
    "resnet": [{"model_variant": "18"}],
    "unet": [{"base_channels": 4}],
    "timm": [{"model_name": n} for n in ("test_resnet", "test_convnext", "test_vit")],
    "dinov2": [
        {"model_config": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 70}}
    ],
}
# Parameters that are part of the published weights, but of no output.
UNUSED = ("mask_token",)
NUM_CLASSES = 3


def options(group: str) -> list[str]:
    return sorted(f.stem for f in (conf_dir() / group).glob("*.yaml"))


ENCODERS = [
    pytest.param(name, i, id=f"{name}{i or ''}")
    for name in options("encoder")
    for i in range(len(SMALL.get(name, "1")))
]


def build(group: str, name: str, **changes: Any) -> nn.Module:
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml"))
    assert isinstance(node, dict)
    module, _, attribute = node.pop("_target_").rpartition(".")
    if "use_pretrained" in node:
        changes = {"use_pretrained": False, **changes}
    part = getattr(importlib.import_module(module), attribute)(**{**node, **changes})
    assert isinstance(part, nn.Module)
    return part


def build_encoder(name: str, variant: int, **changes: Any) -> Encoder:
    small = SMALL[name][variant] if name in SMALL else {}
    encoder = build("encoder", name, **{**small, **changes})
    assert isinstance(encoder, Encoder)
    return encoder


@cache
def shared_encoder(name: str, variant: int) -> Encoder:
    """One encoder for all decoders, in eval mode, so that tests do not change it for each other."""
    torch.manual_seed(0)
    return build_encoder(name, variant).eval()


def logits_of(encoder: Encoder, neck: PyramidNeck | None, decoder: Decoder, image: Tensor) -> Tensor:
    size = (image.shape[-2], image.shape[-1])
    if decoder.consumes == "embedding":
        return decoder(encoder.embed(image), size)
    maps = encoder.pyramid(image)
    return decoder(maps if neck is None else neck(maps, size), size)


@pytest.mark.parametrize("decoder_name", options("decoder"))
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_goes_with_every_decoder(encoder_name: str, variant: int, decoder_name: str) -> None:
    encoder = shared_encoder(encoder_name, variant)
    neck = PyramidNeck(encoder.info) if encoder.info.one_scale else None
    info = encoder.info if neck is None else neck.info
    decoder = build("decoder", decoder_name, info=info, num_classes=NUM_CLASSES)
    assert isinstance(decoder, Decoder)
    for size in ((64, 64), (95, 127)):
        logits = logits_of(encoder, neck, decoder, torch.randn(2, 3, *size))
        expected = (2, NUM_CLASSES) if decoder.output == "label" else (2, NUM_CLASSES, *size)
        assert logits.shape == expected
        logits.square().sum().backward()
        for name, parameter in decoder.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name} of the decoder"
        assert any(p.grad is not None and p.grad.any() for p in encoder.parameters()), "no gradient reaches the encoder"
        encoder.zero_grad(set_to_none=True)


@pytest.mark.parametrize("num_channels", [1, 4])
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_takes_grey_and_alpha_at_a_common_size(
    encoder_name: str, variant: int, num_channels: int
) -> None:
    encoder = build_encoder(encoder_name, variant, num_channels=num_channels).eval()
    assert len(encoder.pixel_stats.mean) == num_channels
    image = torch.randn(1, num_channels, 190, 254)
    with torch.no_grad():
        maps = encoder.pyramid(image)
        assert encoder.embed(image).shape == (1, encoder.info.embed_dim)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, -(-190 // s), -(-254 // s)) for c, s in zip(encoder.info.channels, encoder.info.strides, strict=True)
    ]


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_keeps_the_contract(encoder_name: str, variant: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(encoder_name, variant)

    def rebuild(**changes: Any) -> Encoder:
        return build_encoder(encoder_name, variant, **changes)

    check_encoder(encoder, rebuild, unused=UNUSED)


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_can_be_skipped(encoder_name: str, variant: int) -> None:
    encoder = build_encoder(encoder_name, variant, skip=True, num_channels=2)
    image = torch.rand(2, 2, 5, 7)
    assert list(encoder.parameters()) == []
    assert torch.equal(encoder.pyramid(image)[0], image)
    assert torch.allclose(encoder.embed(image), image.mean((2, 3)))
