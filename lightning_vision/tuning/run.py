"""Everything that a fit is asked to find out for itself, in its order, and what the other processes are told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy

from lightning_vision.allocator import keep_freed_memory
from lightning_vision.assembly import quiet_lightning
from lightning_vision.compiled import require_compiler
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.resolve import Plan
from lightning_vision.tuning.batch_size import find_batch_size
from lightning_vision.tuning.learning_rate import find_lr
from lightning_vision.tuning.trial import trial_trainer, unnoticed
from lightning_vision.tuning.ways import SETTINGS, choose_way

# Hands the choices of the first process to those that it starts.
CHOICES = "LIGHTNING_VISION_CHOICES"


def wanted(config: dict[str, Any]) -> bool:
    """Whether anything is to be found out."""
    trainer = config["trainer"]
    asked = any(trainer.get(name) == "auto" for name in SETTINGS)
    return asked or bool(trainer.get("find_lr")) or bool(trainer.get("find_batch_size"))


def tune(plan: Plan, module: VisionModule, data: VisionDataModule) -> list[str]:
    """Find out what is asked for, and put it into the plan, the module and the data; return what to say of it.

    Weights, random numbers and the order of the data are as before.

    Raises:
        ConfigError: Something can be found with one process only, or the processes could not agree.
    """
    quiet_lightning()
    keep_freed_memory()
    probe = trial_trainer(plan.config, max_steps=1)
    _require_one_process(plan.config, probe)
    lines: list[str] = []
    if plan.config["trainer"].get("find_batch_size"):
        with unnoticed():
            found = find_batch_size(plan.config, module, data, probe.strategy.root_device)
        data.batch_size = data.eval_batch_size = found.batch_size
        _decide(plan, module, "batch_size", found.batch_size, found.why)
        plan.config["trainer"]["find_batch_size"] = False
        lines.append(f"batch    {found.batch_size} images ({found.why}); batch_size={found.batch_size} sets it")
        if found.lr is not None and not plan.config["trainer"].get("find_lr"):
            lines.append(
                f"         lr={plan.config['lr']:g} was chosen for another batch size; in proportion lr={found.lr:.2g}"
            )
    if any(plan.config["trainer"].get(name) == "auto" for name in SETTINGS):
        choices, reasons = _agreed(plan, module, data, probe)
        plan.config["trainer"] |= choices
        plan.reasons |= {f"trainer.{name}": why for name, why in reasons.items()}
        for why in dict.fromkeys(reasons.values()):
            said = [f"{name}: {str(choices[name]).lower()}" for name in choices if reasons[name] == why]
            lines.append(f"{', '.join(said)} ({why})")
    if plan.config["trainer"].get("find_lr"):
        lines.append(_lr(plan, module, data))
    return lines


def prepare(module: VisionModule, trainer: Trainer) -> None:
    """Bring the module into the form that the trainer's settings name.

    Raises:
        ConfigError: Steps are to be compiled, and this machine cannot.
    """
    if getattr(trainer, "channels_last", False) is True:
        module.use_channels_last()
    if getattr(trainer, "compile", False) is True:
        require_compiler(trainer.strategy.root_device)
        module.compiles_steps = True


def _lr(plan: Plan, module: VisionModule, data: VisionDataModule) -> str:
    from lightning_vision.reports.learning_rate import plot_learning_rate

    with unnoticed():
        curve = find_lr(plan.config, module, data)
    plan.config["trainer"]["find_lr"] = False
    picture = Path(plan.config["output_dir"]) / "plots" / "learning_rate.png"
    plot_learning_rate(curve, picture)
    if curve.chosen is None:
        plan.reasons["lr"] = f"as it was: no rate made the loss fall in {len(curve.rates)} steps"
        return f"lr       {plan.config['lr']:g} ({plan.reasons['lr']}; {picture})"
    rate = float(f"{curve.chosen:.2g}")
    _decide(plan, module, "lr", rate, f"found by {len(curve.rates)} steps at rising rates")
    plan.config["optimizer"]["lr"] = module.lr = rate
    return f"lr       {rate:.2g} found; lr={rate:.2g} sets it ({picture})"


def _decide(plan: Plan, module: VisionModule, key: str, value: Any, why: str) -> None:
    # The module has a dict of its own, of the same nodes.
    plan.config[key] = module.config[key] = value
    plan.reasons[key] = why


def _require_one_process(config: dict[str, Any], probe: Trainer) -> None:
    asked = [name for name in ("find_batch_size", "find_lr") if config["trainer"].get(name)]
    if asked and probe.world_size > 1:
        raise ConfigError(
            f"trainer.{asked[0]} works with one process only.",
            given=f"{probe.world_size} processes",
            expected="one device; then the value that was found, with all devices",
            override=[f"trainer.devices=1 trainer.{asked[0]}=true", f"trainer.{asked[0]}=false"],
        )


def _agreed(
    plan: Plan, module: VisionModule, data: VisionDataModule, probe: Trainer
) -> tuple[dict[str, Any], dict[str, str]]:
    """What the first process chose, in all of them."""

    def choose() -> tuple[dict[str, Any], dict[str, str]]:
        with unnoticed():
            reasons = choose_way(plan.config, module, data, probe.strategy.root_device, probe.world_size)
        return {name: plan.config["trainer"][name] for name in reasons}, reasons

    strategy = probe.strategy
    if probe.world_size == 1 or not isinstance(strategy, ParallelStrategy) or strategy.cluster_environment is None:
        return choose()
    if not strategy.cluster_environment.creates_processes_externally:
        if probe.num_nodes > 1:
            raise ConfigError(
                "The machines cannot agree on what is chosen by measuring before their processes know each other.",
                given=f"trainer.num_nodes={probe.num_nodes} without torchrun or SLURM",
                override=["trainer.precision=32-true trainer.channels_last=false trainer.compile=false"],
            )
        found = choose()
        os.environ[CHOICES] = json.dumps(found)
        return found
    if CHOICES in os.environ and probe.global_rank > 0:
        choices, reasons = json.loads(os.environ[CHOICES])
        return choices, reasons
    strategy.setup_environment()  # the run's own trainer finds the processes connected
    chosen = choose() if probe.is_global_zero else None
    return cast("tuple[dict[str, Any], dict[str, str]]", strategy.broadcast(chosen))
