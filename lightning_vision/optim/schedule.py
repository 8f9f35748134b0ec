"""What all schedules share: a warm-up, then a factor that is a function of the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_vision.errors import ConfigError

# What a schedule remembers; all else follows from its settings.
STATE = ("base_lrs", "last_epoch", "_step_count", "_last_lr")


class Warmup:
    """The first steps, in which the learning rate rises linearly: ``steps`` of them, and a factor for each.

    It ends at the last step but one of the run at the latest; ``notice`` says where one that was given in steps or
    epochs had to be cut.

    Args:
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: as ``epochs`` says, else
            ``default``.
        epochs: Number of epochs, in place of ``warmup``.
        start: Factor at the first step. None: one equal part, ``1 / (steps + 1)``.
        default: The ``warmup`` where nothing is said.

    Raises:
        ConfigError: Both ``warmup`` and ``epochs`` are given.
    """

    def __init__(
        self,
        total_steps: int,
        steps_per_epoch: int,
        warmup: float | None,
        epochs: float | None,
        start: float | None,
        default: float = 0.0,
    ) -> None:
        if warmup is not None and epochs is not None:
            raise ConfigError(
                "The warm-up is given twice.",
                given=f"scheduler.warmup={warmup} and scheduler.warmup_epochs={epochs}",
                override=["scheduler.warmup=null", "scheduler.warmup_epochs=null"],
            )
        warmup = default if warmup is None else warmup
        wanted = round(warmup * total_steps) if warmup < 1 else int(warmup)
        if epochs is not None:
            wanted = round(epochs * steps_per_epoch)
        self.steps = min(wanted, max(total_steps - 1, 0))
        self.start = start
        self.notice = ""
        if self.steps < wanted and (epochs is not None or warmup >= 1):
            self.notice = (
                f"the warm-up of {wanted} steps leaves no other step to a run of {total_steps}: it is cut to "
                f"{self.steps} (scheduler.warmup=0.05 in place of "
                f"scheduler.{'warmup' if epochs is None else 'warmup_epochs'} takes a share of any run)"
            )

    def factor(self, step: int) -> float:
        """Share of the learning rate at a step, 1 behind the warm-up."""
        if step >= self.steps:
            return 1.0
        if self.start is None:
            return (step + 1) / (self.steps + 1)
        return self.start + (1 - self.start) * step / self.steps


class Schedule(LambdaLR):
    """A learning rate that is a function of the step, the same whether the run was resumed or not.

    A run that goes on with other ``epochs`` follows the function of its new length from its first step on.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        factor: Share of each group's learning rate at a step, counted from 0.
        notice: What the user should know.
    """

    injected: ClassVar[tuple[str, ...]] = ("optimizer", "total_steps", "steps_per_epoch")

    def __init__(self, optimizer: Optimizer, factor: Callable[[int], float], notice: str = "") -> None:
        self.notice = notice
        super().__init__(optimizer, factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the groups' own rates as plain data."""
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at a step, at the rate that it has in a run of this length."""
        self.__dict__.update({name: state_dict[name] for name in STATE})
        self.apply()

    def apply(self) -> None:
        """Give the optimizer the rates of the present step."""
        factor = self.lr_lambdas[0](self.last_epoch)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            rate = base * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = [base * factor for base in self.base_lrs]


def half_cosine(start: float, end: float, progress: float) -> float:
    """Return what lies on half a cosine between two values, ``progress`` in [0, 1]."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
