"""DPT's reassembling of maps of one stride into a pyramid."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from lightning_vision.errors import ConfigError
from lightning_vision.necks.base import STRIDES, Neck
from lightning_vision.types import Between, FeatureInfo

CHANNELS = (96, 192, 384, 768)


class ReassembleNeck(Neck):
    """Maps of one stride (ViT, mixer) become maps of strides 4, 8, 16 and 32, wider from level to level.

    The reassembling of DPT (Ranftl et al., 2021, https://arxiv.org/abs/2103.13413): each depth is projected to the
    width of its level, then scaled at once, up by a transposed convolution whose kernel is its stride, down by 3 x 3
    convolutions of stride 2. Deviations: the class token is not read (maps have none), and any patch size works (see
    ``Neck``). Half the default widths were as good and a quarter cheaper than ``pyramid`` in the comparison told there.

    Args:
        info: What the encoder tells about its features.
        channels: Channels of each level, fine to coarse.

    Raises:
        ConfigError: If there is not one number for each level.
    """

    def __init__(self, info: FeatureInfo, channels: tuple[Annotated[int, Between(1)], ...] = CHANNELS) -> None:
        if len(channels) != len(STRIDES):
            raise ConfigError(
                "The neck needs one width for each level.",
                given=f"neck.channels={list(channels)}",
                expected=f"{len(STRIDES)} numbers, for strides {STRIDES}",
                override="neck.channels=[96,192,384,768]",
            )
        super().__init__(info, channels, _level)


def _level(in_channels: int, channels: int, steps: int) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Conv2d(in_channels, channels, 1)]
    if steps > 0:
        modules.append(nn.ConvTranspose2d(channels, channels, 2**steps, stride=2**steps))
    modules += [nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(-steps)]
    return nn.Sequential(*modules)
