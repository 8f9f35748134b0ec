"""Adapters: the pretrained weights stay fixed, small additions are trained (LoRA, through the extra ``peft``)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.extras import require


@dataclass(frozen=True)
class AdapterSpec:
    """Settings of LoRA (Hu et al., 2021, https://arxiv.org/abs/2106.09685).

    Args:
        type: ``lora``.
        r: Rank of the additions.
        alpha: The additions are scaled by ``alpha / r``.
        dropout: Dropout in front of the additions, in [0, 1); not where attention reads the weights past the layer.
        target_modules: Names (or their last parts) of the layers that get one. None: all linear layers, and, where
            convolutions without groups outnumber them, those too.
    """

    type: str = "lora"
    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, value: str | dict[str, Any] | None) -> AdapterSpec | None:
        """Read the ``adapter`` setting of an encoder.

        Raises:
            ConfigError: If the type or a key is not known, or a number is out of range.
        """
        if value is None:
            return None
        settings: dict[str, Any] = {"type": value} if isinstance(value, str) else dict(value)
        names = [f.name for f in fields(cls)]
        for key in settings:
            if key not in names:
                raise ConfigError(
                    "The adapter has no such setting.", given=key, expected=listed(names), nearest=nearest(key, names)
                )
        if settings.get("target_modules") is not None:
            settings["target_modules"] = tuple(settings["target_modules"])
        spec = cls(**settings)
        if spec.type != "lora":
            raise ConfigError(
                "There is no such adapter.",
                given=spec.type,
                expected="lora",
                override=["encoder.adapter=lora", "encoder.adapter=null"],
            )
        if spec.r < 1 or spec.alpha <= 0 or not 0 <= spec.dropout < 1:
            raise ConfigError(
                "The adapter is out of range.", given=spec, expected="r >= 1, alpha > 0, 0 <= dropout < 1"
            )
        return spec


def attach_adapter(encoder: nn.Module, spec: AdapterSpec) -> None:
    """Put LoRA layers into the encoder, in place, and leave only them trainable. They start as no change at all.

    Raises:
        ConfigError: If ``peft`` is not installed, or if there is no layer to adapt.
    """
    require("peft", "peft", needs="An adapter needs", given="encoder.adapter", instead=["encoder.adapter=null"])
    from peft import LoraConfig, inject_adapter_in_model

    from lightning_vision.encoders.lora import show_additions, show_geometry

    targets = list(spec.target_modules) if spec.target_modules else default_targets(encoder)
    if not targets:
        raise ConfigError("The encoder has no layer that an adapter could change.", override="encoder.adapter=null")
    config = LoraConfig(r=spec.r, lora_alpha=spec.alpha, lora_dropout=spec.dropout, target_modules=targets)
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise ConfigError(
            f"The adapter does not fit the encoder: {error}", given=f"target_modules={targets}"
        ) from error
    show_additions(encoder)
    show_geometry(encoder)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
    encoder.train(encoder.training)


def default_targets(encoder: nn.Module) -> list[str]:
    """Return the full names of the layers to adapt: linear ones, in a convolutional network its plain convolutions too.

    The few linear layers of a convolutional network are its classifier, which the maps do not pass.
    """
    linear = [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]
    convolutions = [n for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    return linear if len(linear) >= len(convolutions) else linear + convolutions
