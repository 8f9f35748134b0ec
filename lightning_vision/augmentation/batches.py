"""Random changes of whole batches: every transform in its order, and several views of each sample."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_vision.types import Batch


def augmented(
    batch: Batch, transforms: Iterable[nn.Module], generator: torch.Generator, views: int = 1, num_inputs: int = 1
) -> Batch:
    """Return a batch with random changes.

    Args:
        batch: Images with their targets.
        transforms: Called with images, target and generator, in their order. One that says ``each_input`` gets every
            image of a sample by itself.
        generator: Source of the draws.
        views: How often each sample is changed; its views lie behind each other. With more than one, samples that could
            not be read are left out: black images are all alike.
        num_inputs: Images of a sample, along the channels.
    """
    changed = dict(batch)
    if views > 1:
        if "blank" in batch:
            changed = {key: _taken(value, ~batch["blank"]) for key, value in changed.items()}
        changed = {key: _repeated(value, views) for key, value in changed.items()}
    image, target = cast(Tensor, changed["image"]), cast("Tensor | None", changed.get("target"))
    for transform in transforms:
        if num_inputs > 1 and getattr(transform, "each_input", False):
            apart = image.unflatten(1, (num_inputs, -1)).flatten(0, 1)
            image = transform(apart, None, generator)[0].unflatten(0, (-1, num_inputs)).flatten(1, 2)
        else:
            image, target = transform(image, target, generator)
    changed["image"] = image
    if target is not None:
        changed["target"] = target
    return cast(Batch, changed)


def _taken(value: Any, rows: Tensor) -> Any:
    """Some samples of a tensor, or of every tensor of a dict."""
    return {key: _taken(part, rows) for key, part in value.items()} if isinstance(value, dict) else value[rows]


def _repeated(value: Any, times: int) -> Any:
    """Each sample of a tensor, or of every tensor of a dict, ``times`` times in a row."""
    if isinstance(value, dict):
        return {key: _repeated(part, times) for key, part in value.items()}
    return value.repeat_interleave(times, 0)
