"""Training steps of a copy of the model that the run does not notice: weights, random numbers, order of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_vision.config import instantiate
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.order import ShuffledOrder
from lightning_vision.module import VisionModule
from lightning_vision.types import Batch

# Of Lightning's own, what would end a trial early, look at validation rows, or leave files.
NOT_IN_TRIALS = (
    *("max_time", "fast_dev_run", "min_steps", "min_epochs", "max_steps", "limit_val_batches", "num_sanity_val_steps"),
    *("val_check_interval", "check_val_every_n_epoch", "logger", "callbacks", "profiler", "enable_checkpointing"),
    *("enable_progress_bar", "enable_model_summary", "barebones", "limit_train_batches", "overfit_batches"),
    "sync_batchnorm",
)


@contextmanager
def unnoticed() -> Iterator[None]:
    """Give back the state of all random numbers."""
    with isolate_rng(include_cuda=torch.cuda.is_available()):
        yield


def copy_of(module: VisionModule) -> VisionModule:
    """A copy to train for a moment; it encodes every image anew."""
    cache, module.embeddings = module.embeddings, None
    try:
        return deepcopy(module)
    finally:
        module.embeddings = cache


def trial_trainer(config: Mapping[str, Any], **changes: Any) -> Trainer:
    """A trainer of the same devices, precision and clipping, that shows and saves nothing."""
    node = {key: value for key, value in config["trainer"].items() if key not in NOT_IN_TRIALS} | {"max_epochs": -1}
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    silent = {**dict.fromkeys(quiet, False), "limit_val_batches": 0, "num_sanity_val_steps": 0}
    return cast(Trainer, instantiate({**node, **silent, **changes}))


def first_batches(data: VisionDataModule, count: int, size: int | None = None, training: bool = False) -> list[Batch]:
    """Some full batches of training rows, the first ones of a run, on the CPU; ``training``: for an augmentation."""
    rows, size = data.index.rows("train"), data.batch_size if size is None else size
    rows = rows[ShuffledOrder(len(rows), data.seed).order()]
    full = max(1, min(count, len(rows) // size))
    return [data.batch(rows[i * size : (i + 1) * size], training) for i in range(full)]


def steps_of_run(config: Mapping[str, Any], data: VisionDataModule, processes: int = 1) -> float:
    """Training steps (batches) of the whole run in each of its processes; infinite where nothing limits them."""
    trainer = config["trainer"]
    limit, epochs = trainer.get("limit_train_batches"), trainer.get("max_epochs")
    items = len(data.index.rows("train")) if data.num_items_per_epoch is None else data.num_items_per_epoch
    batches: float = math.ceil(math.ceil(items / processes) / config["batch_size"])
    if limit is not None:
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = batches * (math.inf if epochs in (None, -1) else epochs)
    most = trainer.get("max_steps", -1)
    return steps if most == -1 else min(steps, most * trainer.get("accumulate_grad_batches", 1))
