"""TorchVision's classification models: their variants, and where each is cut into stages. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest


@dataclass(frozen=True)
class Family:
    """One family of models.

    Args:
        builders: Name of the function in ``torchvision.models`` for each documented variant.
        stages: For each level of the pyramid the modules that lead to it, run in order: dotted names, where
            ``features[2:4]`` means items 2 and 3 of a sequence.
        strides: Pixels per cell of each level.
        first_conv: Name of the convolution that sees the image.
        head: The modules behind the pooled features. They are not kept, and dropped from a file of weights.
        embed: Modules between the pooled features and the last linear layer. Empty: the pooled features themselves.
        min_size: Smallest height and width, in pixels.
        build: Further arguments of the builder.
    """

    builders: Mapping[str, str]
    stages: tuple[tuple[str, ...], ...]
    strides: tuple[int, ...]
    first_conv: str
    head: tuple[str, ...]
    embed: tuple[str, ...] = ()
    min_size: int = 1
    build: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        builders={v: f"resnet{v}" for v in ("18", "34", "50", "101", "152")},
        stages=(("conv1", "bn1", "relu"), ("maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",)),
        strides=(2, 4, 8, 16, 32),
        first_conv="conv1",
        head=("fc",),
    ),
    "mobilenetv2": Family(
        builders={"base": "mobilenet_v2"},
        # The last map is the 1280 channels that the classifier pools, as other segmentation libraries have it.
        stages=(("features[0:2]",), ("features[2:4]",), ("features[4:7]",), ("features[7:14]",), ("features[14:19]",)),
        strides=(2, 4, 8, 16, 32),
        first_conv="features.0.0",
        head=("classifier",),
    ),
}


def families(node: Mapping[str, Any]) -> list[str]:
    """Return all families."""
    return list(FAMILIES)


def variants(node: Mapping[str, Any]) -> list[str]:
    """Return the variants of the family that the config node names; none if it names no known family."""
    family = FAMILIES.get(str(node.get("family")))
    return list(family.builders) if family else []


def find_family(name: str) -> Family:
    """Return a family by name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in FAMILIES:
        raise ConfigError(
            "TorchVision has no such family.", given=name, expected=listed(FAMILIES), nearest=nearest(name, FAMILIES)
        )
    return FAMILIES[name]


def find_builder(family_name: str, variant: str | int) -> str:
    """Return the name of the builder function; underscores do not count, since a shell may turn ``50_2`` into 502.

    Raises:
        ConfigError: If the family has no such variant.
    """
    family = find_family(family_name)
    by_plain_name = {v.replace("_", ""): builder for v, builder in family.builders.items()}
    plain = str(variant).replace("_", "")
    if plain not in by_plain_name:
        raise ConfigError(
            f"{family_name} has no such variant.",
            given=f"encoder.model_variant={variant}",
            expected=listed(family.builders),
            nearest=nearest(str(variant), family.builders),
            override=f"encoder.model_variant={next(iter(family.builders))}",
        )
    return by_plain_name[plain]
