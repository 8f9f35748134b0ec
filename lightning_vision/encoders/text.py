"""What a text tower leaves behind: the classes as vectors, and how an image embedding is compared with them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TextClassifier:
    """A classifier made of texts, for embeddings of the encoder that was trained with them.

    The logits of an embedding ``x`` are ``scale * normalize(x @ projection.T + projection_bias) @ text.T + bias``.

    Args:
        projection: ``(D, embed_dim)`` into the space that images and texts share, or None: they are in it already.
        projection_bias: ``(D,)``, or None.
        text: ``(N, D)``: for each class the mean of its normalised text embeddings, normalised.
        scale: Factor of the cosine similarity.
        bias: Added to it.
    """

    projection: Tensor | None
    projection_bias: Tensor | None
    text: Tensor
    scale: float
    bias: float
