"""The contract of a decoder, and resampling that keeps the geometry of strides."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.maps import ceil_div, cut
from lightning_vision.errors import ConfigError
from lightning_vision.types import FeatureInfo

if TYPE_CHECKING:
    from lightning_vision.encoders.base import Encoder


class Decoder(nn.Module):
    """Turns an encoder's features into logits.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes; 0 where there are no labels, which a vector or a score needs none of.

    Attributes:
        consumes: ``embedding``: ``forward`` takes ``(B, D)``; ``pyramid``: a list of maps, fine to coarse; ``logits``:
            those of the classifier that came with the encoder's weights.
        output: ``label``: logits ``(B, num_classes)``; ``mask``: logits ``(B, num_classes, H, W)``; ``embedding``:
            vectors ``(B, D)``; ``score``: how unusual an image is, ``(B,)``.
        splits: Whether ``forward`` is ``last`` after ``hidden``, for losses that look at the input of the last layer.
        starts_from_data: Whether ``start_from`` takes its first values from the training images.
        ready: Whether it predicts before any training, with what ``start`` took from a pretrained encoder.
        one_scale_neck: The neck that ``neck=auto`` puts behind an encoder whose maps all have one stride, by its name;
            None: the decoder takes these maps as they are.
    """

    injected: ClassVar[tuple[str, ...]] = ("info", "num_classes")
    consumes: ClassVar[str]
    output: ClassVar[str]
    ready: ClassVar[bool] = False
    splits: ClassVar[bool] = False
    starts_from_data: ClassVar[bool] = False
    one_scale_neck: ClassVar[str | None] = "pyramid"

    def __init__(self, info: FeatureInfo, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1 and self.output in ("label", "mask"):
            raise ConfigError("A decoder needs at least one class.", given=f"num_classes={num_classes}")
        self.info = info
        self.num_classes = num_classes

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits.

        Args:
            features: What ``consumes`` says, from ``Encoder.embed``, ``Encoder.pyramid`` or ``Encoder.classify``.
            size: Height and width of the images, in pixels.
        """
        raise NotImplementedError

    def hidden(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the input ``(B, D)`` of the last layer; only where ``splits``."""
        raise NotImplementedError

    def last(self, hidden: Tensor) -> Tensor:
        """Return the output of the last layer for what ``hidden`` returned; only where ``splits``."""
        raise NotImplementedError

    def start(self, encoder: Encoder, class_names: Sequence[str]) -> None:
        """Take first weights from a pretrained encoder; called for a new model, not for one that is loaded."""

    def start_from(self, features: Iterable[Tensor | list[Tensor]], size: tuple[int, int]) -> None:
        """Take first values from training images; only where ``starts_from_data``, before a new model's first step.

        Called without autograd, with the whole model in eval mode; with several processes each passes its share of the
        images, and all of them call it.

        Args:
            features: What ``consumes`` says, batch by batch; a batch may be empty.
            size: Height and width of the images, in pixels.
        """
        raise NotImplementedError


def levels_of(info: FeatureInfo, finest: int = 1) -> dict[int, int]:
    """Return the strides to decode, fine to coarse, each with the position of its map.

    Where several maps share a stride the deepest of them speaks for it.

    Args:
        info: What the encoder (or the neck) tells about its features.
        finest: Maps of a smaller stride are left out, unless there are no others.
    """
    levels = {stride: i for i, stride in enumerate(info.strides)}
    return {stride: i for stride, i in levels.items() if stride >= finest} or levels


def channels_last(features: Tensor | list[Tensor]) -> list[Tensor]:
    """Lay maps out with the channels of a pixel side by side, where convolutions and resampling are faster."""
    if torch.compiler.is_exporting():  # whoever runs the graph decides on layouts
        return list(features)
    return [x.contiguous(memory_format=torch.channels_last) for x in features]


def cells(size: tuple[int, int], stride: float) -> tuple[int, int]:
    """Return height and width of the map of this stride: ``ceil(size / stride)``."""
    if float(stride).is_integer():  # whole numbers alone: an export keeps sizes as symbols, and int() asks for a value
        whole = int(stride)
        return ceil_div(size[0], whole), ceil_div(size[1], whole)
    return int(-(-size[0] // stride)), int(-(-size[1] // stride))


def resample(x: Tensor, from_stride: float, to_stride: float, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Bring a map from one stride to another without moving it against the image.

    A cell ``i`` of a map of stride ``s`` covers the pixels ``[s * i, s * (i + 1))``. The map is scaled by the ratio of
    the strides, then cut to the image; it is never stretched to a size, which would shift everything whenever the
    stride does not divide the image. To a stride of 1 this is the upsampling of logits to pixels.

    Args:
        x: Map ``(B, C, ceil(H / from_stride), ceil(W / from_stride))``.
        from_stride: Pixels per cell now.
        to_stride: Pixels per cell of the result.
        size: Height and width of the image, in pixels.
        mode: ``bilinear`` (cell centres, edges repeated) or ``nearest``.

    Returns:
        Map ``(B, C, ceil(H / to_stride), ceil(W / to_stride))``.
    """
    height, width = cells(size, to_stride)
    if torch.compiler.is_exporting():
        return _resampled(x, from_stride / to_stride, (height, width), mode)
    if from_stride != to_stride:
        scale = from_stride / to_stride
        # With strides that do not divide each other the scaled map may end before the image: its edge is repeated.
        bottom, right = (
            max(0, math.ceil(n / scale) - have) for n, have in zip((height, width), x.shape[-2:], strict=True)
        )
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        x = F.interpolate(x, scale_factor=scale, mode=mode, align_corners=False if mode == "bilinear" else None)
    return x if x.shape[-2:] == (height, width) else x[..., :height, :width]


def _resampled(x: Tensor, scale: float, size: tuple[int, int], mode: str) -> Tensor:
    """Scale a map and cut it to a size without a question about either: an exported graph is one for all sizes."""
    if scale == 1:
        return cut(x, size)
    if scale.is_integer():
        scaled = tuple(n * int(scale) for n in x.shape[-2:])
        x = F.interpolate(x, scaled, mode=mode, align_corners=False if mode == "bilinear" else None)
        return cut(x, size)
    for dim in (-2, -1):
        last = x.shape[dim] - 1
        cell = torch.arange(size[dim], device=x.device)
        if mode == "nearest":
            x = x.index_select(dim, (cell / scale).floor().long().clamp(max=last))
            continue
        place = ((cell + 0.5) / scale - 0.5).clamp(min=0)
        before = place.floor()
        share = (place - before).to(x.dtype)
        shape = (-1, 1) if dim == -2 else (-1,)
        low, high = (x.index_select(dim, (before.long() + k).clamp(max=last)) for k in (0, 1))
        x = torch.lerp(low, high, share.view(shape))
    return x
