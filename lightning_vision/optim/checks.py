"""What is refused of optimizer, schedule and averages before torch is imported and data are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.signatures import describe

# Optimizers that ask for more than groups of parameters and their gradients.
UNFIT = {
    "LBFGS": "it knows no groups of parameters",
    "SparseAdam": "it takes sparse gradients alone",
    "Adahessian": "it needs second derivatives",
    "Lookahead": "it wraps another optimizer",
}


def check_averages(config: Mapping[str, Any]) -> None:
    """Refuse two averages of the weights: a checkpoint and a validation have one.

    Raises:
        ConfigError: The message names both, and what to type to leave one out.
    """
    nodes = {name: node for name, node in (config.get("callbacks") or {}).items() if isinstance(node, Mapping)}
    signatures = {name: describe(str(node.get("_target_"))) for name, node in nodes.items()}
    found = [name for name, known in signatures.items() if known and known.constants.get("averages_weights")]
    if len(found) > 1:
        raise ConfigError(
            "The weights cannot be averaged in two ways at once.",
            given=listed(f"callbacks.{name}" for name in found),
            override=[f"callbacks.{name}=null" for name in found],
        )


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Refuse an optimizer or a schedule that no training here can use.

    Raises:
        ConfigError: The message names the setting and what to type in its place.
    """
    optimizer, scheduler = config["optimizer"], config.get("scheduler")
    target = str(optimizer["_target_"])
    why = UNFIT.get(target.rpartition(".")[2])
    if why:
        raise ConfigError(
            f"This optimizer cannot be used here: {why}.",
            given=f"optimizer._target_={target}",
            expected="an optimizer of torch.optim or timm.optim that takes groups of parameters and their gradients",
            override="optimizer=adamw",
        )
    if optimizer.get("lr") is None:
        raise ConfigError("optimizer.lr must be given", expected="a number", override="lr=1e-3")
    if scheduler is None:
        raise ConfigError(
            "The learning rate needs a schedule, if only a constant one.",
            given="scheduler=null",
            override="scheduler=constant",
        )
    if scheduler.get("warmup") is not None and scheduler.get("warmup_epochs") is not None:
        raise ConfigError(
            "The warm-up is given twice.",
            given=f"scheduler.warmup={scheduler['warmup']} and scheduler.warmup_epochs={scheduler['warmup_epochs']}",
            override=["scheduler.warmup=null", "scheduler.warmup_epochs=null"],
        )
