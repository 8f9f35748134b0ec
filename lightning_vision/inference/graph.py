"""A model as one graph, for as many sizes of images as it allows."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torch._prims_common import is_contiguous_or_false
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbols

from lightning_vision.inference.exported import INPUT, ExportedModel

Sizes = Literal["any", "multiples", "fixed"]
# From the most general one down; the first that a model allows is exported.
LADDER: tuple[Sizes, ...] = ("any", "multiples", "fixed")


@dataclass(frozen=True)
class Allowed:
    """The images that an exported graph takes; any number of them at once.

    Args:
        sizes: ``any`` from ``least`` on; ``multiples`` of ``step``, from ``least`` on; ``fixed``: that of ``size``.
        size: Height and width that the model was trained at, in pixels.
        least: Smallest height and width.
        step: Pixels of a cell of the coarsest map.
    """

    sizes: Sizes
    size: tuple[int, int]
    least: tuple[int, int]
    step: int

    def __str__(self) -> str:
        if self.sizes == "fixed":
            return f"{self.size[0]} x {self.size[1]} pixels alone"
        step = f"multiples of {self.step} pixels" if self.sizes == "multiples" else "any height and width"
        return f"{step}, from {self.least[0]} x {self.least[1]} pixels on"

    def trials(self) -> list[tuple[int, int]]:
        """Sizes to try a graph at, the model's own first where it is allowed."""
        (height, width), step = self.size, self.step
        if self.sizes == "fixed":
            return [self.size]
        if self.sizes == "multiples":
            rows, columns = (max(-(-a // step), -(-b // step)) for a, b in zip(self.size, self.least, strict=True))
            counts = [(rows, columns), (rows + 1, columns), (rows, 2 * columns)]
            return [(i * step, j * step) for i, j in counts]
        turned, half = (width * 3 // 4 + 1, height + step), (height // 2, width // 2 + 1)
        sizes = [self.size, (height + 5, width + 11), turned, half]
        return list(dict.fromkeys((max(h, self.least[0]), max(w, self.least[1])) for h, w in sizes))


def allowed(exported: ExportedModel, sizes: Sizes) -> Allowed:
    """The images that a graph of this step of the ladder takes."""
    module = exported.module
    geometry, step = module.geometry, max(module.encoder.info.strides)
    size = (geometry.height, geometry.width)
    # A map of one cell is a case of its own to torch.export; no model is held to more than its own size, though.
    low = [min(side, step + 1) if sizes == "any" else step for side in size]
    least = [max(a, b) for a, b in zip(low, module.encoder.min_size, strict=True)]
    if sizes == "multiples":
        least = [-(-side // step) * step for side in least]
    return Allowed(sizes, size, (least[0], least[1]) if sizes != "fixed" else size, step)


def capture(exported: ExportedModel, images: Allowed) -> ExportedProgram:
    """Capture the graph of a model.

    Raises:
        Exception: Of whatever kind torch raises where the model does not allow these images.
    """
    dims: dict[int, Any] = {0: Dim("batch", min=1)}
    if images.sizes == "any":
        dims |= {2: Dim("height", min=images.least[0]), 3: Dim("width", min=images.least[1])}
    elif images.sizes == "multiples":
        rows, columns = (-(-side // images.step) for side in images.least)
        dims |= {2: images.step * Dim("rows", min=rows), 3: images.step * Dim("columns", min=columns)}
    # Sides that differ, and maps of more than one cell: what holds for the example alone must not be taken for a rule.
    height, width = images.size
    if images.sizes != "fixed":
        height, width = (max(-(-side // images.step), 2) * images.step for side in images.size)
        width += images.step * (height == width)
    example = torch.zeros(2, exported.module.geometry.shape[0], height, width, dtype=torch.uint8)
    with torch.no_grad(), quiet(), _for_all_sizes():
        return torch.export.export(
            exported, (example,), dynamic_shapes={INPUT: dims}, prefer_deferred_runtime_asserts_over_guards=True
        )


@contextmanager
def _for_all_sizes() -> Iterator[None]:
    """Let torch and transformers take the branches that are right for every size, not those of the example."""
    # Transformers' encoders keep their table of positions as it is at its own size, unless they are traced.
    traced = mock.patch("torch.jit.is_tracing", return_value=True)
    # Both ask whether they have to copy, and the answer may be that of the example: timm's maps, for several images.
    copied = mock.patch.multiple(torch.Tensor, reshape=_reshape, contiguous=_contiguous)
    with traced, copied, symbols.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


def _reshape(x: Tensor, *shape: Any) -> Tensor:
    return _contiguous(x).view(*shape)


def _contiguous(x: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    if memory_format is torch.contiguous_format and is_contiguous_or_false(x):
        return x
    return x.clone(memory_format=memory_format)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' own warnings and deprecations out of the output: the result is compared, number by number."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
