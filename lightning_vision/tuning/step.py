"""Training steps of a copy of the model whose memory is counted."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_vision.data.modes import available_memory
from lightning_vision.module import VisionModule
from lightning_vision.tuning.trial import copy_of, trial_trainer
from lightning_vision.types import Batch

# Copies of the trained parameters that an optimizer keeps beside their gradients (Adam).
OF_OPTIMIZER = 2


class Live(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations make, for as long as something holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        # A view of a weight, or of what was there before, is nothing new.
        given = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(made):
            storage = value.untyped_storage() if isinstance(value, Tensor) else None
            if storage is not None and storage._cdata not in self.seen and storage._cdata not in given:
                self.seen.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _free(self, key: int, nbytes: int) -> None:
        self.seen.discard(key)
        self.now -= nbytes


class Step:
    """Training steps of a copy of a model, whose memory is looked at.

    Args:
        module: It stays as it is.
        config: The config of the run; a precision of ``auto`` is that of fp32.
        device: Where the steps are made.
    """

    def __init__(self, module: VisionModule, config: Mapping[str, Any], device: torch.device) -> None:
        precision = config["trainer"].get("precision", "32-true")
        self.plugin = trial_trainer(config, precision=precision, max_steps=1).precision_plugin
        self.device = device
        self.copy = cast(VisionModule, self.plugin.convert_module(copy_of(module).to(device))).train()
        if self.copy.views == 1:
            self.copy.augmentation = nn.ModuleList()
        self.trained_bytes = sum(p.nbytes for p in self.copy.parameters() if p.requires_grad)

    def run(self, batch: Batch) -> None:
        """Forward and backward."""
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
        with Live() as live:
            self.run(batch)
        return float(live.most)


def of_size(batch: Batch, size: int) -> Batch:
    """The images of a batch, over and over, as a batch of another size."""

    def resized(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resized(part) for key, part in value.items()}
        if isinstance(value, list):
            return [resized(part) for part in value]
        assert isinstance(value, Tensor)
        return value[torch.arange(size) % len(value)]

    return cast(Batch, resized(batch))


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where nothing tells."""
    if device.type != "cuda":
        return available_memory()
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + reserved
