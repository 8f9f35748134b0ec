"""Stochastic weight averaging: the mean of the weights at the ends of the last epochs."""

from __future__ import annotations

import math
from itertools import islice
from typing import Annotated, Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_vision.callbacks.averaging import STATISTICS, WeightAverage
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.types import Between


class StochasticWeightAverage(WeightAverage):
    """Average the weights at the ends of the last epochs equally (Izmailov et al. 2018).

    The rate should not fall to nothing meanwhile: ``scheduler=constant``. Statistics of BatchNorm do not average, so
    those of the averaged weights are taken anew from training batches, after each epoch that counts. That is what it
    costs, a forward pass over ``batch_norm_batches`` batches an epoch, and nothing without BatchNorm layers that are
    trained.

    Args:
        start: Share of the epochs before the first that counts; the last one always does.
        batch_norm_batches: Training batches that the statistics are taken from. None: all.
    """

    def __init__(
        self,
        start: Annotated[float, Between(0, 1, high_open=True)] = 0.75,
        batch_norm_batches: Annotated[int, Between(1)] | None = 100,
    ) -> None:
        super().__init__()
        self.start = start
        self.batch_norm_batches = batch_norm_batches

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin without an average.

        Raises:
            ConfigError: The number of epochs is not known, there is no VisionDataModule to ask for batches, or the
                model is split among processes.
        """
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not hasattr(trainer.datamodule, "train_sample_dataloader"):  # type: ignore[attr-defined]
            raise ConfigError(
                "Stochastic weight averaging takes statistics from batches of a VisionDataModule.",
                given="trainer.fit with other loaders",
                override=["trainer.fit(module, data)", "callbacks=[default,ema]"],
            )
        if stage == "fit" and trainer.max_epochs in (None, -1):
            raise ConfigError(
                "Stochastic weight averaging begins after a share of the epochs, and their number is not known.",
                given=f"trainer.max_epochs={trainer.max_epochs}",
                override=["epochs=10", "callbacks=[default,ema]"],
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find what is averaged.

        Raises:
            ConfigError: The run ends by its steps before an epoch that counts does.
        """
        super().on_train_start(trainer, pl_module)
        of_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        needed = of_epoch * (self._first(trainer) + 1)
        if not self.updates and trainer.max_steps != -1 and trainer.max_steps < needed:
            raise ConfigError(
                "The run ends before the weights of an epoch are averaged.",
                given=f"trainer.max_steps={trainer.max_steps} and callbacks.swa.start={self.start}",
                expected=f"at least {needed} steps, {of_epoch} an epoch, {self._first(trainer)} epochs not averaged",
                override=[f"+trainer.max_steps={needed}", "callbacks=[default,ema]"],
            )

    def _first(self, trainer: Trainer) -> int:
        """Epochs before the first that counts."""
        return int(self.start * cast(int, trainer.max_epochs))

    def due(self, trainer: Trainer) -> bool:
        """At the end of an epoch, before it is validated. Once begun it goes on, also in a run that was prolonged."""
        return trainer.is_last_batch and (self.updates > 0 or trainer.current_epoch >= self._first(trainer))

    def share(self) -> float:
        """The same for all."""
        return 1 / (self.updates + 1)

    def update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the present weights, and take the statistics of the average anew."""
        super().update(trainer, pl_module)
        norms = [m for m in pl_module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [m for m in norms if m.training and m.running_mean is not None]
        if norms:
            assert isinstance(pl_module, VisionModule)
            self._take_statistics(trainer, pl_module, norms)

    @torch.no_grad()
    def _take_statistics(self, trainer: Trainer, module: VisionModule, norms: list[Any]) -> None:
        modes = {part: part.training for part in module.modules()}
        kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        self.show()
        try:
            module.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.train()
            own = [] if module.device.type == "cpu" else [module.device]
            with torch.random.fork_rng(own, device_type=module.device.type):
                for number, batch in enumerate(islice(self._batches(trainer), self.batch_norm_batches)):
                    module.run_training_batch(trainer.strategy.batch_to_device(batch, module.device), number)
            for name, tensor in self._current.items():
                if name.rpartition(".")[2] in STATISTICS:
                    self.average[name].copy_(trainer.strategy.reduce(tensor.clone(), reduce_op="mean"))
        finally:
            for norm, (momentum, count) in zip(norms, kept, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)
            self.hide()
            for part, training in modes.items():
                part.training = training

    def _batches(self, trainer: Trainer) -> Any:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        loader = data.train_sample_dataloader()
        loader.sampler.set_epoch(trainer.current_epoch)
        return iter(loader)
