"""U-Net's contracting path, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.base import Encoder
from lightning_vision.types import HALF_STATS, Between, FeatureInfo


class UNetEncoder(Encoder):
    """U-Net's contracting path (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597).

    At each level two 3 x 3 convolutions, each with a norm and ReLU; between levels max-pooling by 2, and twice the
    channels. Convolutions are padded, so that a map of stride s has ``ceil(H / s)`` rows. The embedding is the average
    of the coarsest map. Pixels are scaled to [-1, 1].

    Args:
        conv_norm: Norm behind each convolution: ``batch`` or None.
        base_channels: Channels of the finest level; each further level has twice as many.
        depth: Number of poolings: ``depth + 1`` levels with strides 1, 2, 4, ...
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
    """

    def __init__(
        self,
        conv_norm: Literal["batch"] | None = "batch",
        base_channels: Annotated[int, Between(1)] = 64,
        depth: Annotated[int, Between(1, 8)] = 4,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return
        channels = [base_channels * 2**i for i in range(depth + 1)]
        self.levels = nn.ModuleList(
            nn.Sequential(*_conv(i, o, conv_norm), *_conv(o, o, conv_norm))
            for i, o in zip([self.num_channels, *channels[:-1]], channels, strict=True)
        )
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        self.info = FeatureInfo(tuple(channels), tuple(2**i for i in range(depth + 1)), channels[-1])
        self.finish()

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> list[Tensor]:
        """Return the map of each level."""
        maps: list[Tensor] = []
        for level in self.levels:
            # Rounded up, so that no row or column of an odd size is lost.
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if maps else x)
            maps.append(x)
        return maps

    def embed_features(self, maps: list[Tensor]) -> Tensor:
        """Return the average of the coarsest map ``(B, base_channels * 2 ** depth)``."""
        return maps[-1].mean((2, 3))

    def pyramid_features(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the map of each level."""
        return maps


def _conv(in_channels: int, out_channels: int, norm: str | None) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm is None)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return [conv, *([nn.BatchNorm2d(out_channels)] if norm == "batch" else []), nn.ReLU(inplace=True)]
