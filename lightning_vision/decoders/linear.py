"""A linear layer at every pixel."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, resample
from lightning_vision.decoders.blocks import BatchNorm
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo


class LinearDecoder(Decoder):
    """One linear layer on the encoder's maps: a linear probe of dense features.

    As in the evaluation of DINOv2 (Oquab et al., 2023, https://arxiv.org/abs/2304.07193): BatchNorm without parameters
    of its own, a 1 x 1 convolution, and bilinear upsampling of the logits; with ``num_maps`` the last maps joined. Each
    map is projected before it is upsampled and the results are added, the same function as joining them first. Maps of
    one stride (ViT) are taken as they are, without a neck.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        num_maps: Number of the encoder's last, deepest maps. None: all.
        norm: ``batch``: each channel is standardised first, so that one learning rate suits all of them; or None.

    Raises:
        ConfigError: If the encoder has fewer maps.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"
    one_scale_neck: ClassVar[str | None] = None

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        num_maps: Annotated[int, Between(1)] | None = 1,
        norm: Literal["batch"] | None = "batch",
    ) -> None:
        super().__init__(info, num_classes)
        count = len(info.channels)
        if num_maps is not None and num_maps > count:
            raise ConfigError(
                "The encoder has fewer maps.",
                given=f"decoder.num_maps={num_maps}",
                expected=f"from 1 to {count}, or null for all",
                override="decoder.num_maps=null",
            )
        self.first = 0 if num_maps is None else count - num_maps
        channels = info.channels[self.first :]
        self.norms = nn.ModuleList(BatchNorm(c, affine=False) if norm == "batch" else nn.Identity() for c in channels)
        # Small weights: all classes are equally likely. The bias is needed once.
        heads = [nn.Conv2d(c, num_classes, 1, bias=i == 0) for i, c in enumerate(channels)]
        for head in heads:
            nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(heads[0].bias)  # type: ignore[arg-type]
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        strides = self.info.strides[self.first :]
        logits = [
            resample(head(norm(x)), stride, strides[0], size)
            for norm, head, x, stride in zip(self.norms, self.heads, features[self.first :], strides, strict=True)
        ]
        return resample(sum(logits[1:], logits[0]), strides[0], 1, size)
