"""An encoder: one convolution a patch."""

from __future__ import annotations

from typing import Annotated, Any

from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.types import HALF_STATS, Between, FeatureInfo


class PatchEncoder(Encoder):
    """Patches of two sizes, each projected by one convolution.

    Args:
        patch_size: Side of the small patches, in pixels; the large ones are twice as wide.
        width: Channels of the small patches; the large ones have twice as many.
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
    """

    def __init__(
        self,
        patch_size: Annotated[int, Between(1)] = 4,
        width: Annotated[int, Between(1)] = 16,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return
        self.small = nn.Conv2d(self.num_channels, width, patch_size, patch_size)
        self.large = nn.Conv2d(width, 2 * width, 2, 2)
        self.multiple = 2 * patch_size  # images are padded to it
        self.info = FeatureInfo((width, 2 * width), (patch_size, 2 * patch_size), 2 * width)
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        self.finish()

    def embed_features(self, x: Tensor) -> Tensor:
        """Return the mean of the large patches ``(B, 2 * width)``."""
        return self.pyramid_features(x)[-1].mean((2, 3))

    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        """Return both maps."""
        small = self.small(x).relu()
        return [small, self.large(small).relu()]
