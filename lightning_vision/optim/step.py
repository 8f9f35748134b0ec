"""A learning rate that falls in steps, each some epochs long."""

from __future__ import annotations

from typing import Annotated

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup
from lightning_vision.types import Between


class Step(Schedule):
    """Multiply the learning rate by ``factor`` after ``init_epochs`` epochs, and after each ``step_epochs`` more.

    Epochs are counted from the start of the run; a warm-up lies in them, and its share multiplies theirs.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        init_epochs: Epochs before the first decrease.
        step_epochs: Epochs between two decreases.
        factor: What the rate is multiplied by.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0, or as ``warmup_epochs`` says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step. None: 1 / (steps of warm-up + 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        init_epochs: Annotated[int, Between(0)] = 30,
        step_epochs: Annotated[int, Between(1)] = 30,
        factor: Annotated[float, Between(0, 1)] = 0.1,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] | None = None,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start)

        def share(step: int) -> float:
            since = step // steps_per_epoch - init_epochs
            return rise.factor(step) * factor ** (0 if since < 0 else since // step_epochs + 1)

        super().__init__(optimizer, share, rise.notice)
