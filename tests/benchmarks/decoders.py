"""Every dense decoder beside segmentation_models.pytorch's: CPU time of a forward and backward pass, and parameters.

Both get the same feature maps of 256 x 256 images, batch 4, as the encoder gives them, have the same widths and
settings, and return logits of 21 classes at full size. One thread, in turns, ratio of medians. About 5 minutes.
SegFormer and UPerNet differ a little: theirs takes the map of stride 2 as well, or normalises the encoder's maps first.

    OMP_NUM_THREADS=1 python tests/benchmarks/decoders.py [name of a decoder ...]

Needs ``pip install --no-deps segmentation-models-pytorch``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import segmentation_models_pytorch as smp
import torch
from _table import Figure, cpu_seconds, measure
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.deeplabv3plus import DeepLabV3PlusDecoder
from lightning_vision.decoders.dpt import DPTDecoder
from lightning_vision.decoders.fpn import FPNDecoder
from lightning_vision.decoders.segformer import SegFormerDecoder
from lightning_vision.decoders.unet import UNetDecoder
from lightning_vision.decoders.upernet import UPerNetDecoder
from lightning_vision.necks.reassemble import ReassembleNeck
from lightning_vision.types import FeatureInfo

BATCH, SIZE, CLASSES = 4, 256, 21
# Channels at strides 1, 2, 4, ...; 0: no map of this stride.
ENCODERS = {"resnet18": (3, 64, 64, 128, 256, 512), "convnext_atto": (3, 0, 40, 80, 160, 320)}
VIT = "vit_tiny_patch16_224"


def maps(channels: Sequence[int], strides: Sequence[int]) -> list[Tensor]:
    return [
        torch.randn(BATCH, c, SIZE // s, SIZE // s, requires_grad=c > 0) for c, s in zip(channels, strides, strict=True)
    ]


def step(forward: Callable[[], Tensor]) -> Callable[[], float]:
    def work() -> None:
        forward().mean().backward()

    return lambda: cpu_seconds(work)


def count(*modules: nn.Module) -> float:
    return float(sum(p.numel() for m in modules for p in m.parameters()))


def pair(
    name: str, target: float, ours: Decoder, neck: nn.Module | None, theirs: nn.Module, features: list[Tensor]
) -> list[Figure]:
    """The figures of one decoder; ours takes those maps that have channels."""
    mine = [x for x in features if x.shape[1] > 3]
    size = (SIZE, SIZE)

    def forward() -> Tensor:
        return ours(mine if neck is None else neck(mine, size), size)

    def peer() -> Tensor:
        logits: Tensor = theirs.segmentation_head(theirs.decoder(list(features), *extra))
        return logits

    extra = [[None] * len(features)] if neck is not None else []
    assert forward().shape == peer().shape == (BATCH, CLASSES, *size)
    parameters = count(ours, *([] if neck is None else [neck])), count(theirs.decoder, theirs.segmentation_head)
    return [
        Figure(name, step(forward), step(peer), target),
        Figure("  parameters", lambda: parameters[0], lambda: parameters[1], 1.0, unit=""),
    ]


def of_pyramids(encoder: str, wanted: Callable[[str], bool]) -> list[Figure]:
    channels = ENCODERS[encoder]
    strides = [2**i for i in range(6)]
    held = [(c, s) for c, s in zip(channels, strides, strict=True) if c > 3]
    info = FeatureInfo(tuple(c for c, _ in held), tuple(s for _, s in held), channels[-1])
    # DeepLabV3+ of segmentation_models.pytorch has the encoder's last stage dilated.
    dilated = FeatureInfo(info.channels, (*info.strides[:-1], info.strides[-2]), info.embed_dim)
    common = {"encoder_name": f"tu-{encoder}", "encoder_weights": None, "classes": CLASSES}
    made: list[tuple[str, float, Callable[[], Decoder], Callable[[], nn.Module]]] = [
        (
            "unet, nearest",
            0.85,
            lambda: UNetDecoder(info, CLASSES, num_stages=5, upsample_mode="nearest"),
            lambda: smp.Unet(**common),
        ),
        # Each as it comes: ours upsamples bilinearly, theirs does not.
        ("unet, default", 1.0, lambda: UNetDecoder(info, CLASSES, num_stages=5), lambda: smp.Unet(**common)),
        ("segformer", 1.0, lambda: SegFormerDecoder(info, CLASSES, dropout=0), lambda: smp.Segformer(**common)),
        ("fpn", 1.0, lambda: FPNDecoder(info, CLASSES), lambda: smp.FPN(**common, decoder_dropout=0)),
        ("upernet", 1.0, lambda: UPerNetDecoder(info, CLASSES, dropout=0), lambda: smp.UPerNet(**common)),
        (
            "deeplabv3plus",
            1.0,
            lambda: DeepLabV3PlusDecoder(dilated, CLASSES, dropout=0),
            lambda: smp.DeepLabV3Plus(**common, decoder_atrous_rates=(6, 12, 18), decoder_aspp_dropout=0),
        ),
    ]
    figures = []
    for name, target, ours, theirs in made:
        if wanted(name.split(",")[0]):
            end = 16 if name == "deeplabv3plus" else 32
            features = maps(channels, [*strides[:-1], end])
            figures += pair(f"{name}, {encoder}", target, ours(), None, theirs(), features)
    return figures


def of_vits() -> list[Figure]:
    theirs = smp.DPT(
        f"tu-{VIT}",
        encoder_weights=None,
        classes=CLASSES,
        decoder_readout="ignore",
        decoder_intermediate_channels=(96, 192, 384, 768),
    )
    info = FeatureInfo((192,) * 4, (16,) * 4, 192)
    neck = ReassembleNeck(info, [96, 192, 384, 768])
    features = maps(info.channels, info.strides)
    return pair("dpt, vit_tiny", 1.0, DPTDecoder(neck.info, CLASSES, dropout=0), neck, theirs, features)


def main(names: Sequence[str]) -> int:
    torch.manual_seed(0)
    torch.set_num_threads(1)

    def wanted(name: str) -> bool:
        return not names or name in names

    figures = [figure for encoder in ENCODERS for figure in of_pyramids(encoder, wanted)]
    if wanted("dpt"):
        figures += of_vits()
    return 0 if measure(figures, repeats=5) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
