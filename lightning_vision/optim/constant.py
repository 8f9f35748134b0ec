"""A constant learning rate."""

from __future__ import annotations

from typing import Annotated

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup
from lightning_vision.types import Between


class Constant(Schedule):
    """Linear warm-up, then a constant learning rate.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0, or as ``warmup_epochs`` says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step. None: 1 / (steps of warm-up + 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] | None = None,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start)
        super().__init__(optimizer, rise.factor, rise.notice)
