"""Several images a sample: an encoder for each, or one for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.types import FeatureInfo


class InputsEncoder(Encoder):
    """Splits the channels into images, encodes each, and lays the features behind each other along the channels.

    Embeddings and maps are concatenated, so that any decoder works: two views of an object give one label, images of
    before and after give a mask of what changed.

    Args:
        encoders: One for each image, in the order of ``data.inputs``. Where it is one and the same object several times
            (tied), its weights are held, trained and saved once.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        first = encoders[0]
        super().__init__(
            num_channels=first.num_channels * len(encoders),
            trainable=first.trainable,
            use_pretrained=first.use_pretrained,
            saved_weights_in_checkpoint=first.saved_weights_in_checkpoint,
        )
        distinct = list(dict.fromkeys(encoders))
        self.order = [distinct.index(encoder) for encoder in encoders]
        self.encoders = nn.ModuleList(distinct)
        count = len(encoders)
        self.info = FeatureInfo(
            tuple(channels * count for channels in first.info.channels),
            first.info.strides,
            first.info.embed_dim * count,
        )
        self.pixel_stats = first.pixel_stats.repeated(count)
        self.min_size = first.min_size
        self.weights_origin = first.weights_origin

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build each encoder without weights; all have one architecture."""
        return self._encoder(0).rebuild_kwargs()

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> list[dict[str, Any]]:
        """Return the features of each image."""
        return [self._encoder(i).features(image, wanted) for i, image in enumerate(self._images(x))]

    def embed_features(self, found: list[dict[str, Any]]) -> Tensor:
        """Return the embeddings of all images, concatenated."""
        return torch.cat([features["embedding"] for features in found], 1)

    def pyramid_features(self, found: list[dict[str, Any]]) -> list[Tensor]:
        """Return the maps of all images, concatenated level by level."""
        pyramids = [features["pyramid"] for features in found]
        return [torch.cat(level, 1) for level in zip(*pyramids, strict=True)]

    def freeze(self) -> None:
        """Freeze every encoder."""
        super().freeze()
        for encoder in self.encoders:
            encoder.freeze()  # type: ignore[operator]

    def _encoder(self, position: int) -> Encoder:
        encoder = self.encoders[self.order[position]]
        assert isinstance(encoder, Encoder)
        return encoder

    def _images(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.chunk(len(self.order), 1)
