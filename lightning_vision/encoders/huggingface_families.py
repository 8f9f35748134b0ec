"""Vision models of the transformers library: what the well-known names stand for. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import HALF_STATS, IMAGENET_STATS, PixelStats


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        model_types: The ``model_type`` of the configs that belong to it; the first is the default. Empty: any.
        architectures: What the well-known names stand for, as arguments of the config class, so that they can be built
            with random weights and without a network. The first is the default.
        stats: Pixel statistics of the pretrained weights, unless a folder says otherwise.
    """

    model_types: tuple[str, ...]
    architectures: Mapping[str, Mapping[str, Any]]
    stats: PixelStats


_IMAGENET = {"num_labels": 1000}


def _vit(hidden_size: int, num_hidden_layers: int, num_attention_heads: int, **more: Any) -> dict[str, Any]:
    sizes = {
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
    }
    return {**sizes, **more}


def _siglip(sizes: Mapping[str, Any], patch_size: int, image_size: int) -> dict[str, Any]:
    return {**sizes, "patch_size": patch_size, "image_size": image_size}


def _mit(depths: list[int], hidden_sizes: list[int]) -> dict[str, Any]:
    return {"depths": depths, "hidden_sizes": hidden_sizes, **_IMAGENET}


def _convnext(depths: list[int], hidden_sizes: list[int]) -> dict[str, Any]:
    return {"model_type": "dinov3_convnext", "depths": depths, "hidden_sizes": hidden_sizes}


