"""Any encoder with any decoder: every pair of files in conf/, built as a run builds it, forward and backward."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from lightning_vision.assembly import neck_of
from lightning_vision.config import conf_dir
from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.zero_shot import ZeroShotDecoder
from lightning_vision.encoders.base import Encoder
from lightning_vision.errors import ConfigError
from lightning_vision.pairing import keeps_head
from lightning_vision.signatures import class_constants
from lightning_vision.testing import conformance
from lightning_vision.testing.conformance import check_encoder
from lightning_vision.types import FeatureInfo

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
NARROW = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}
# What makes an encoder small and keeps it off the network. One that is not listed is built as it is written.
SMALL: dict[str, list[dict[str, Any]]] = {
    "convnext": [{"model_variant": "tiny"}],
    "regnet": [{"model_variant": "y_400mf"}],
    "resnet": [{"model_variant": "18"}],
    "squeezenet": [{"model_variant": v} for v in ("1_0", "1_1")],
    "vit": [{"model_variant": "b_32"}],
    "unet": [{"base_channels": 4}],
    "inception_v2": [{"depth_multiplier": 0.05}],
    "timm": [{"model_name": n} for n in ("test_resnet", "test_convnext", "test_vit")],
    "convnextv2": [{"model_name": "convnextv2_atto", "model_kwargs": NARROW}],
    "caformer": [{"model_kwargs": NARROW}],
    "convformer": [{"model_kwargs": NARROW}],
    "poolformer": [{"model_kwargs": NARROW}],
    "resnet_legacy": [{"model_variant": "18", "model_kwargs": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}}],
    "mlp_mixer": [
        {"patch_size": 8, "embed_size": 16, "token_size": 16, "channel_dim": 16, "num_layers": 4, "image_size": 64}
    ],
    "custom": [
        {"module": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 4, "stride": 4}}
    ],
    "clip": [{"model_config": {**TINY_VIT, "intermediate_size": 32, "patch_size": 16}}],
    "dinov2": [{"model_config": {**TINY_VIT, "image_size": 70, "num_labels": 3}}],
    "dinov3": [
        {"model_config": {**TINY_VIT, "intermediate_size": 32, "num_register_tokens": 4}},
        {"model_config": {"model_type": "dinov3_convnext", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 16]}},
    ],
    "huggingface": [
        {
            "model_config": {
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 16, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "num_labels": 3,
            }
        },
        {"model_config": {"model_type": "beit", **TINY_VIT, "intermediate_size": 32, "num_labels": 3}},
    ],
    "mit": [
        {
            "model_config": {
                "depths": [1, 1, 1, 1],
                "hidden_sizes": [8, 8, 16, 16],
                "num_attention_heads": [1, 1, 2, 2],
                "drop_path_rate": 0.0,
                "num_labels": 3,
            }
        }
    ],
    "siglip": [{"model_config": {**TINY_VIT, "intermediate_size": 32}}],
    "siglip2": [{"model_config": {**TINY_VIT, "intermediate_size": 32, "patch_size": 32}}],
    "vit_legacy": [{"model_config": {**TINY_VIT, "intermediate_size": 32, "num_labels": 3}}],
}
# Parameters that are part of the published weights, but of no output.
UNUSED = ("mask_token",)
NUM_CLASSES = 3
CHANNELS = (1, 3, 4)
# A round one, and one that neither 14 nor 32 divides.
SIZES = ((64, 64), (95, 127))


def options(group: str) -> list[str]:
    return sorted(f.stem for f in (conf_dir() / group).glob("*.yaml"))


ENCODERS = [
    pytest.param(name, i, id=f"{name}{i or ''}")
    for name in options("encoder")
    for i in range(len(SMALL.get(name, "1")))
]


def target_of(group: str, name: str) -> str:
    return str(OmegaConf.load(conf_dir() / group / f"{name}.yaml")["_target_"])


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


def logits_of(encoder: Encoder, neck: nn.Module | None, decoder: Decoder, image: Tensor) -> Tensor:
    size = (image.shape[-2], image.shape[-1])
    if decoder.consumes == "logits":
        return decoder(encoder.classify(image), size)
    if decoder.consumes == "embedding":
        return decoder(encoder.embed(image), size)
    maps = encoder.pyramid(image)
    return decoder(maps if neck is None else neck(maps, size), size)


def check_pair(encoder: Encoder, decoder_name: str, size: tuple[int, int]) -> None:
    """Forward and backward through an encoder and a decoder, with the neck that a run would put between them."""
    torch.manual_seed(0)
    constants = class_constants(target_of("decoder", decoder_name))
    name = neck_of(constants, encoder.info)
    neck = None if name is None else build("neck", name, info=encoder.info)
    info = encoder.info if neck is None else neck.info
    assert isinstance(info, FeatureInfo)
    decoder = build("decoder", decoder_name, info=info, num_classes=NUM_CLASSES)
    assert isinstance(decoder, Decoder)
    if isinstance(decoder, ZeroShotDecoder):
        # The texts of a tower; the towers themselves are tried in encoders/.
        decoder.text = nn.functional.normalize(torch.randn_like(decoder.text), dim=-1)
    size = (max(size[0], encoder.min_size[0]), max(size[1], encoder.min_size[1]))
    logits = logits_of(encoder, neck, decoder, torch.randn(2, encoder.num_channels, *size))
    classes = NUM_CLASSES
    shapes = {"label": (2, classes), "mask": (2, classes, *size), "score": (2,), "embedding": (2, logits.shape[-1])}
    assert logits.shape == shapes[decoder.output]
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name} of the decoder"
    assert any(p.grad is not None and p.grad.any() for p in encoder.parameters()), "no gradient reaches the encoder"
    encoder.zero_grad(set_to_none=True)


def check_row(encoder_name: str, variant: int, combinations: list[tuple[str, int, tuple[int, int]]]) -> None:
    """Check one encoder with decoders, channels and sizes; tell all that fail."""
    own_head = keeps_head({"_target_": target_of("encoder", encoder_name)})
    encoders: dict[tuple[int, bool], Encoder] = {}
    failed = []
    for decoder_name, channels, size in combinations:
        wants_head = class_constants(target_of("decoder", decoder_name))["consumes"] == "logits"
        key = (channels, wants_head and own_head)
        if key not in encoders:
            torch.manual_seed(0)
            head = {"keep_head": True} if key[1] else {}
            encoders[key] = build_encoder(encoder_name, variant, num_channels=channels, **head).eval()
        encoder = encoders[key]
        try:
            if wants_head and not encoder.head_classes:
                # Weights without a classifier: said by name, before anything is trained.
                with pytest.raises(ConfigError, match="classifier"):
                    encoder.classify(torch.randn(1, channels, *size))
            else:
                check_pair(encoder, decoder_name, size)
        except (AssertionError, RuntimeError, ValueError) as error:
            failed.append(f"{decoder_name}, {channels} channels, {size}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_goes_with_every_decoder(encoder_name: str, variant: int) -> None:
    """Each pair once; sizes and channels take turns, so that each of them meets each encoder and each decoder."""
    turn = options("encoder").index(encoder_name) + variant
    check_row(
        encoder_name,
        variant,
        [
            (name, CHANNELS[(turn + i) % len(CHANNELS)], SIZES[(turn + i // len(CHANNELS)) % len(SIZES)])
            for i, name in enumerate(options("decoder"))
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_the_full_product(encoder_name: str, variant: int) -> None:
    check_row(encoder_name, variant, list(itertools.product(options("decoder"), CHANNELS, SIZES)))


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

    sizes = [tuple(map(max, size, encoder.min_size)) for size in conformance.SIZES]
    check_encoder(encoder, rebuild, sizes, UNUSED)


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_can_be_skipped(encoder_name: str, variant: int) -> None:
    encoder = build_encoder(encoder_name, variant, skip=True, num_channels=2)
    image = torch.rand(2, 2, 5, 7)
    assert list(encoder.parameters()) == []
    assert torch.equal(encoder.pyramid(image)[0], image)
    assert torch.allclose(encoder.embed(image), image.mean((2, 3)))
