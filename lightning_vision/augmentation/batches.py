"""Random changes of whole batches: every transform in its order, mixing with its targets, several views of a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_vision.augmentation.mixing import Mix, mix_target
from lightning_vision.types import Batch, TargetSpec


def augmented(
    batch: Batch,
    transforms: Iterable[nn.Module],
    generator: torch.Generator,
    views: int = 1,
    num_inputs: int = 1,
    specs: Mapping[str | None, TargetSpec] | None = None,
) -> Batch:
    """Return a batch with random changes, the same ones in whatever precision the model computes.

    Args:
        batch: Images with their targets.
        transforms: Called with images, target and generator, in their order. One that says ``each_input`` gets every
            image of a sample by itself. One that says ``mixes`` makes each image of two: its ``mix`` is called with
            images and generator, and all targets of the batch are mixed as the images were.
        generator: Source of the draws.
        views: How often each sample is changed; its views lie behind each other. With more than one, samples that could
            not be read are left out: black images are all alike.
        num_inputs: Images of a sample, along the channels.
        specs: What the targets are, for transforms that mix: of ``targets`` by name, of ``target`` under None.
    """
    changed = dict(batch)
    if views > 1:
        if "blank" in batch:
            changed = {key: _taken(value, ~batch["blank"]) for key, value in changed.items()}
        changed = {key: _repeated(value, views) for key, value in changed.items()}
    image, target = cast(Tensor, changed["image"]), cast("Tensor | None", changed.get("target"))
    with _float32(image.device):
        for transform in transforms:
            if getattr(transform, "mixes", False):
                image, mix = cast(Any, transform).mix(image, generator)
                mix = mix.to(image.device)
                target = None if target is None else mix_target(target, mix, _spec(specs, None))
                if "targets" in changed:
                    changed["targets"] = _mixed(cast("dict[str, Tensor]", changed["targets"]), mix, specs)
            elif num_inputs > 1 and getattr(transform, "each_input", False):
                apart = image.unflatten(1, (num_inputs, -1)).flatten(0, 1)
                image = transform(apart, None, generator)[0].unflatten(0, (-1, num_inputs)).flatten(1, 2)
            else:
                image, target = transform(image, target, generator)
    changed["image"] = image
    if target is not None:
        changed["target"] = target
    return cast(Batch, changed)


@contextmanager
def _float32(device: torch.device) -> Iterator[None]:
    """New tensors are float32 and nothing is cast: bfloat16 does not hold the places of pixels, nor their values."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)


def _mixed(targets: dict[str, Tensor], mix: Mix, specs: Mapping[str | None, TargetSpec] | None) -> dict[str, Tensor]:
    return {name: mix_target(target, mix, _spec(specs, name)) for name, target in targets.items()}


def _spec(specs: Mapping[str | None, TargetSpec] | None, name: str | None) -> TargetSpec:
    if specs is None or name not in specs:
        raise ValueError(f"to mix the target {name or 'target'}, it must be known what it is")
    return specs[name]


def _taken(value: Any, rows: Tensor) -> Any:
    """Some samples of a tensor, or of every tensor of a dict."""
    return {key: _taken(part, rows) for key, part in value.items()} if isinstance(value, dict) else value[rows]


def _repeated(value: Any, times: int) -> Any:
    """Each sample of a tensor, or of every tensor of a dict, ``times`` times in a row."""
    if isinstance(value, dict):
        return {key: _repeated(part, times) for key, part in value.items()}
    return value.repeat_interleave(times, 0)
