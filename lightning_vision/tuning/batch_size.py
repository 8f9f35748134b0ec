"""The largest batch that fits into memory, from the memory of a few small steps.

Lightning's finder doubles the batch until memory runs out, which on a CPU ends the run: the system kills the process.
Here the memory of small steps is measured and extended in a straight line, and only the choice is tried.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.modes import available_memory
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.tuning.trial import copy_of, first_batches, trial_trainer
from lightning_vision.types import Batch

# Of the free memory, what a step may take.
SHARE = 0.8
# Batch sizes that are measured, or halves of them where they do not fit.
MEASURED = (4, 8)
# Copies of the trained parameters that an optimizer keeps beside their gradients (Adam).
OF_OPTIMIZER = 2
# Batches of pixels in memory beside the one of the step.
WAITING = 3


@dataclass(frozen=True)
class Found:
    """The batch size, why, and a learning rate in proportion to it, if it is another than before."""

    batch_size: int
    why: str
    lr: float | None


def find_batch_size(
    config: Mapping[str, Any], module: VisionModule, data: VisionDataModule, device: torch.device
) -> Found:
    """Find the largest power of two whose step fits into ``SHARE`` of the free memory, at most the training rows.

    Args:
        config: The config of the run; a precision of ``auto`` is measured as fp32, which takes the most.
        module: It stays as it is.
        data: Its training rows are what is measured.
        device: Where the run trains.

    Raises:
        ConfigError: Not even one image fits, or nothing tells how much memory is free.
    """
    rows = len(data.index.rows("train"))
    batch = first_batches(data, 1, min(max(MEASURED), rows), training=module.views > 1)[0]
    try:
        step = _Step(module, config, device)
    except torch.OutOfMemoryError as error:
        raise _nothing_fits() from error
    line = step.line(batch)
    if line is None:
        return _found(step.largest(batch, 1), "a step of two images does not fit into memory", config)
    each, fixed = line
    fixed += OF_OPTIMIZER * step.trained_bytes
    if device.type == "cpu":
        each += WAITING * math.prod(data.train_geometry.shape)
    free = _free(device)
    if free is None:
        raise ConfigError(
            "Nothing tells how much memory is free, so that no batch size can be found.",
            given="trainer.find_batch_size=true",
            override=f"trainer.find_batch_size=false batch_size={config['batch_size']}",
        )
    fitting = int((SHARE * free - fixed) / each)
    size = step.largest(batch, _power_of_two(min(fitting, rows)))
    why = f"{each / 2**20:.3g} MiB an image and {fixed / 2**20:.3g} MiB for the rest"
    why += f" in {SHARE:.0%} of {free / 2**30:.3g} GiB, and {rows} training rows"
    return _found(size, why, config)


def _found(size: int, why: str, config: Mapping[str, Any]) -> Found:
    other = size != config["batch_size"]
    return Found(size, why, config["lr"] * size / config["batch_size"] if other else None)


def _nothing_fits() -> ConfigError:
    return ConfigError(
        "Not even one image fits into the memory that is free.",
        given="trainer.find_batch_size=true",
        expected="a smaller model or smaller images",
        override="image_size=64",
    )


class _Live(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations make, for as long as something holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            storage = value.untyped_storage() if isinstance(value, Tensor) else None
            if storage is not None and storage._cdata not in self.seen:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _free(self, key: int, nbytes: int) -> None:
        self.seen.discard(key)
        self.now -= nbytes


class _Step:
    """A training step of a copy, whose memory is looked at."""

    def __init__(self, module: VisionModule, config: Mapping[str, Any], device: torch.device) -> None:
        precision = config["trainer"].get("precision", "32-true")
        self.plugin = trial_trainer(config, precision=precision, max_steps=1).precision_plugin
        self.device = device
        self.copy = cast(VisionModule, self.plugin.convert_module(copy_of(module).to(device))).train()
        if self.copy.views == 1:
            self.copy.augmentation = nn.ModuleList()
        self.trained_bytes = sum(p.nbytes for p in self.copy.parameters() if p.requires_grad)

    def run(self, batch: Batch) -> None:
        self.copy.zero_grad(set_to_none=True)
        batch = self.copy.transfer_batch_to_device(batch, self.device, 0)
        with self.plugin.train_step_context():
            loss = self.copy.training_step(self.plugin.convert_input(batch), 0)
        loss.backward()
        self.copy.zero_grad(set_to_none=True)

    def memory(self, batch: Batch) -> float:
        """Most bytes of tensors that a step holds at once, beside the weights."""
        self.run(batch)  # what is allocated once and kept
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self.run(batch)
            return float(torch.cuda.max_memory_allocated(self.device) - before)
        # The size of the process does not tell: memory that is freed stays with it.
        with _Live() as live:
            self.run(batch)
        return float(live.most)

    def line(self, batch: Batch) -> tuple[float, float] | None:
        """Bytes that each image of a step takes, and those of the rest; None where two images do not fit."""
        small, large = MEASURED
        while small >= 1:
            try:
                less, more = (self.memory(_of_size(batch, size)) for size in (small, large))
            except torch.OutOfMemoryError:
                self.copy.zero_grad(set_to_none=True)
                small, large = small // 2, large // 2
                continue
            each = max(1.0, (more - less) / (large - small))
            return each, max(0.0, less - each * small)
        return None

    def largest(self, batch: Batch, size: int) -> int:
        """The first of ``size`` and its halves of which a step can be made."""
        while size >= 1:
            try:
                self.run(_of_size(batch, size))
                return size
            except torch.OutOfMemoryError:
                self.copy.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                size //= 2
        raise _nothing_fits()


def _free(device: torch.device) -> int | None:
    if device.type != "cuda":
        return available_memory()
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + reserved


def _of_size(batch: Batch, size: int) -> Batch:
    """The images of a batch, over and over, as a batch of another size."""

    def resized(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resized(part) for key, part in value.items()}
        if isinstance(value, list):
            return [resized(part) for part in value]
        assert isinstance(value, Tensor)
        return value[torch.arange(size) % len(value)]

    return cast(Batch, resized(batch))


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1) if number >= 1 else 0
