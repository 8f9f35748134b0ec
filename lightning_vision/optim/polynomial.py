"""A power of what is left of the run."""

from __future__ import annotations

from typing import Annotated

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup
from lightning_vision.types import Between


class Polynomial(Schedule):
    """Linear warm-up, then ``(1 - progress) ** power`` down to ``final_factor`` of the learning rate.

    With a power of 0.9 or 1 it is what DeepLab (Chen et al. 2017) and SegFormer (Xie et al. 2021) are trained with.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        power: 1: a straight line; above: the rate falls early; below: late.
        final_factor: Share of the learning rate that is left at the end.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0, or as ``warmup_epochs`` says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step. None: 1 / (steps of warm-up + 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        power: Annotated[float, Between(0, low_open=True)] = 1.0,
        final_factor: Annotated[float, Between(0, 1)] = 0.0,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] | None = None,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start)
        length = max(1, total_steps - rise.steps)

        def factor(step: int) -> float:
            if step < rise.steps:
                return rise.factor(step)
            left = max(0.0, 1 - (step - rise.steps) / length)
            return final_factor + (1 - final_factor) * left**power

        super().__init__(optimizer, factor, rise.notice)
