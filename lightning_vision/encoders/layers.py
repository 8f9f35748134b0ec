"""Normalisation and stacks of fully connected layers, for vectors and for every pixel of a map."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_vision.encoders.activations import make_activation, width_factor
from lightning_vision.encoders.initializers import initialize
from lightning_vision.errors import ConfigError, listed, nearest

FC_KEYS = (
    "output_size",
    "use_bias",
    "weights_initializer",
    "bias_initializer",
    "norm",
    "norm_params",
    "activation",
    "dropout",
)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of a map ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class MapNorm(nn.GroupNorm):
    """Layer normalisation over channels, height and width, with a scale and a shift per channel.

    The statistics are those of ``LayerNorm([C, H, W])``; the parameters do not depend on the size of the map.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5, elementwise_affine: bool = True) -> None:
        super().__init__(1, num_channels, eps, elementwise_affine)


def make_norm(kind: str | None, num_channels: int, params: Mapping[str, Any] | None, where: str) -> nn.Module:
    """Return a normalisation layer.

    Args:
        kind: ``batch``, ``layer`` or None (the identity).
        num_channels: Channels.
        params: Arguments of the torch class, such as ``eps`` and ``momentum``.
        where: ``vector`` for ``(B, C)``, ``pixel`` for every pixel of a map by itself, ``map`` for whole maps.

    Raises:
        ConfigError: If the kind or an argument is not known.
    """
    if kind is None:
        return nn.Identity()
    classes: dict[str, type[nn.Module]] = {
        "batch": nn.BatchNorm1d if where == "vector" else nn.BatchNorm2d,
        "layer": {"vector": nn.LayerNorm, "pixel": ChannelNorm, "map": MapNorm}[where],
    }
    if kind not in classes:
        raise ConfigError(
            "There is no such norm.", given=kind, expected="batch, layer, null", nearest=nearest(kind, classes)
        )
    known = [n for n in list(inspect.signature(classes[kind]).parameters)[1:] if n not in {"device", "dtype"}]
    for key in params or {}:
        if key not in known:
            raise ConfigError(
                f"The norm {kind} has no such parameter.",
                given=key,
                expected=listed(known),
                nearest=nearest(key, known),
            )
    return classes[kind](num_channels, **(params or {}))


def merge_layers(
    name: str, layers: Sequence[Mapping[str, Any]] | None, count: int, defaults: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the settings of every layer of a stack: each layer's own values over the defaults.

    Args:
        name: Name of the list in the config, for messages.
        layers: One mapping a layer, or None for ``count`` layers of defaults. The list's length wins over ``count``.
        count: Number of layers without a list.
        defaults: All keys that a layer may set, with their values.

    Raises:
        ConfigError: If a layer has an unknown key, or the number is negative.
    """
    if layers is None:
        if count < 0:
            raise ConfigError("A number of layers cannot be negative.", given=count)
        return [dict(defaults) for _ in range(count)]
    merged = []
    for i, layer in enumerate(layers):
        for key in layer:
            if key not in defaults:
                raise ConfigError(
                    f"Layer {i} of {name} has an unknown key.",
                    given=key,
                    expected=listed(defaults),
                    nearest=nearest(key, defaults),
                )
        merged.append({**defaults, **layer})
    return merged


class FCStack(nn.Sequential):
    """Fully connected layers: linear, norm, activation, dropout, as often as there are settings.

    Args:
        in_features: Length of the vectors, or channels of the maps, that come in.
        layers: One mapping a layer with the keys ``FC_KEYS`` (see ``merge_layers``).
        per_pixel: False for ``(B, C)``; True for maps ``(B, C, H, W)``, where each pixel is a vector.

    Attributes:
        out_features: Length of the vectors that come out.
    """

    def __init__(self, in_features: int, layers: Sequence[Mapping[str, Any]], per_pixel: bool = False) -> None:
        modules: list[nn.Module] = []
        for layer in layers:
            size = layer["output_size"]
            width = size * width_factor(layer["activation"])
            linear: nn.Linear | nn.Conv2d = (
                nn.Conv2d(in_features, width, 1, bias=layer["use_bias"])
                if per_pixel
                else nn.Linear(in_features, width, bias=layer["use_bias"])
            )
            initialize(linear.weight, layer["weights_initializer"])
            if linear.bias is not None:
                initialize(linear.bias, layer["bias_initializer"])
            parts = [
                linear,
                make_norm(layer["norm"], width, layer["norm_params"], "pixel" if per_pixel else "vector"),
                make_activation(layer["activation"]),
                nn.Dropout(layer["dropout"]),
            ]
            modules += [
                m for m in parts if not isinstance(m, nn.Identity) and not (isinstance(m, nn.Dropout) and m.p == 0)
            ]
            in_features = size
        super().__init__(*modules)
        self.out_features = in_features
