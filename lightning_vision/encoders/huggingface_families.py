"""Vision transformers of the transformers library: what differs between them. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import IMAGENET_STATS, PixelStats


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        model: Class in ``transformers``.
        config: Its config class.
        architectures: What the well-known names stand for, as arguments of the config class, so that they can be built
            with random weights and without a network. The first is the default.
        patch_embedding: Name of the convolution that sees the image.
        final_norm: Name of the norm behind the last block, also applied to the maps of earlier blocks.
        head: Modules of a classifier, dropped from a file of weights.
        prefix_tokens: Tokens in front of the patches.
        stats: Pixel statistics of the pretrained weights, unless a folder says otherwise.
        forward: Further arguments of ``forward``, such as ``{"interpolate_pos_encoding": True}``.
    """

    model: str
    config: str
    architectures: Mapping[str, Mapping[str, Any]]
    patch_embedding: str
    final_norm: str
    head: tuple[str, ...]
    prefix_tokens: int
    stats: PixelStats
    forward: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "dinov2": Family(
        model="Dinov2Model",
        config="Dinov2Config",
        architectures={
            "facebook/dinov2-base": {"image_size": 518, "patch_size": 14},
            "facebook/dinov2-small": {
                "image_size": 518,
                "patch_size": 14,
                "hidden_size": 384,
                "num_attention_heads": 6,
            },
            "facebook/dinov2-large": {
                "image_size": 518,
                "patch_size": 14,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
            },
            "facebook/dinov2-giant": {
                "image_size": 518,
                "patch_size": 14,
                "hidden_size": 1536,
                "num_hidden_layers": 40,
                "num_attention_heads": 24,
                "use_swiglu_ffn": True,
            },
        },
        patch_embedding="embeddings.patch_embeddings.projection",
        final_norm="layernorm",
        head=("classifier",),
        prefix_tokens=1,
        stats=IMAGENET_STATS,
    ),
}


def families(node: Mapping[str, Any]) -> list[str]:
    """Return all families."""
    return list(FAMILIES)


def find_family(name: str) -> Family:
    """Return a family by name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(
            "There is no such family of Hugging Face encoders.",
            given=name,
            expected=listed(FAMILIES),
            nearest=nearest(name, FAMILIES),
        )
    return FAMILIES[name]
