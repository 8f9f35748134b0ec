"""Families of timm's models that have an option of their own: the names of their models. No torch import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest


def _names(family: str, sizes: Sequence[str], *tags: str) -> list[str]:
    """Return the models of these sizes, by themselves or with each tag of weights."""
    return [".".join(filter(None, (f"{family}_{size}", tag))) for tag in tags or ("",) for size in sizes]


def _metaformer(family: str) -> tuple[str, ...]:
    sizes = ("s18", "s36", "m36", "b36")
    first = ("sail_in22k_ft_in1k", "sail_in22k_ft_in1k_384")
    return (
        *_names(family, sizes),
        *(name for size in sizes for name in _names(family, [size], *first)),
        *_names(family, sizes, "sail_in1k", "sail_in1k_384", "sail_in22k"),
    )


_CONVNEXTV2 = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
_POOLFORMER = ("s12", "s24", "s36", "m36", "m48")

# The documented names first, then those that timm has besides.
FAMILIES: dict[str, tuple[str, ...]] = {
    "convnextv2": (
        *_names("convnextv2", _CONVNEXTV2),
        *_names("convnextv2", _CONVNEXTV2, "fcmae_ft_in1k"),
        *_names("convnextv2", ("base", "large", "huge"), "fcmae_ft_in22k_in1k", "fcmae_ft_in22k_in1k_384"),
        *_names("convnextv2", ("nano", "tiny"), "fcmae_ft_in22k_in1k", "fcmae_ft_in22k_in1k_384"),
        *_names("convnextv2", ["huge"], "fcmae_ft_in22k_in1k_512"),
        *_names("convnextv2", _CONVNEXTV2, "fcmae"),
        *_names("convnextv2", ["small"]),
    ),
    "caformer": _metaformer("caformer"),
    "convformer": _metaformer("convformer"),
    "poolformer": (
        *_names("poolformerv2", _POOLFORMER),
        *_names("poolformer", _POOLFORMER),
        *_names("poolformerv2", _POOLFORMER, "sail_in1k"),
        *_names("poolformer", _POOLFORMER, "sail_in1k"),
    ),
}

# Documented, but its weights were published for images of 384 and 512 pixels only.
UNPUBLISHED = ("convnextv2_huge.fcmae_ft_in22k_in1k",)


def families(node: Mapping[str, Any]) -> list[str]:
    """Return all families."""
    return list(FAMILIES)


def model_names(node: Mapping[str, Any]) -> list[str]:
    """Return the models of the family that the config node names; none, if any of timm's will do."""
    return list(FAMILIES.get(str(node.get("family")), ()))


def check_family(family: str, model_name: str) -> None:
    """Check that a model is one of its family.

    Raises:
        ConfigError: With the nearest name.
    """
    if family not in FAMILIES:
        raise ConfigError(
            "There is no such family of timm's models.",
            given=f"encoder.family={family}",
            expected=f"{listed(FAMILIES)}, or null for any model of timm",
            nearest=nearest(family, FAMILIES),
        )
    names = FAMILIES[family]
    if model_name not in names:
        near = nearest(model_name, names)
        raise ConfigError(
            f"{family} has no such model.",
            given=f"encoder.model_name={model_name}",
            expected=listed(names),
            nearest=near,
            override=[f"encoder.model_name={near or names[0]}", f"encoder=timm encoder.model_name={model_name}"],
        )
