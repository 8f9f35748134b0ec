"""One rise and one fall over the whole run."""

from __future__ import annotations

from typing import Annotated, Literal

from torch.optim import Optimizer

from lightning_vision.optim.schedule import Schedule, Warmup, half_cosine
from lightning_vision.types import Between


class OneCycle(Schedule):
    """Rise to the learning rate, then fall to nearly nothing (Smith & Topin 2018, https://arxiv.org/abs/1708.07120).

    The warm-up is the rise: the peak is its last step, and the end the last step of the run. The rates are those of
    ``torch.optim.lr_scheduler.OneCycleLR`` with ``cycle_momentum=False`` where the rise is a whole number of steps; its
    peak lies between two steps otherwise, and here at the nearest.

    Args:
        optimizer: The optimizer whose groups' rates are scaled.
        total_steps: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps of an epoch.
        shape: How it rises and falls: ``cosine`` or ``linear``.
        final_factor: Share of the learning rate that is left at the last step.
        warmup: Fraction of all steps (below 1) or number of steps (1 and more). None: 0.3, or as ``warmup_epochs``
            says.
        warmup_epochs: Number of epochs, in place of ``warmup``.
        warmup_start: Share of the learning rate at the first step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        steps_per_epoch: int,
        shape: Literal["cosine", "linear"] = "cosine",
        final_factor: Annotated[float, Between(0, 1)] = 4.0e-6,
        warmup: Annotated[float, Between(0)] | None = None,
        warmup_epochs: Annotated[float, Between(0)] | None = None,
        warmup_start: Annotated[float, Between(0, 1)] = 0.04,
    ) -> None:
        rise = Warmup(total_steps, steps_per_epoch, warmup, warmup_epochs, warmup_start, default=0.3)
        peak, last = max(0, rise.steps - 1), max(0, total_steps - 1)

        def between(start: float, end: float, progress: float) -> float:
            if shape == "cosine":
                return half_cosine(start, end, progress)
            return start + (end - start) * progress

        def factor(step: int) -> float:
            if step < peak:
                return between(warmup_start, 1.0, step / peak)
            return between(1.0, final_factor, min(1.0, (step - peak) / max(1, last - peak)))

        super().__init__(optimizer, factor, rise.notice)
