"""What an exported model is: from uint8 pixels to what predictions show, and what a consumer must know about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_vision import __version__
from lightning_vision.config import instantiate
from lightning_vision.module import VisionModule

INPUT = "image"


class ExportedModel(nn.Module):
    """A trained model as a function of pixels: the normalisation before it, the fitted temperature behind it.

    Args:
        module: The model, in eval mode.

    Attributes:
        names: Names of the outputs, in their order: what ``Task.tensors`` calls them; of a model with several outputs
            ``OUTPUT_NAME``.
    """

    def __init__(self, module: VisionModule) -> None:
        super().__init__()
        self.module = module
        self.several = len(module.named_heads()) > 1
        with torch.no_grad():
            least = [max(64, side) for side in module.encoder.min_size]
            size = (module.geometry.height, module.geometry.width) if _tied_to_size(module) else least
            self.names = tuple(self._tensors(torch.zeros(1, module.geometry.shape[0], *size, dtype=torch.uint8)))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of ``names``, float32, for images ``(B, C, H, W)`` uint8 in [0, 255]."""
        return tuple(self._tensors(image).values())

    def _tensors(self, image: Tensor) -> dict[str, Tensor]:
        found = self.module.outputs(image)
        return {
            f"{name}_{kind}" if self.several else kind: tensor.float()
            for name, head in self.module.named_heads()
            for kind, tensor in head.task.tensors(head, found[name]).items()
        }


def _tied_to_size(module: VisionModule) -> bool:
    inlets = [head.inlet for _, head in module.named_heads()]
    return any(inlet is not None and inlet.reduce_input == "concat" for inlet in inlets)


def describe(exported: ExportedModel) -> dict[str, Any]:
    """What a consumer needs to prepare images and to read the outputs, as plain data: sizes in pixels, class names.

    ``outputs`` tells of each tensor which output of the model it belongs to and what it is. ``classes`` are in the
    order of the channels; ``thresholds`` are those that predictions take.
    """
    module = exported.module
    geometry, resize = module.geometry, instantiate(module.config["preprocessing"]).resize
    heads = dict(module.named_heads())
    inputs = module.config["data"].get("inputs")
    if isinstance(inputs, dict):
        inputs = list(inputs)
    return {
        "lightning_vision": __version__,
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "layout": "BCHW",
            "channels": geometry.shape[0],
            "color": {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[geometry.num_channels],
            # Several images a sample lie behind each other along the channels.
            "images": [str(name) for name in inputs] if geometry.num_inputs > 1 and inputs else geometry.num_inputs,
        },
        "image_size": [geometry.height, geometry.width],
        "resize": {
            "method": resize.method,
            "filter": resize.filter,
            "antialias": True,
            "crop_fraction": resize.crop_fraction,
            "crop_rounding": resize.crop_rounding,
        },
        "normalisation": "inside",
        "tasks": {name: _task(head) for name, head in heads.items()},
        "outputs": {
            name: {"of": _owner(name, heads) if exported.several else next(iter(heads)), "dtype": "float32"}
            for name in exported.names
        },
    }


def _owner(name: str, heads: dict[str, Any]) -> str:
    return max((head for head in heads if name.startswith(f"{head}_")), key=len)


def _task(head: Any) -> dict[str, Any]:
    target = head.task.target
    buffers = {key: getattr(head, key).tolist() for key in ("thresholds", "threshold") if hasattr(head, key)}
    decided = getattr(head.decoder, "threshold", None)
    if isinstance(decided, Tensor) and not bool(decided.isnan()):
        buffers["threshold"] = decided.item()
    known = {"ignore_index": target.ignore_index} if head.task.output == "mask" else {}
    return {"task": head.task.name, "class_names": list(target.class_names), **known, **buffers}