_DINOV2 = {
    "base": _vit(768, 12, 12),
    "small": _vit(384, 12, 6),
    "large": _vit(1024, 24, 16),
    "giant": _vit(1536, 40, 24, use_swiglu_ffn=True),
}
_DINOV2_INPUT = {"image_size": 518, "patch_size": 14}
_DINOV3_INPUT = {"num_register_tokens": 4, "image_size": 224, "patch_size": 16}
_GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
_SIGLIP_BASE = _vit(768, 12, 12, intermediate_size=3072)
_SIGLIP_LARGE = _vit(1024, 24, 16, intermediate_size=4096)
_SIGLIP_SO400M = _vit(1152, 27, 16, intermediate_size=4304)
_SIGLIP_GIANT = _vit(1536, 40, 16, intermediate_size=6144)
_MIT_WIDTHS = [64, 128, 320, 512]
_CLIP_STATS = PixelStats((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

FAMILIES: dict[str, Family] = {
    "clip": Family(
        model_types=("clip_vision_model",),
        architectures={
            "openai/clip-vit-base-patch32": _vit(768, 12, 12, patch_size=32),
            "openai/clip-vit-base-patch16": _vit(768, 12, 12, patch_size=16),
            "openai/clip-vit-large-patch14": _vit(
                1024, 24, 16, intermediate_size=4096, patch_size=14, projection_dim=768
            ),
            "openai/clip-vit-large-patch14-336": _vit(
                1024, 24, 16, intermediate_size=4096, patch_size=14, image_size=336, projection_dim=768
            ),
        },
        stats=_CLIP_STATS,
    ),
    "dinov2": Family(
        model_types=("dinov2", "dinov2_with_registers"),
        architectures={
            **{f"facebook/dinov2-{size}": {**sizes, **_DINOV2_INPUT} for size, sizes in _DINOV2.items()},
            **{
                f"facebook/dinov2-with-registers-{size}": {
                    "model_type": "dinov2_with_registers",
                    **sizes,
                    **_DINOV2_INPUT,
                }
                for size, sizes in _DINOV2.items()
            },
        },
        stats=IMAGENET_STATS,
    ),
    "dinov3": Family(
        model_types=("dinov3_vit", "dinov3_convnext"),
        architectures={
            f"facebook/dinov3-{name}-pretrain-lvd1689m": sizes
            for name, sizes in {
                "vits16": _vit(384, 12, 6, intermediate_size=1536, **_DINOV3_INPUT),
                "vits16plus": _vit(384, 12, 6, intermediate_size=1536, **_GATED, **_DINOV3_INPUT),
                "vitb16": _vit(768, 12, 12, intermediate_size=3072, **_DINOV3_INPUT),
                "vitl16": _vit(1024, 24, 16, intermediate_size=4096, **_DINOV3_INPUT),
                "vith16plus": _vit(1280, 32, 20, intermediate_size=5120, **_GATED, **_DINOV3_INPUT),
                "vit7b16": _vit(
                    4096, 40, 32, intermediate_size=8192, query_bias=False, value_bias=False, **_GATED, **_DINOV3_INPUT
                ),
                "convnext-tiny": _convnext([3, 3, 9, 3], [96, 192, 384, 768]),
                "convnext-small": _convnext([3, 3, 27, 3], [96, 192, 384, 768]),
                "convnext-base": _convnext([3, 3, 27, 3], [128, 256, 512, 1024]),
                "convnext-large": _convnext([3, 3, 27, 3], [192, 384, 768, 1536]),
            }.items()
        },
        stats=IMAGENET_STATS,
    ),
    "mit": Family(
        model_types=("segformer",),
        architectures={
            "nvidia/mit-b0": _mit([2, 2, 2, 2], [32, 64, 160, 256]),
            "nvidia/mit-b1": _mit([2, 2, 2, 2], _MIT_WIDTHS),
            "nvidia/mit-b2": _mit([3, 4, 6, 3], _MIT_WIDTHS),
            "nvidia/mit-b3": _mit([3, 4, 18, 3], _MIT_WIDTHS),
            "nvidia/mit-b4": _mit([3, 8, 27, 3], _MIT_WIDTHS),
            "nvidia/mit-b5": _mit([3, 6, 40, 3], _MIT_WIDTHS),
        },
        stats=IMAGENET_STATS,
    ),
    "siglip": Family(
        model_types=("siglip_vision_model",),
        architectures={
            "google/siglip-base-patch16-224": _siglip(_SIGLIP_BASE, 16, 224),
            "google/siglip-base-patch16-256": _siglip(_SIGLIP_BASE, 16, 256),
            "google/siglip-base-patch16-384": _siglip(_SIGLIP_BASE, 16, 384),
            "google/siglip-base-patch16-512": _siglip(_SIGLIP_BASE, 16, 512),
            "google/siglip-large-patch16-256": _siglip(_SIGLIP_LARGE, 16, 256),
            "google/siglip-large-patch16-384": _siglip(_SIGLIP_LARGE, 16, 384),
            "google/siglip-so400m-patch14-224": _siglip(_SIGLIP_SO400M, 14, 224),
            "google/siglip-so400m-patch14-384": _siglip(_SIGLIP_SO400M, 14, 384),
        },
        stats=HALF_STATS,
    ),
    # SigLIP 2 at fixed sizes has SigLIP's architecture; its NaFlex models take lists of patches, not images.
    "siglip2": Family(
        model_types=("siglip_vision_model",),
        architectures={
            "google/siglip2-base-patch16-224": _siglip(_SIGLIP_BASE, 16, 224),
            "google/siglip2-base-patch16-256": _siglip(_SIGLIP_BASE, 16, 256),
            "google/siglip2-base-patch16-384": _siglip(_SIGLIP_BASE, 16, 384),
            "google/siglip2-base-patch16-512": _siglip(_SIGLIP_BASE, 16, 512),
            "google/siglip2-base-patch32-256": _siglip(_SIGLIP_BASE, 32, 256),
            "google/siglip2-large-patch16-256": _siglip(_SIGLIP_LARGE, 16, 256),
            "google/siglip2-large-patch16-384": _siglip(_SIGLIP_LARGE, 16, 384),
            "google/siglip2-large-patch16-512": _siglip(_SIGLIP_LARGE, 16, 512),
            "google/siglip2-so400m-patch14-224": _siglip(_SIGLIP_SO400M, 14, 224),
            "google/siglip2-so400m-patch14-384": _siglip(_SIGLIP_SO400M, 14, 384),
            "google/siglip2-so400m-patch16-256": _siglip(_SIGLIP_SO400M, 16, 256),
            "google/siglip2-so400m-patch16-384": _siglip(_SIGLIP_SO400M, 16, 384),
            "google/siglip2-so400m-patch16-512": _siglip(_SIGLIP_SO400M, 16, 512),
            "google/siglip2-giant-opt-patch16-256": _siglip(_SIGLIP_GIANT, 16, 256),
            "google/siglip2-giant-opt-patch16-384": _siglip(_SIGLIP_GIANT, 16, 384),
        },
        stats=HALF_STATS,
    ),
    "vit": Family(
        model_types=("vit",),
        architectures={
            "google/vit-base-patch16-224": _vit(768, 12, 12, **_IMAGENET),
            "google/vit-base-patch32-384": _vit(768, 12, 12, patch_size=32, image_size=384, **_IMAGENET),
            "google/vit-large-patch16-224": _vit(1024, 24, 16, intermediate_size=4096, **_IMAGENET),
            "google/vit-large-patch32-384": _vit(
                1024, 24, 16, intermediate_size=4096, patch_size=32, image_size=384, **_IMAGENET
            ),
            "google/vit-huge-patch14-224-in21k": _vit(1280, 32, 16, intermediate_size=5120, patch_size=14),
        },
        stats=HALF_STATS,
    ),
    "auto": Family(
        model_types=(),
        architectures={"microsoft/resnet-50": {"model_type": "resnet", **_IMAGENET}},
        stats=IMAGENET_STATS,
    ),
}

# The variants of the deprecated encoder, and the weights that Google published for them.
LEGACY_VIT = {
    "b_16": "google/vit-base-patch16-224",
    "b_32": "google/vit-base-patch32-384",
    "l_16": "google/vit-large-patch16-224",
    "l_32": "google/vit-large-patch32-384",
    "h_14": "google/vit-huge-patch14-224-in21k",
}


def families(node: Mapping[str, Any]) -> list[str]:
    """Return all families."""
    return list(FAMILIES)


def names(node: Mapping[str, Any]) -> list[str]:
    """Return the well-known names of the family in a config node, unless what is there can be a hub name or folder."""
    family = FAMILIES.get(str(node.get("family")))
    given = str(node.get("pretrained_model_name_or_path"))
    if family is None or not family.model_types or "/" in given or Path(given).expanduser().is_dir():
        return []
    return list(family.architectures)


def legacy_vit_variants(node: Mapping[str, Any]) -> list[str]:
    """Return the variants of the deprecated vision transformer."""
    return list(LEGACY_VIT)


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


def find_legacy_vit(variant: str) -> str:
    """Return the hub name of a variant; underscores do not count.

    Raises:
        ConfigError: If there is no such variant.
    """
    by_plain_name = {v.replace("_", ""): name for v, name in LEGACY_VIT.items()}
    plain = str(variant).replace("_", "")
    if plain not in by_plain_name:
        raise ConfigError(
            "vit_legacy has no such variant.",
            given=f"encoder.model_variant={variant}",
            expected=listed(LEGACY_VIT),
            nearest=nearest(str(variant), LEGACY_VIT),
            override="encoder.model_variant=b_16",
        )
    return by_plain_name[plain]
