"""An exponential moving average of the weights."""

from __future__ import annotations

from typing import Annotated

from lightning.pytorch import Trainer

from lightning_vision.callbacks.averaging import WeightAverage
from lightning_vision.types import Between


class ExponentialAverage(WeightAverage):
    """Keep ``decay * average + (1 - decay) * weights``; what is validated and kept is the average.

    Args:
        decay: Share of the average that an update leaves.
        warmup: The n-th update, counted from 0, leaves at most ``(1 + n) / (10 + n)``, so that the first weights are
            soon forgotten (TensorFlow's ``num_updates``). With 0.999 this holds for the first 9000 updates.
        update_every_n_steps: Optimizer steps between two updates.
        update_starting_at_step: Steps before the first update.
        update_starting_at_epoch: Epochs before the first update.
    """

    def __init__(
        self,
        decay: Annotated[float, Between(0, 1, high_open=True)] = 0.999,
        warmup: bool = True,
        update_every_n_steps: Annotated[int, Between(1)] = 1,
        update_starting_at_step: Annotated[int, Between(0)] = 0,
        update_starting_at_epoch: Annotated[int, Between(0)] = 0,
    ) -> None:
        super().__init__()
        self.decay = decay
        self.warmup = warmup
        self.every = update_every_n_steps
        self.first_step = update_starting_at_step
        self.first_epoch = update_starting_at_epoch

    def due(self, trainer: Trainer) -> bool:
        """Every so many steps, from the first step and epoch on."""
        step = trainer.global_step
        return step > self.first_step and trainer.current_epoch >= self.first_epoch and step % self.every == 0

    def share(self) -> float:
        """What the decay does not leave."""
        n = self.updates
        return 1 - (min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay)
