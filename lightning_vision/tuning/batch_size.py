"""The largest batch that fits into memory, from the memory of a few small steps.

Lightning's finder doubles the batch until memory runs out, which on a CPU ends the run: the system kills the process.
Here the memory of small steps is measured and extended in a straight line, and only the choice is tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.tuning.step import OF_OPTIMIZER, Step, free_memory, of_size
from lightning_vision.tuning.trial import first_batches
from lightning_vision.types import Batch

# Of the free memory, what a step may take.
SHARE = 0.8
# Batch sizes that are measured, or halves of them where they do not fit.
MEASURED = (4, 8)
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
    free = free_memory(device)
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


class _Step(Step):
    """A training step of a copy, whose memory is looked at."""

    def line(self, batch: Batch) -> tuple[float, float] | None:
        """Bytes that each image of a step takes, and those of the rest; None where two images do not fit."""
        small, large = MEASURED
        while small >= 1:
            try:
                less, more = (self.memory(of_size(batch, size)) for size in (small, large))
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
                self.run(of_size(batch, size))
                return size
            except torch.OutOfMemoryError:
                self.copy.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                size //= 2
        raise _nothing_fits()


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1) if number >= 1 else 0
