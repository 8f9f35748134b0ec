"""What necks share: which map serves which level, and how a level comes to lie on its stride."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor, nn

from lightning_vision.decoders.base import resample
from lightning_vision.types import FeatureInfo

STRIDES = (4, 8, 16, 32)


class Neck(nn.Module):
    """Maps of one stride (ViT, mixer) become maps of strides 4, 8, 16 and 32.

    Where the encoder returns maps of several depths, shallow ones serve the fine levels and deep ones the coarse ones.
    A level scales its map by the power of two that comes nearest to its stride; where the patch is no power of two
    (14 pixels gives 3.5, 7, 14 and 28), the result is resampled, so that every cell lies where its stride says.

    Args:
        info: What the encoder tells about its features.
        channels: Channels of each level.
        level: Builds the module that projects and scales: ``(channels in, channels out, steps)``, up by ``2 ** steps``
            or down where ``steps`` is negative.

    Attributes:
        info: What the neck tells about its maps.
    """

    injected: ClassVar[tuple[str, ...]] = ("info",)

    def __init__(self, info: FeatureInfo, channels: Sequence[int], level: Callable[[int, int, int], nn.Module]) -> None:
        super().__init__()
        last = len(info.channels) - 1
        self.sources = tuple(round(i * last / (len(STRIDES) - 1)) for i in range(len(STRIDES)))
        from_strides = [info.strides[s] for s in self.sources]
        steps = [round(math.log2(s / t)) for s, t in zip(from_strides, STRIDES, strict=True)]
        self.between = tuple(s / 2**step for s, step in zip(from_strides, steps, strict=True))
        self.levels = nn.ModuleList(
            level(info.channels[source], width, step)
            for source, width, step in zip(self.sources, channels, steps, strict=True)
        )
        self.info = FeatureInfo(tuple(channels), STRIDES, info.embed_dim)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Return maps ``(B, info.channels[i], ceil(H / s), ceil(W / s))`` for the strides s = 4, 8, 16, 32.

        Args:
            features: The encoder's maps.
            size: Height and width of the images, in pixels.
        """
        return [
            resample(level(features[source]), between, stride, size)
            for level, source, between, stride in zip(self.levels, self.sources, self.between, STRIDES, strict=True)
        ]
