"""A learning rate that falls when the monitored figure stops getting better."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup
from lightning_vision.types import Between


class Plateau(Schedule):
    """Multiply the learning rate by ``factor`` after ``patience`` epochs in which ``monitor`` was no better.

    The figure is the one that picks the best checkpoint. It is looked at once it is known: a figure of the validation
    behind each validation, one of the training at the end of each epoch. The rates are those of
    ``torch.optim.lr_scheduler.ReduceLROnPlateau``; only negative figures differ, for which torch's relative threshold
    asks for less than nothing.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        mode: Whether the figure should be small or large.
        factor: What the rate is multiplied by.
        patience: Looks at the figure that may go by without a better one.
        threshold: How much better it must be, relative to the best.
        min_factor: Share of the learning rate below which it does not fall.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0, or as ``warmup_epochs`` says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step. None: 1 / (steps of warm-up + 1).
    """

    injected: ClassVar[tuple[str, ...]] = ("optimizer", "total_steps", "steps_per_epoch", "mode")

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        mode: Literal["min", "max"],
        factor: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        patience: Annotated[int, Between(0)] = 5,
        threshold: Annotated[float, Between(0)] = 1.0e-4,
        min_factor: Annotated[float, Between(0, 1)] = 0.0,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] | None = None,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start)
        self._factor, self._patience, self._threshold, self._min_factor = factor, patience, threshold, min_factor
        self._sign = 1.0 if mode == "min" else -1.0
        self.share = 1.0
        self.best: float | None = None
        self.bad = 0
        super().__init__(optimizer, lambda step: rise.factor(step) * self.share, rise.notice)

    def observe(self, value: float) -> None:
        """Take note of the figure, and lower the rate at once where it is time. Not a number is no better."""
        best = self.best
        needed = math.inf if best is None else self._sign * best - self._threshold * abs(best)
        if self._sign * value < needed:
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > self._patience:
            self.share, self.bad = max(self.share * self._factor, min(self.share, self._min_factor)), 0
            self.apply()

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and what was seen of the figure."""
        return {**super().state_dict(), "share": self.share, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the figure was left."""
        self.share, self.best, self.bad = state_dict["share"], state_dict["best"], state_dict["bad"]
        super().load_state_dict(state_dict)
