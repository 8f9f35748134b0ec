"""Lightning's Trainer with our settings beside its own."""

from __future__ import annotations

import logging
from typing import Annotated, Any, ClassVar, Literal

import torch
from lightning.pytorch import Trainer as LightningTrainer

from lightning_vision.errors import ConfigError
from lightning_vision.types import Between

Precision = Literal[
    "auto",
    "32-true",
    "bf16-mixed",
    "16-mixed",
    "64-true",
    "bf16-true",
    "16-true",
    "transformer-engine",
    "transformer-engine-float16",
    "64",
    "32",
    "16",
    "bf16",
]

log = logging.getLogger(__name__)


class Trainer(LightningTrainer):
    """Lightning's Trainer; what it does not know is done around a fit (``tuning``) and kept here as it was set.

    Args:
        accelerator: ``auto``, ``cpu``, ``gpu``, ``mps`` ...
        devices: How many, their numbers, or ``auto`` for all.
        num_nodes: Machines.
        strategy: ``auto``, ``ddp``, ``fsdp`` ...
        precision: Of the computation. ``auto``: a fit chooses by measuring steps; elsewhere as ``32-true``.
        channels_last: Memory format of convolutions in a fit; ``auto``: chosen by measuring steps.
        compile: Training steps run compiled (torch.compile); ``auto``: chosen by measuring steps.
        sync_batchnorm: Statistics of BatchNorm over all processes; torch has that for CUDA only, elsewhere it is left
            out with a word.
        max_epochs: Passes over the training data; None = until ``max_steps`` or ``max_time``.
        gradient_clip_val: Largest norm (or value) of the gradient; None = no clipping.
        gradient_clip_algorithm: ``norm`` (also None) or ``value``.
        accumulate_grad_batches: Batches an optimizer step.
        deterministic: Refuse (``true``) or report (``warn``) operations that are not reproducible.
        find_batch_size: A fit looks for the largest batch that fits into memory.
        find_lr: A fit looks for a learning rate.
        rest: Any other argument of Lightning's Trainer.

    Raises:
        ConfigError: How to clip is said, but not where.
    """

    rest_to_base: ClassVar[bool] = True

    def __init__(
        self,
        *,
        accelerator: str = "auto",
        devices: int | str | list[int] = 1,
        num_nodes: Annotated[int, Between(1)] = 1,
        strategy: str = "auto",
        precision: Precision = "32-true",
        channels_last: bool | Literal["auto"] = False,
        compile: bool | Literal["auto"] = False,
        sync_batchnorm: bool = False,
        max_epochs: int | None = None,
        gradient_clip_val: Annotated[float, Between(0)] | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        accumulate_grad_batches: Annotated[int, Between(1)] = 1,
        deterministic: bool | Literal["warn"] = False,
        find_batch_size: bool = False,
        find_lr: bool = False,
        **rest: Any,
    ) -> None:
        if gradient_clip_algorithm is not None and gradient_clip_val is None:
            raise ConfigError(
                "gradient_clip_algorithm does nothing without gradient_clip_val.",
                given=f"trainer.gradient_clip_algorithm={gradient_clip_algorithm}",
                expected="where to clip as well, or neither",
                override=["trainer.gradient_clip_val=1.0", "trainer.gradient_clip_algorithm=null"],
            )
        if sync_batchnorm and not (accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()):
            log.warning("trainer.sync_batchnorm is left out: torch synchronises BatchNorm on CUDA devices only")
            sync_batchnorm = False
        self.channels_last, self.compile = channels_last, compile
        self.find_batch_size, self.find_lr = find_batch_size, find_lr
        super().__init__(
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
            precision="32-true" if precision == "auto" else precision,
            sync_batchnorm=sync_batchnorm,
            max_epochs=max_epochs,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
            accumulate_grad_batches=accumulate_grad_batches,
            deterministic=deterministic,
            **rest,
        )
