"""An encoder of a few thousand parameters, for tests."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.types import HALF_STATS, Between, FeatureInfo


class TinyEncoder(Encoder):
    """Strided convolutions with BatchNorm: maps of strides 2, 4, 8, ...

    Args:
        width: Channels of the finest map; doubled at each level.
        depth: Number of levels.
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
    """

    def __init__(
        self,
        width: Annotated[int, Between(1)] = 8,
        depth: Annotated[int, Between(1)] = 3,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return
        channels = [width * 2**i for i in range(depth)]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in zip([self.num_channels, *channels[:-1]], channels, strict=True)
        )
        self.info = FeatureInfo(tuple(channels), tuple(2 ** (i + 1) for i in range(depth)), channels[-1])
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        self.finish()

    def embed_features(self, x: Tensor) -> Tensor:
        """Return the average of the coarsest map."""
        return self.pyramid_features(x)[-1].mean((2, 3))

    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        """Return the map of each level."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps
