"""An average of the weights of a run, which is validated and kept, while the training goes on with the raw ones."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_vision.checkpoint import AVERAGE, RAW
from lightning_vision.errors import ConfigError

# Statistics that a norm learns beside its weights.
STATISTICS = ("running_mean", "running_var")


class WeightAverage(Callback):
    """Average the trained weights and the statistics of norms.

    From the first update on validation, checkpoints, test and the finished module have the average; the training, and a
    run that is resumed, have the raw weights.

    Lightning's ``WeightAveraging`` copies the whole module, frozen encoder and all, to the CPU even if the training is
    on a GPU; it averages constants, which drift by their rounding, and counters; it validates the initial weights until
    the first update; and what the module learns of its validation (thresholds, temperature) goes to the weights that
    are not saved. Here only what an optimizer changes is kept, by name.

    Subclasses say when the weights count, and for how much.
    """

    injected: ClassVar[tuple[str, ...]] = ()
    averages_weights: ClassVar[bool] = True

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}
        self.updates = 0
        self._current: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}  # while the module holds the average
        self._steps = 0

    def due(self, trainer: Trainer) -> bool:
        """Whether the weights behind the step that was just taken count."""
        raise NotImplementedError

    def share(self) -> float:
        """Share of the present weights in the average of all, (0, 1]; ``updates`` went in before."""
        raise NotImplementedError

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin without an average.

        Raises:
            ConfigError: The model is split among processes, so that none could average it.
        """
        if stage != "fit":
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ConfigError(
                "An average of the weights needs the whole model in every process.",
                given=f"trainer.strategy={type(trainer.strategy).__name__}",
                expected="ddp, or one device",
                override=["trainer.strategy=ddp", "callbacks=default"],
            )
        self.average, self._raw, self.updates = {}, {}, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find what is averaged: the parameters of the optimizer, those that are still frozen too."""
        trained = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
        parts = dict(pl_module.named_children())
        # Tied encoders have several names, under each of which a checkpoint has them.
        parameters = pl_module.named_parameters(remove_duplicate=False)
        named: dict[str, Tensor] = {n: p for n, p in parameters if id(p) in trained}
        learning = {name for name, part in parts.items() if any(id(p) in trained for p in part.parameters())}
        buffers = pl_module.named_buffers(remove_duplicate=False)
        named |= {n: b for n, b in buffers if n.split(".")[0] in learning and n.rpartition(".")[2] in STATISTICS}
        self._current = named
        self.average = {name: tensor.to(self._current[name].device) for name, tensor in self.average.items()}
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights of a step; a batch that is only accumulated takes none."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            if self.due(trainer):
                self.update(trainer, pl_module)

    @torch.no_grad()
    def update(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take in the present weights."""
        if not self.updates:
            self.average = {name: _precise(tensor).clone() for name, tensor in self._current.items()}
        else:
            # Towards the newest by a share of the difference: what does not change stays as it is to the last bit.
            torch._foreach_lerp_(
                list(self.average.values()), [_precise(self._current[name]) for name in self.average], self.share()
            )
        self.updates += 1

    @torch.no_grad()
    def show(self) -> None:
        """Put the average into the module."""
        if self.updates and not self._raw:
            self._raw = {name: tensor.clone() for name, tensor in self._current.items()}
            for name, tensor in self._current.items():
                tensor.copy_(self.average[name])

    @torch.no_grad()
    def hide(self) -> None:
        """Put the raw weights back."""
        for name, tensor in self._raw.items():
            self._current[name].copy_(tensor)
        self._raw = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.show()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the raw weights, once the module is done with its validation; checkpoints are saved after this."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.hide()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the module."""
        self.show()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the raw weights in the module where a fit ends in the middle of a validation."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.hide()

    def state_dict(self) -> dict[str, Any]:
        """Return how many weights went in; the average itself is the checkpoint's weights."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on averaging."""
        self.updates = state_dict["updates"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the weights, and the raw ones beside it for a run that goes on."""
        if self.updates and self._current:
            state = checkpoint["state_dict"]
            checkpoint[RAW] = dict(self._raw) or {name: state[name] for name in self.average}
            checkpoint["state_dict"] = self.averaged(state)
            # What the weights' own precision would round, a run that goes on needs as it is.
            precise = {k: tensor for k, tensor in self.average.items() if tensor.dtype != state[k].dtype}
            if precise:
                checkpoint[AVERAGE] = precise

    def averaged(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a module with the average in place of the raw ones, in their own precision."""
        if not self.updates or not self._current:
            return state
        return {**state, **{name: tensor.to(self._current[name].dtype) for name, tensor in self.average.items()}}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average out of a checkpoint whose raw weights the training goes on with."""
        self.average = {name: _precise(tensor).clone() for name, tensor in checkpoint.get(AVERAGE, {}).items()}


def _precise(tensor: Tensor) -> Tensor:
    """Half precision would lose small shares."""
    return tensor.float() if tensor.element_size() < 4 else tensor
