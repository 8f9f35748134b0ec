"""A pyramid from an encoder whose maps all have one stride."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from torch import Tensor, nn

from lightning_vision.decoders.base import resample
from lightning_vision.encoders.layers import ChannelNorm
from lightning_vision.types import Between, FeatureInfo

STRIDES = (4, 8, 16, 32)


class PyramidNeck(nn.Module):
    """Maps of one stride (ViT, mixer) become maps of strides 4, 8, 16 and 32.

    The simple feature pyramid of ViTDet (Li et al., 2022, https://arxiv.org/abs/2203.16527): each level is scaled by a
    power of two, up by transposed and down by strided 2 x 2 convolutions. Two deviations: where the encoder returns
    maps of several depths, shallow ones serve the fine levels and deep ones the coarse levels; and where the patch is
    not a power of two (14 pixels), the level is resampled from the nearest stride (3.5, 7, 14, 28), so that every cell
    lies where its stride says.

    Args:
        info: What the encoder tells about its features.
        channels: Channels of each level.
    """

    injected: ClassVar[tuple[str, ...]] = ("info",)

    def __init__(self, info: FeatureInfo, channels: Annotated[int, Between(1)] = 256) -> None:
        super().__init__()
        last = len(info.channels) - 1
        self.sources = tuple(round(i * last / (len(STRIDES) - 1)) for i in range(len(STRIDES)))
        self.from_strides = tuple(info.strides[s] for s in self.sources)
        steps = [round(math.log2(s / t)) for s, t in zip(self.from_strides, STRIDES, strict=True)]
        self.between = tuple(s / 2**step for s, step in zip(self.from_strides, steps, strict=True))
        self.levels = nn.ModuleList(
            _level(info.channels[source], channels, step) for source, step in zip(self.sources, steps, strict=True)
        )
        self.info = FeatureInfo((channels,) * len(STRIDES), STRIDES, info.embed_dim)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Return maps ``(B, channels, ceil(H / s), ceil(W / s))`` for the strides s = 4, 8, 16, 32.

        Args:
            features: The encoder's maps.
            size: Height and width of the images, in pixels.
        """
        return [
            resample(level(features[source]), between, stride, size)
            for level, source, between, stride in zip(self.levels, self.sources, self.between, STRIDES, strict=True)
        ]


def _level(in_channels: int, channels: int, steps: int) -> nn.Sequential:
    """Scale up (steps > 0) or down by ``2 ** steps``."""
    modules: list[nn.Module] = [nn.Conv2d(in_channels, channels, 1, bias=False), ChannelNorm(channels)]
    for _ in range(steps):
        modules += [nn.GELU(), nn.ConvTranspose2d(channels, channels, 2, stride=2), ChannelNorm(channels)]
    for _ in range(-steps):
        modules += [nn.GELU(), _Halve(channels), ChannelNorm(channels)]
    return nn.Sequential(*modules)


class _Halve(nn.Module):
    """A 2 x 2 convolution of stride 2 that repeats the last row or column of an odd size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = x.shape[-2] % 2, x.shape[-1] % 2
        if bottom or right:
            x = nn.functional.pad(x, (0, right, 0, bottom), mode="replicate")
        y: Tensor = self.conv(x)
        return y
