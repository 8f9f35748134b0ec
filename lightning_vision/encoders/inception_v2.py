"""Inception with batch normalisation, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.types import HALF_STATS, Between, FeatureInfo

FEWEST_CHANNELS = 8


class Widths(NamedTuple):
    """A row of the table: the channels of the four branches of an Inception block.

    Args:
        single: Of the 1 x 1 convolution; 0 for a block that halves height and width, which has none.
        reduce: Of the 1 x 1 convolution in front of the 3 x 3 convolution.
        conv: Of the 3 x 3 convolution.
        convs_reduce: Of the 1 x 1 convolution in front of two 3 x 3 convolutions.
        convs: Of these two.
        pooled: Of the 1 x 1 convolution behind the pooling; 0 where the pooled map is passed through.
    """

    single: int
    reduce: int
    conv: int
    convs_reduce: int
    convs: int
    pooled: int


# The blocks in front of the maps of stride 8, 16 and 32, each with its name in the paper.
BLOCKS = (
    {"3a": Widths(64, 64, 64, 64, 96, 32), "3b": Widths(64, 64, 96, 64, 96, 64)},
    {
        "3c": Widths(0, 128, 160, 64, 96, 0),
        "4a": Widths(224, 64, 96, 96, 128, 128),
        "4b": Widths(192, 96, 128, 96, 128, 128),
        "4c": Widths(160, 128, 160, 128, 160, 96),
        "4d": Widths(96, 128, 192, 160, 192, 96),
    },
    {
        "4e": Widths(0, 128, 192, 192, 256, 0),
        "5a": Widths(352, 192, 320, 160, 224, 128),
        "5b": Widths(352, 192, 320, 192, 224, 128),
    },
)
# The blocks that take the largest value where the others average.
MAX_POOLED = ("3c", "4e", "5b")


class InceptionV2Encoder(Encoder):
    """BN-Inception, or Inception V2 (Ioffe & Szegedy, https://arxiv.org/abs/1502.03167, the table of its network).

    A 7 x 7 convolution with stride 2 and a 3 x 3 convolution, each with max-pooling behind it, then ten Inception
    blocks: a 1 x 1 convolution, a 3 x 3 one, two 3 x 3 ones behind each other, and a pooling, side by side. Batch norm
    and ReLU follow each convolution. The embedding is the average of the last map. All that halves is padded, so that
    a map of stride s has ``ceil(H / s)`` rows. Pixels are scaled to [-1, 1].

    Two deviations. The first convolution is a plain one; the paper's is separable (by channel, then across channels),
    which saves 6696 weights and costs memory. Blocks 4c and 4d have the 576 channels that the table states, with 96
    behind their pooling, as TensorFlow's version has them; Caffe's has 128 there, and 608. With the paper's 1000
    classes there are 11.2 million parameters (Caffe: 11.3), without them 10.2 million.

    Args:
        depth_multiplier: Channels of all convolutions relative to the published ones; each has at least 8.
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
    """

    def __init__(
        self,
        depth_multiplier: Annotated[float, Between(0, 4, low_open=True)] = 1.0,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return

        def scaled(width: int) -> int:
            return width and max(FEWEST_CHANNELS, int(width * depth_multiplier))

        first, second = scaled(64), scaled(192)
        self.levels = nn.ModuleList(
            [
                nn.Sequential(_conv(self.num_channels, first, 7, 2)),
                nn.Sequential(_halved(), _conv(first, first, 1), _conv(first, second, 3)),
            ]
        )
        channels = [first, second]
        for blocks in BLOCKS:
            # Later levels begin with a block that halves.
            level, width = nn.Sequential(*[_halved()] * (len(channels) == 2)), channels[-1]
            for name, widths in blocks.items():
                block = InceptionBlock(width, Widths(*map(scaled, widths)), name in MAX_POOLED)
                level.add_module(name, block)
                width = block.out_channels
            self.levels.append(level)
            channels.append(width)
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        self.info = FeatureInfo(tuple(channels), (2, 4, 8, 16, 32), channels[-1])
        self.finish()

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> list[Tensor]:
        """Return the map of each level."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps

    def embed_features(self, maps: list[Tensor]) -> Tensor:
        """Return the average of the coarsest map, ``(B, 1024)`` with the published channels."""
        return maps[-1].mean((2, 3))

    def pyramid_features(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the map of each level."""
        return maps


class InceptionBlock(nn.Module):
    """Four branches side by side, their maps behind each other along the channels.

    Without a 1 x 1 convolution it halves height and width, rounded up.

    Args:
        in_channels: Channels of its input.
        widths: Channels of its branches.
        max_pooled: Take the largest value of 3 x 3 cells, not their average.
    """

    def __init__(self, in_channels: int, widths: Widths, max_pooled: bool) -> None:
        super().__init__()
        stride = 1 if widths.single else 2
        self.out_channels = widths.single + widths.conv + widths.convs + (widths.pooled or in_channels)
        self.single = _conv(in_channels, widths.single, 1) if widths.single else None
        self.conv = nn.Sequential(
            _conv(in_channels, widths.reduce, 1),
            _conv(widths.reduce, widths.conv, 3, stride),
        )
        self.convs = nn.Sequential(
            _conv(in_channels, widths.convs_reduce, 1),
            _conv(widths.convs_reduce, widths.convs, 3),
            _conv(widths.convs, widths.convs, 3, stride),
        )
        # Cells beyond the border do not count.
        average = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride, padding=1) if max_pooled else average)
        if widths.pooled:
            self.pooled.append(_conv(in_channels, widths.pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, out_channels, H, W)``, or half of the height and width."""
        branches = (self.single, self.conv, self.convs, self.pooled)
        return torch.cat([branch(x) for branch in branches if branch is not None], 1)


def _halved() -> nn.MaxPool2d:
    return nn.MaxPool2d(3, 2, padding=1)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
