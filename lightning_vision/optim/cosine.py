"""Half a cosine down to a share of the learning rate."""

from __future__ import annotations

from typing import Annotated

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup, half_cosine
from lightning_vision.types import Between


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to ``final_factor`` of the learning rate (Loshchilov & Hutter 2017).

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0.05, or as ``warmup_epochs``
            says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step. None: 1 / (steps of warm-up + 1).
        final_factor: Share of the learning rate that is left at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] | None = None,
        final_factor: Annotated[float, Between(0, 1)] = 0.0,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start, default=0.05)
        length = max(1, total_steps - rise.steps)

        def factor(step: int) -> float:
            if step < rise.steps:
                return rise.factor(step)
            return half_cosine(1.0, final_factor, min(1.0, (step - rise.steps) / length))

        super().__init__(optimizer, factor, rise.notice)
