"""Parameter groups: which parameters learn how fast, and which are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_vision.depth import parameter_layers


def parameter_groups(
    encoder: nn.Module,
    rest: list[nn.Module],
    lr: float,
    weight_decay: float,
    encoder_lr_factor: float,
    encoder_layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Split the trainable parameters into groups: encoder or head, with or without weight decay.

    Biases, norm scales and other vectors are not decayed (timm's rule). The encoder's groups learn with
    ``lr * encoder_lr_factor``; with a layer decay there are two for each layer, and the rate of a layer is
    ``lr * encoder_lr_factor * encoder_layer_decay ** n`` with n layers of the encoder above it (Clark et al., 2020,
    https://arxiv.org/abs/2003.10555; Bao et al., 2022, https://arxiv.org/abs/2106.08254). Frozen parameters are in no
    group, so they cost no optimizer state.
    """
    parts = [("encoder", lr * encoder_lr_factor, [p for p in encoder.parameters() if p.requires_grad])]
    if encoder_layer_decay is not None:
        by_height = _by_height(encoder)
        parts = [("encoder", parts[0][1] * encoder_layer_decay**n, by_height[n]) for n in sorted(by_height)]
    parts.append(("head", lr, [p for module in rest for p in module.parameters() if p.requires_grad]))
    groups = []
    for name, rate, parameters in parts:
        for suffix, decayed in (("", True), ("_no_decay", False)):
            chosen = [p for p in parameters if (p.ndim > 1) == decayed]
            if chosen:
                decay = weight_decay if decayed else 0.0
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name + suffix})
    return groups


def _by_height(encoder: nn.Module) -> dict[int, list[nn.Parameter]]:
    """Trainable parameters by the number of layers above theirs; encoders of several images lie side by side."""
    found: dict[int, list[nn.Parameter]] = {}
    for network in getattr(encoder, "encoders", [encoder]):
        for n, parameters in enumerate(reversed(parameter_layers(network))):
            found.setdefault(n, []).extend(p for p in parameters if p.requires_grad)
    return found


def learning_rates(groups: list[dict[str, Any]]) -> dict[str, float]:
    """The rates of encoder and head, unless frozen; where the encoder's layers differ the highest, and ``_lowest``."""
    found: dict[str, list[float]] = {}
    for group in groups:
        if group["params"][0].requires_grad:
            found.setdefault(group["name"].removesuffix("_no_decay"), []).append(float(group["lr"]))
    rates = {name: max(values) for name, values in found.items()}
    return rates | {f"{name}_lowest": min(v) for name, v in found.items() if min(v) < max(v)}
