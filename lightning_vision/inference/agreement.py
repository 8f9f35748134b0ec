"""Whether an exported model gives what the checkpoint gives, on real images, at several sizes and numbers of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.assembly import build_data
from lightning_vision.config import instantiate
from lightning_vision.data.index import SampleIndex
from lightning_vision.errors import VisionError
from lightning_vision.inference.exported import ExportedModel
from lightning_vision.inference.graph import Allowed
from lightning_vision.module import VisionModule
from lightning_vision.reading import read_index

MOST_IMAGES = 20
TOLERANCE = 1e-4
# Numbers of images at once.
BATCHES = (1, 3)

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Images:
    """What models are compared on.

    Args:
        pixels: ``(N, C, H, W)`` uint8.
        origin: Where they are from.
        counts: Rows of each split of the data, if they were at hand.
    """

    pixels: Tensor
    origin: str
    counts: Mapping[str, int] | None = None


def images_of(module: VisionModule) -> Images:
    """Up to 20 images of the data that a model was trained on, not of its training split if there are others.

    Random ones where the data are not at hand; ``origin`` says why.
    """
    config = module.config
    try:
        index: SampleIndex = read_index(config, strict=False)
        rows = next((found for s in ("test", "val", "train") if len(found := index.rows(s))), np.arange(len(index)))
        rows = rows[np.linspace(0, len(rows) - 1, min(MOST_IMAGES, len(rows))).astype(np.int64)]
        data = build_data(index, module.geometry, instantiate(config["preprocessing"]), config)
        pixels = data.batch(rows)["image"]
        data.teardown()
        return Images(pixels, f"{len(pixels)} images of {index.origin}", {str(s): n for s, n in index.counts().items()})
    except (VisionError, OSError) as error:
        generator = torch.Generator().manual_seed(0)
        shape = (MOST_IMAGES, *module.geometry.shape)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        why = str(error).splitlines()[0]
        return Images(pixels, f"{MOST_IMAGES} random images, because the data are not at hand: {why}")


def differences(exported: ExportedModel, run: Run, images: Images, allowed: Allowed) -> dict[str, float]:
    """The largest difference of each output from the checkpoint, relative to the largest value where that is above 1.

    Args:
        exported: The model itself.
        run: The exported model.
        images: What both are given.
        allowed: The sizes to try.
    """
    largest = dict.fromkeys(exported.names, 0.0)
    for number, size in enumerate(allowed.trials()):
        pixels = _at(images.pixels, size)
        # All images at the first size, few at the others.
        parts = [pixels[:1], pixels[1:4], pixels[4:]] if number == 0 else [pixels[: BATCHES[number % 2]]]
        for part in parts:
            if not len(part):
                continue
            with torch.no_grad():
                wanted = exported(part)
            for name, one, other in zip(exported.names, wanted, run(part), strict=True):
                largest[name] = max(largest[name], _difference(one, other))
    return largest


def _at(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    scaled = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def _difference(wanted: Tensor, found: Any) -> float:
    if wanted.shape != found.shape:
        raise ValueError(f"the exported model returns {tuple(found.shape)} in place of {tuple(wanted.shape)}")
    difference = (wanted - found).abs().max().item() / max(1.0, wanted.abs().max().item())
    return math.inf if math.isnan(difference) else difference
