"""Which encoder goes with which decoder into ONNX and torch.export, for which sizes, and how exactly.

    python -m tests.benchmarks export                  a representative dozen, small
    python -m tests.benchmarks export full             the same in the sizes of their default variants
    python -m tests.benchmarks export resnet:unet      pairs by name

Weights are random. Differences are the largest of all outputs at several sizes and numbers of images, relative to the
largest value where that is above 1. A few minutes; with ``full`` half an hour.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import lightning_vision as lv
from lightning_vision.errors import ConfigError
from lightning_vision.inference.agreement import Images
from lightning_vision.inference.export import export_graphs

TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 64}
NARROW = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}
# What makes an encoder small and keeps it off the network.
SMALL: dict[str, dict[str, Any]] = {
    "stacked_cnn": {"out_channels": 8},
    "mobilenetv2": {},
    "resnet": {"model_variant": "18"},
    "convnext": {"model_variant": "tiny"},
    "convnextv2": {"model_name": "convnextv2_atto", "model_kwargs": NARROW},
    "swin_transformer": {},
    "vit": {"model_variant": "b_32"},
    "timm": {"model_name": "test_vit"},
    "dinov2": {"model_config": {**TINY_VIT, "image_size": 70}},
    "mit": {
        "model_config": {
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 16, 16],
            "num_attention_heads": [1, 1, 2, 2],
        }
    },
    "mlp_mixer": {"patch_size": 8, "embed_size": 16, "token_size": 16, "channel_dim": 16, "num_layers": 4},
    "efficientnet": {},
    "unet": {"base_channels": 4},
    "clip": {"model_config": {**TINY_VIT, "intermediate_size": 32, "patch_size": 16}},
}
# Every encoder with a mask and with a label, a score or an embedding; every decoder.
PAIRS = (
    *("stacked_cnn:unet", "stacked_cnn:classifier", "mobilenetv2:deeplabv3plus", "mobilenetv2:classifier"),
    *("resnet:fpn", "resnet:projector", "convnext:upernet", "convnext:classifier"),
    *("convnextv2:segformer", "convnextv2:anomaly", "swin_transformer:upernet", "swin_transformer:classifier"),
    *("vit:dpt", "vit:classifier", "timm:linear", "timm:classifier", "dinov2:unet", "dinov2:classifier"),
    *("mit:segformer", "mit:classifier", "mlp_mixer:unet", "mlp_mixer:classifier"),
    *("efficientnet:unet", "efficientnet:classifier", "unet:linear", "clip:fpn", "clip:anomaly"),
)


def build(encoder: str, decoder: str, small: bool = True, size: int = 64) -> Any:
    """A model of the sample data, with random weights; its BatchNorm has seen some images."""
    changes = dict(SMALL[encoder]) if small else {"model_config": {}} if "model_config" in SMALL[encoder] else {}
    if encoder not in ("stacked_cnn", "mlp_mixer", "unet"):
        changes["use_pretrained"] = False
    overrides = {f"encoder.{key}": value for key, value in changes.items()}
    dense = decoder not in ("classifier", "projector", "anomaly")
    task = {"projector": "embedding", "anomaly": "anomaly"}.get(decoder, "segmentation" if dense else "classification")
    more = {"decoder.normal_class": "circle"} if decoder == "anomaly" else {}
    words = [f"encoder={encoder}", f"decoder={decoder}", f"task={task}", f"image_size={size}", "data.num_images=60"]
    words += ["augmentation=views"] if decoder == "projector" else []
    module, data = lv.build(words, overrides=overrides | more)
    torch.manual_seed(0)
    pixels = data.batch(data.index.rows("test"))["image"]
    with torch.no_grad():
        for _ in range(3):
            module.train().outputs(pixels)
        for parameter in module.decoder.parameters():  # so that the outputs differ from image to image
            parameter.add_(0.03 * torch.randn_like(parameter))
    return module.eval(), pixels


def main(words: list[str]) -> int:
    small = "full" not in words
    pairs = [word for word in words if ":" in word] or list(PAIRS)
    table = Table("pair", "format", "sizes", "largest difference", "seconds CPU")
    failed = 0
    for pair in pairs:
        encoder, decoder = pair.split(":")
        module, pixels = build(encoder, decoder, small, 64 if small else 224)
        for name in ("torch", "onnx"):
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    found = export_graphs(module, Path(folder), [name], Images(pixels, "sample images"))[name]
                    row = [found.allowed.sizes, f"{found.largest:.1e}"]
                    if found.reasons:
                        print(f"{pair} {name}: {next(iter(found.reasons.values()))}", file=sys.stderr, flush=True)
                except ConfigError as error:
                    failed += 1
                    row = ["-", str(error.given)[:200]]
            table.add_row(pair, name, *row, f"{time.process_time() - start:.1f}")
            print(pair, name, *row, f"{time.process_time() - start:.1f} s", flush=True)
    Console(width=120).print(table)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
