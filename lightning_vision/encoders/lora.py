"""LoRA for layers that are read instead of called. Needs the extra ``peft``."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import Linear
from torch import Tensor, nn

from lightning_vision.encoders.torchvision_swin import WindowAttention

# They hand the weights of their linear layers to a function, past the forward of whatever wraps the layer.
READERS = (nn.MultiheadAttention, WindowAttention)


class ReadLinear(Linear):
    """A linear layer with LoRA that shows its weights with the additions in them; the dropout has no place there."""

    base_layer: Any

    @property
    def weight(self) -> Tensor:
        """The fixed weights plus the additions ``(out, in)``."""
        weight: Tensor = self.base_layer.weight
        for adapter in self.active_adapters:
            weight = weight + self.get_delta_weight(adapter)
        return weight


def show_additions(network: nn.Module) -> None:
    """Make the additions count in every layer that is read instead of called."""
    for module in network.modules():
        if isinstance(module, READERS):
            for layer in module.children():
                if isinstance(layer, Linear):
                    layer.__class__ = ReadLinear


def show_geometry(network: nn.Module) -> None:
    """Let adapted convolutions tell their stride and size: MobileNetV1 of transformers pads by what it reads there."""
    for module in network.modules():
        base = getattr(module, "base_layer", None)
        if isinstance(base, nn.Conv2d):
            for name in ("stride", "kernel_size", "dilation", "padding", "groups"):
                if not hasattr(module, name):
                    setattr(module, name, getattr(base, name))
