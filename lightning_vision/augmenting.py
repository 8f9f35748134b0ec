"""Build the transforms of training batches from a resolved config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import nn

from lightning_vision.config import instantiate
from lightning_vision.errors import ConfigError
from lightning_vision.outputs import OutputPlan
from lightning_vision.signatures import describe
from lightning_vision.types import Geometry

# What mask pixels become that no image pixel covers, where the data ignore nothing: a mask has a byte a pixel.
UNCOVERED = 255


def build_augmentation(
    config: Mapping[str, Any], outputs: Mapping[str, OutputPlan], geometry: Geometry
) -> tuple[list[nn.Module], int | None]:
    """Build the transforms of training batches.

    Returns:
        The transforms in their order, and the value of mask pixels that no image pixel covers once an image was moved;
        None: there are none.

    Raises:
        ConfigError: A mask pixel has no value left for that.
    """
    nodes = [node for node in (config.get("augmentation") or {}).values() if node]
    uncovered = _uncovered(nodes, outputs)
    size = (geometry.height, geometry.width)
    supplied = {"size": size, "ignored": uncovered, "num_inputs": geometry.num_inputs}
    built = [instantiate(n, nn.Module, **{k: supplied[k] for k in _injected(n)}) for n in nodes]
    return cast(list[nn.Module], built), uncovered


def _injected(node: Mapping[str, Any]) -> tuple[str, ...]:
    """The arguments of a transform that no config has."""
    signature = describe(node["_target_"])
    return () if signature is None else signature.injected


def _uncovered(nodes: Sequence[Mapping[str, Any]], outputs: Mapping[str, OutputPlan]) -> int | None:
    """The value of mask pixels that no image pixel covers once an image was moved; None: there are none.

    Raises:
        ConfigError: A mask pixel has no value left for that.
    """
    targets = [output.target for output in outputs.values() if output.target.kind == "mask"]
    moving = [node["_target_"] for node in nodes if "ignored" in _injected(node)]
    if not targets or not moving:
        return None
    (target,) = targets
    if target.ignore_index is None and target.num_classes > UNCOVERED:
        raise ConfigError(
            "Where a mask is moved, pixels come in that belong to no class, and all 256 values of a mask are classes.",
            given=f"data.ignore_index=null with {moving[0].rpartition('.')[2]}",
            expected="a value that is left out of the loss",
            override=["data.ignore_index=0", "augmentation=random_horizontal_flip"],
        )
    return UNCOVERED if target.ignore_index is None else target.ignore_index
