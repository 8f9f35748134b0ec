"""An encoder that is frozen for the first epochs, while the new layers find their way, and trained from then on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_vision.encoders.base import Encoder
from lightning_vision.errors import ConfigError


class FreezeEncoder(Callback):
    """Freeze ``pl_module.encoder`` until an epoch begins, and train it from then on.

    Frozen is what ``encoder.trainable=false`` means: no gradients, and eval mode, so that BatchNorm statistics stand
    still. The parameters have their groups in the optimizer from the start, but no state there before their first
    gradient. Whether they are frozen follows from the epoch alone, so a resumed run needs to know nothing else.

    With several processes the model is wrapped anew where the encoder is unfrozen: DDP notes at its making which
    parameters get gradients. A frozen one that it waits for stops the run for good, and one that it does not know would
    drift apart among the processes.

    Args:
        epochs: Number of epochs, at least 1.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.frozen = False
        self.parameters: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze before the model is wrapped; the epoch of a resumed run is known only later.

        Raises:
            ConfigError: The model is split among processes, so that it cannot be wrapped anew.
        """
        if stage != "fit":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ConfigError(
                "encoder_freeze_epochs needs the whole model in every process.",
                given=f"trainer.strategy={type(trainer.strategy).__name__}",
                expected="ddp, or one device",
                override=["trainer.strategy=ddp", "encoder_freeze_epochs=0"],
            )
        if self.frozen:  # an exception ended the fit before: Lightning calls no teardown then
            self._freeze(pl_module, False)
        self.parameters = [p for p in _encoder(pl_module).parameters() if p.requires_grad]
        self._freeze(pl_module, True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze or not, as the epoch of a resumed run says."""
        self._follow_epoch(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unfreeze where the time has come."""
        self._follow_epoch(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was built, also where the training ended early."""
        if stage == "fit":
            self._freeze(pl_module, False)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Let the parameters count as trained, while an optimizer is made for the whole run."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(not self.frozen)

    def _follow_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        frozen = trainer.current_epoch < self.epochs
        if frozen == self.frozen:
            return
        self._freeze(pl_module, frozen)
        strategy: Any = trainer.strategy
        if isinstance(strategy.model, DistributedDataParallel):
            strategy.model = strategy.lightning_module
            strategy.configure_ddp()

    def _freeze(self, pl_module: LightningModule, frozen: bool) -> None:
        self.frozen = frozen
        encoder = _encoder(pl_module)
        for part in encoder.modules():
            if isinstance(part, Encoder):
                part.trainable = not frozen
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        encoder.train(pl_module.training)


def _encoder(module: LightningModule) -> Encoder:
    encoder = module.encoder
    assert isinstance(encoder, Encoder)
    return encoder
