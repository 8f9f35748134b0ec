"""Any encoder with any decoder: every pair of files in conf/, built as a run builds it, forward and backward."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchvision import models

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
from lightning_vision.testing.torchvision import narrow_model
from lightning_vision.types import FeatureInfo

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
NARROW = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}
# What makes an encoder small and keeps it off the network. One that is not listed is built as it is written, but
# TorchVision's large ones with few channels: tests/encoders/test_torchvision_models.py has them in full.
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


@pytest.fixture(autouse=True)
def _narrow_models(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(models, "get_model", narrow_model)


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


class Outputs:
    """What an encoder gives: computed once for all decoders that take it, with gradients that are known to reach it."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.known: dict[tuple[str, tuple[int, int]], list[Tensor]] = {}

    def get(self, kind: str, size: tuple[int, int]) -> list[Tensor]:
        """Return the maps, the embedding or the logits of two images, cut off from the encoder, as leaves."""
        if (kind, size) not in self.known:
            method = {"logits": "classify", "embedding": "embed", "pyramid": "pyramid"}[kind]
            found = getattr(self.encoder, method)(torch.randn(2, self.encoder.num_channels, *size))
            tensors = [found] if isinstance(found, Tensor) else list(found)
            assert all(tensor.requires_grad for tensor in tensors)
            self.encoder.zero_grad(set_to_none=True)
            torch.stack([(tensor * torch.randn_like(tensor)).sum() for tensor in tensors]).sum().backward()
            reached = any(p.grad is not None and p.grad.any() for p in self.encoder.parameters())
            assert reached, "no gradient reaches the encoder"
            self.known[kind, size] = [tensor.detach() for tensor in tensors]
        return [tensor.clone().requires_grad_() for tensor in self.known[kind, size]]


def check_pair(outputs: Outputs, decoder_name: str, size: tuple[int, int]) -> None:
    """Forward and backward through an encoder and a decoder, with the neck that a run would put between them."""
    torch.manual_seed(0)
    encoder = outputs.encoder
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
    inputs = outputs.get(decoder.consumes, size)
    if decoder.consumes == "pyramid":
        logits = decoder(inputs if neck is None else neck(inputs, size), size)
    else:
        logits = decoder(inputs[0], size)
    classes = NUM_CLASSES
    shapes = {"label": (2, classes), "mask": (2, classes, *size), "score": (2,), "embedding": (2, logits.shape[-1])}
    assert logits.shape == shapes[decoder.output]
    (logits * torch.randn_like(logits)).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, f"no gradient reaches {name} of the decoder"
    assert any(t.grad is not None and t.grad.any() for t in inputs), "no gradient reaches the encoder"


def check_row(encoder_name: str, variant: int, combinations: list[tuple[str, int, tuple[int, int]]]) -> None:
    """Check one encoder with decoders, channels and sizes; tell all that fail."""
    own_head = keeps_head({"_target_": target_of("encoder", encoder_name)})
    encoders: dict[tuple[int, bool], Outputs] = {}
    failed = []
    for decoder_name, channels, size in combinations:
        wants_head = class_constants(target_of("decoder", decoder_name))["consumes"] == "logits"
        key = (channels, wants_head and own_head)
        if key not in encoders:
            torch.manual_seed(0)
            head = {"keep_head": True} if key[1] else {}
            encoders[key] = Outputs(build_encoder(encoder_name, variant, num_channels=channels, **head).eval())
        encoder = encoders[key].encoder
        try:
            if wants_head and not encoder.head_classes:
                # Weights without a classifier: said by name, before anything is trained.
                with pytest.raises(ConfigError, match="classifier"):
                    encoder.classify(torch.randn(1, channels, *size))
            else:
                check_pair(encoders[key], decoder_name, size)
        except (AssertionError, RuntimeError, ValueError) as error:
            failed.append(f"{decoder_name}, {channels} channels, {size}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_goes_with_every_decoder(encoder_name: str, variant: int) -> None:
    """Each pair once; sizes and channels take turns, so that each of them meets each encoder and each decoder.

    An encoder meets three combinations of them, and another encoder the other three.
    """
    turn = options("encoder").index(encoder_name) + variant
    check_row(
        encoder_name,
        variant,
        [(name, CHANNELS[(turn + i) % 3], SIZES[(turn // 3 + i % 3) % 2]) for i, name in enumerate(options("decoder"))],
    )


@pytest.mark.slow
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_the_full_product(encoder_name: str, variant: int) -> None:
    check_row(encoder_name, variant, list(itertools.product(options("decoder"), CHANNELS, SIZES)))


@pytest.mark.parametrize("num_channels", [1, 4])
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_takes_grey_and_alpha(encoder_name: str, variant: int, num_channels: int) -> None:
    encoder = build_encoder(encoder_name, variant, num_channels=num_channels).eval()
    assert len(encoder.pixel_stats.mean) == num_channels
    height, width = SIZES[1]
    image = torch.randn(1, num_channels, height, width)
    with torch.no_grad():
        maps = encoder.pyramid(image)
        assert encoder.embed(image).shape == (1, encoder.info.embed_dim)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, -(-height // s), -(-width // s)) for c, s in zip(encoder.info.channels, encoder.info.strides, strict=True)
    ]


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_keeps_the_contract(encoder_name: str, variant: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(encoder_name, variant)

    def rebuild(**changes: Any) -> Encoder:
        return build_encoder(encoder_name, variant, **changes)

    sizes = [tuple(map(max, size, encoder.min_size)) for size in conformance.SIZES]
    check_encoder(encoder, rebuild, sizes, UNUSED)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_keeps_the_contract_in_full(encoder_name: str, variant: int) -> None:
    """With TorchVision's large models as they are: half precision could overflow in them alone."""
    test_every_encoder_keeps_the_contract(encoder_name, variant)


@pytest.mark.parametrize(("encoder_name", "variant"), ENCODERS)
def test_every_encoder_can_be_skipped(encoder_name: str, variant: int) -> None:
    encoder = build_encoder(encoder_name, variant, skip=True, num_channels=2)
    image = torch.rand(2, 2, 5, 7)
    assert list(encoder.parameters()) == []
    assert torch.equal(encoder.pyramid(image)[0], image)
    assert torch.allclose(encoder.embed(image), image.mean((2, 3)))
