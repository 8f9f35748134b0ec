"""Stochastic depth: blocks that are left out at random in training (Huang et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_vision.errors import ConfigError, listed

# What the libraries' modules call their rate: TorchVision; timm and transformers; LeViT in transformers.
RATES = ("p", "drop_prob", "drop_rate")


def rates(model: nn.Module) -> list[float]:
    """Return the rate of every module that leaves a branch out, in their order."""
    found = []
    for module in model.modules():
        kind = type(module).__name__
        if "DropPath" in kind or kind in ("StochasticDepth", "LevitResidualLayer"):
            found += [float(rate) for name in RATES if (rate := getattr(module, name, None)) is not None]
    return found


def no_stochastic_depth(rate: float, model: str, able: Sequence[str]) -> ConfigError:
    """The error for a model that has none."""
    return ConfigError(
        "This encoder has no stochastic depth.",
        given=f"encoder.drop_path={rate} with {model}",
        expected=f"null, or an encoder that has it: {listed(able)}",
        override="encoder.drop_path=null",
    )


def require_one_rate(rate: float | None, others: Mapping[str, Any] | None, key: str) -> None:
    """Refuse two rates that differ.

    Raises:
        ConfigError: A library's own argument says something else than ``drop_path``.
    """
    other = (others or {}).get("drop_path_rate")
    if rate is not None and other is not None and other != rate:
        raise ConfigError(
            "The rate of stochastic depth is given twice.",
            given=f"encoder.drop_path={rate} and encoder.{key}.drop_path_rate={other}",
            override=["encoder.drop_path=null", f"~encoder.{key}.drop_path_rate"],
        )
