"""A learning rate from some steps at rising rates (Smith, 2017, https://arxiv.org/abs/1506.01186).

Lightning's own finder gives all parameter groups one rate, writes a checkpoint of the whole model into the run folder,
and takes the steepest fall of the loss over the rate itself, not over its logarithm, which ends among the smallest
rates. Here a copy of the model is trained, so that there is nothing to put back; the groups keep the ratios of their
rates (``encoder_lr_factor``, ``encoder_layer_decay``); and the choice is a tenth of the rate at which the loss is
lowest, as fastai's ``minimum`` does. (Its ``valley`` follows the slow fall at small rates too far on a smooth curve.)
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.interruption import interruptible
from lightning_vision.module import VisionModule
from lightning_vision.tuning.trial import copy_of, trial_trainer

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 100
# Of the running mean of the losses, what stays from one step to the next.
SMOOTHING = 0.9
# The search ends where the running mean is so many times its least.
DIVERGED = 4.0


@dataclass
class Curve:
    """Losses at rising rates, and the rate that was chosen; None where no rate made the loss fall."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    chosen: float | None = None

    @property
    def smooth(self) -> list[float]:
        """Running mean of the losses, without the bias of its start."""
        found, mean = [], 0.0
        for n, loss in enumerate(self.losses, 1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            found.append(mean / (1 - SMOOTHING**n))
        return found


class _RangeTest(Callback):
    """Raises the rate with every optimizer step, and notes the losses."""

    def __init__(self, steps: int) -> None:
        self.steps, self.curve = steps, Curve()
        self.shares: list[float] = []
        self.losses: list[float] = []
        self.best = math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the ratios of the groups; the schedule has no say here."""
        assert isinstance(pl_module, VisionModule)
        (optimizer,) = trainer.optimizers
        self.shares = [group.get("initial_lr", group["lr"]) / pl_module.lr for group in optimizer.param_groups]
        trainer.strategy.lr_scheduler_configs = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Set the rates of this step."""
        rate = LOWEST * (HIGHEST / LOWEST) ** (len(self.curve.rates) / (self.steps - 1))
        self.curve.rates.append(rate)
        for group, share in zip(optimizer.param_groups, self.shares, strict=True):
            group["lr"] = rate * share

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, the mean over the batches of a step; end where it has no use to go on."""
        self.losses.append(float(outputs["loss"]))
        if len(self.curve.rates) == len(self.curve.losses):
            return
        self.curve.losses.append(sum(self.losses) / len(self.losses))
        self.losses = []
        now = self.curve.smooth[-1]
        self.best = min(self.best, now)
        if not math.isfinite(now) or now > DIVERGED * self.best:
            trainer.should_stop = True


def find_lr(config: Mapping[str, Any], module: VisionModule, data: VisionDataModule, steps: int = STEPS) -> Curve:
    """Train a copy of the module at rising rates on the run's own batches, with its augmentation.

    Args:
        config: The config of the run.
        module: It stays as it is.
        data: So does the order of its batches.
        steps: Optimizer steps.
    """
    model, test = copy_of(module), _RangeTest(steps)
    own = VisionDataModule(
        *(data.index, data.geometry, _decoding_as_it_goes(data), data.batch_size, data.seed, data.eval_batch_size),
        repeats=data.repeats,
        num_items_per_epoch=data.num_items_per_epoch,
    )
    trainer = trial_trainer(config, max_steps=steps, callbacks=[test])
    with interruptible(trainer):
        trainer.fit(model, own)
    curve = test.curve
    if curve.losses and not math.isfinite(curve.losses[-1]):
        del curve.rates[-1], curve.losses[-1]
    curve.chosen = chosen_rate(curve)
    return curve


def _decoding_as_it_goes(data: VisionDataModule) -> Any:
    """Only some images are needed."""
    settings = data.preprocessing
    if settings.mode != "eager":
        return settings
    lazy = copy(settings)
    lazy.mode = "lazy"
    return lazy


def chosen_rate(curve: Curve) -> float | None:
    """A tenth of the rate at which the running mean is lowest; None where it hardly falls below the first losses."""
    first, smooth = curve.losses[: max(2, len(curve.losses) // 10)], curve.smooth
    if len(smooth) <= len(first):
        return None
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    fall = statistics.mean(first) - smooth[lowest]
    if lowest < len(first) or fall < 0.005 * abs(statistics.mean(first)) or fall < statistics.stdev(first) / 2:
        return None
    return curve.rates[lowest] / 10
