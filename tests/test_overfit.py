"""Every decoder can learn: with a tiny encoder it drives the loss of one fixed batch of four images close to zero.

What cannot fit four images has a broken gradient, a map that is moved against the image, or a wrong loss.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from lightning_vision.config import conf_dir, instantiate
from lightning_vision.decoders.base import Decoder
from lightning_vision.signatures import class_constants
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.encoders import TinyEncoder

# All but those that have nothing to learn: they live on pretrained weights.
DECODERS = sorted(
    f.stem
    for f in (conf_dir() / "decoder").glob("*.yaml")
    if not class_constants(str(OmegaConf.load(f)["_target_"]))["ready"]
)
# Nothing is dropped, no map is left out, and no more channels than four images need.
FITTING: dict[str, Any] = {"dropout": 0.0, "num_maps": None, "num_channels": 64, "hidden_size": 64}
COUNT, SIDE, VOID = 4, 64, 255
MOST_STEPS, FEWEST_STEPS = 800, 30
CLOSE_TO_ZERO = 0.015
# They join the levels from coarse to fine as FPN does, and take the longest; on discs they learn with all others.
LIKE_FPN = ("dpt", "unet", "upernet")


def crops(table: Path, ignored: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Return centre crops ``(count, 3, 64, 64)`` in [-1, 1] and their masks with ``VOID`` for what is ignored."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "train"]
    images, masks = [], []
    for i in np.linspace(0, len(rows) - 1, count).round().astype(int):
        row = rows[i]
        with Image.open(table.parent / row["image"]) as image, Image.open(table.parent / row["mask"]) as mask:
            pixels, ids = np.array(image.convert("RGB")), np.array(mask)
        # The discs are smaller than a crop: their edge is repeated.
        short = [(0, max(0, SIDE - n)) for n in ids.shape]
        pixels, ids = np.pad(pixels, [*short, (0, 0)], mode="edge"), np.pad(ids, short, mode="edge")
        top, left = ((n - SIDE) // 2 for n in ids.shape)
        window = (slice(top, top + SIDE), slice(left, left + SIDE))
        images.append(torch.from_numpy(pixels[window]).permute(2, 0, 1) / 127.5 - 1)
        masks.append(torch.from_numpy(ids[window]).long())
    target = torch.stack(masks)
    return torch.stack(images), target.masked_fill(target == ignored, VOID)


def overfit(name: str, image: Tensor, mask: Tensor) -> tuple[float, float, int]:
    """Train the decoder on one batch; return the last loss, its accuracy on what is not ignored, and the steps."""
    torch.manual_seed(0)
    encoder = TinyEncoder(width=16)
    node = OmegaConf.load(conf_dir() / "decoder" / f"{name}.yaml")
    node = {**node, **{key: value for key, value in FITTING.items() if key in node}}
    known = mask[mask != VOID]
    output = class_constants(str(node["_target_"]))["output"]
    dense, scores = output == "mask", output == "score"
    num_classes = int(known.max()) + 1 if dense else len(image)
    decoder = instantiate(node, info=encoder.info, num_classes=num_classes)
    assert isinstance(decoder, Decoder)
    # Without masks each image is a class of its own; of scores every second image is an anomaly.
    target = mask if dense else torch.arange(len(image)) % (2 if scores else len(image))
    loss_node = OmegaConf.load(conf_dir() / "loss" / f"{'deep_sad' if scores else 'softmax_cross_entropy'}.yaml")
    loss_of = instantiate(loss_node, num_classes=num_classes, class_names=None, ignore_index=VOID)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    size = (image.shape[-2], image.shape[-1])
    loss, accuracy = float("inf"), 0.0
    for step in range(MOST_STEPS):
        features = encoder.embed(image) if decoder.consumes == "embedding" else encoder.pyramid(image)
        logits = decoder(features, size)
        value = loss_of(logits, target)
        loss = value.item()
        predicted = (logits > 1).long() if scores else logits.max(1).indices
        accuracy = float((predicted == target)[target != VOID].float().mean())
        if step >= FEWEST_STEPS and loss < CLOSE_TO_ZERO:
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return loss, accuracy, step


def check(name: str, image: Tensor, mask: Tensor) -> None:
    loss, accuracy, steps = overfit(name, image, mask)
    print(f"{name}: loss {loss:.4f}, accuracy {accuracy:.4f} after {steps} steps")
    assert loss < CLOSE_TO_ZERO
    # What is left of masks are a few pixels along the edges of thin objects.
    assert accuracy > 0.99


@pytest.mark.parametrize("name", DECODERS)
def test_overfits_generated_discs(name: str, tmp_path: Path) -> None:
    image, mask = crops(write_discs(tmp_path), ignored=255)
    assert set(mask.unique().tolist()) == {0, 1, 2, VOID}
    check(name, image, mask)


@pytest.mark.real_data
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_FPN)) for n in DECODERS])
def test_overfits_crops_of_camvid(name: str, data_root: Path) -> None:
    # Two hold enough classes, and are fitted in half the time of four.
    image, mask = crops(data_root / "data" / "camvid" / "index.csv", ignored=11, count=2)
    assert mask[mask != VOID].unique().numel() >= 4
    check(name, image, mask)
