"""A decoder: one layer at every cell of the finest map."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, resample
from lightning_vision.types import Between, FeatureInfo


class PixelDecoder(Decoder):
    """Dropout and a 1 x 1 convolution on the finest map.

    Args:
        info: What the encoder tells about its features.
        num_classes: Number of classes.
        dropout: Share of the channels that is dropped, in training.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"

    def __init__(
        self, info: FeatureInfo, num_classes: int, dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0
    ) -> None:
        super().__init__(info, num_classes)
        self.layers = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(info.channels[0], num_classes, 1))

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``."""
        return resample(self.layers(features[0]), self.info.strides[0], 1, size)
