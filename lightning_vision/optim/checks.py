"""What is refused of optimizer, schedule and averages before torch is imported and data are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from lightning_vision.annotations import check_value, kind_of
from lightning_vision.errors import ConfigError, listed
from lightning_vision.options import parts_of
from lightning_vision.signatures import COMPUTED, REQUIRED, describe
from lightning_vision.types import Between

# Optimizers that ask for more than groups of parameters and their gradients.
UNFIT = {
    "LBFGS": "it knows no groups of parameters",
    "SparseAdam": "it takes sparse gradients alone",
    "Adahessian": "it needs second derivatives",
    "Lookahead": "it wraps another optimizer",
}


@dataclass(frozen=True)
class Limits:
    """What settings may be: torch and timm check them when an optimizer is built, after the data were read."""

    lr: Annotated[float, Between(0, low_open=True)]
    weight_decay: Annotated[float, Between(0)]
    betas: list[Annotated[float, Between(0, 1, high_open=True)]]
    eps: Annotated[float, Between(0)]
    momentum: Annotated[float, Between(0)]
    alpha: Annotated[float, Between(0)]
    ns_steps: Annotated[int, Between(1)]
    max_grad_norm: Annotated[float, Between(0, low_open=True)] | None


LIMITS = "lightning_vision.optim.checks.Limits"


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


def check_kind(optimizer: Mapping[str, Any]) -> None:
    """Refuse a class that is no optimizer, or none that a training here can use, whatever its settings.

    Raises:
        ConfigError: The message says why.
    """
    target = str(optimizer.get("_target_"))
    known, why = describe(target), UNFIT.get(target.rpartition(".")[2])
    if known is not None and "params" not in known.parameters and not known.takes_any:
        why = "it takes no parameters to train"
    if why:
        raise ConfigError(
            f"This {'is no optimizer' if 'no parameters to' in why else 'optimizer cannot be used here'}: {why}.",
            given=f"optimizer._target_={target}",
            expected="an optimizer of torch.optim or timm.optim that takes groups of parameters and their gradients",
            override="optimizer=adamw",
        )


def check_optimizer(config: Mapping[str, Any]) -> None:
    """Refuse an optimizer or a schedule that no training here can use.

    Raises:
        ConfigError: The message names the setting and what to type in its place.
    """
    optimizer, scheduler = config["optimizer"], config.get("scheduler")
    if optimizer.get("lr") is None:
        raise ConfigError("optimizer.lr must be given", expected="a number", override="lr=1e-3")
    _check_values(optimizer)
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


def _check_values(optimizer: Mapping[str, Any]) -> None:
    """Refuse values that the optimizer's own annotations or ``Limits`` do not allow."""
    target = str(optimizer["_target_"])
    known, limits = describe(target), describe(LIMITS)
    assert limits is not None
    for name, own in (known.parameters if known else {}).items():
        if name not in optimizer or optimizer[name] == own.default:
            continue
        kinds = [own]
        # Where the default is of another kind (two numbers for Adafactor's eps), another thing is meant.
        if (limit := limits.parameters.get(name)) and (
            own.default in (REQUIRED, COMPUTED) or kind_of(limit, optimizer).allows(own.default)
        ):
            kinds.append(limit)
        for kind in kinds:
            if not kind_of(kind, optimizer).allows(optimizer[name]):
                usual = next((node for node in parts_of("optimizer").values() if node["_target_"] == target), {})
                default = usual.get(name, own.default)
                check_value(f"optimizer.{name}", optimizer[name], replace(kind, default=default), optimizer)
    if optimizer.get("nesterov") and optimizer.get("momentum") == 0:
        raise ConfigError(
            "Nesterov's look-ahead goes along the momentum, and there is none.",
            given="optimizer.momentum=0 with optimizer.nesterov=true",
            override="optimizer.nesterov=false",
        )
