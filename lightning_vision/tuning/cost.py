"""What training steps of a model take on this machine: memory of its weights and of a step, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_vision.module import VisionModule
from lightning_vision.optim.groups import parameter_groups
from lightning_vision.tuning.step import OF_OPTIMIZER, Live, Step, free_memory, of_size
from lightning_vision.tuning.trial import trial_trainer, unnoticed
from lightning_vision.types import Batch, Geometry

# Seconds that are spent on repeating each thing that is timed, and how often it is done at most.
SECONDS, MOST = 1.0, 20
# Batch sizes that show whether a larger one fits, and from which it follows in a straight line.
SMALL = (2, 4)


@dataclass
class Cost:
    """Memory in bytes, time in seconds.

    Args:
        device: Where the steps were made.
        precision: Of the computation.
        batch_size: Images of a step.
        timed_batch_size: Images of the steps that were timed; fewer where the whole batch does not fit into memory.
        weights: Parameters and buffers.
        gradients: Of what is trained.
        optimizer: What the optimizer keeps.
        activations: What a forward pass keeps for the backward pass, the batch itself left out.
        peak: Most that weights, optimizer and a step take together.
        free: Free memory before all that; None where nothing tells.
        forward: Of a forward pass without autograd, in eval mode.
        step: Of a training step, with its optimizer; None where nothing is trained.
        cached_step: The same behind a frozen encoder whose features are cached; None where they are not.
    """

    device: str
    precision: str
    batch_size: int
    timed_batch_size: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    peak: int
    free: int | None
    forward: float
    step: float | None
    cached_step: float | None = None


def measure(module: VisionModule, config: Mapping[str, Any], geometry: Geometry | None = None) -> Cost:
    """Make some training steps of a copy with noise for images.

    Memory is that of tensors, counted as operations make them and let them go (on a GPU: what its allocator says); what
    the process itself and its libraries take is not in it. Where a batch would take more than is free, its memory is
    extended in a straight line from that of smaller ones, and these are timed.

    Args:
        module: It stays as it is.
        config: The config of a run.
        geometry: Of training images before their augmentation, where it makes views of them; None = the model's own.
    """
    device = trial_trainer(config, max_steps=1).strategy.root_device
    precision = str(config["trainer"].get("precision", "32-true"))
    free = free_memory(device)
    size = int(config["batch_size"])
    with unnoticed():
        torch.manual_seed(0)
        return _Measurement(module, config, device).cost(size, geometry or module.geometry, precision, free)


def noise(module: VisionModule, size: int, geometry: Geometry) -> Batch:
    """A batch of noise with targets of every output; classes in turn, masks in stripes."""
    batch: Batch = {
        "image": torch.randint(0, 256, (size, *geometry.shape), dtype=torch.uint8),
        "index": torch.arange(size),
    }
    targets: dict[str, Tensor] = {}
    for _, head in module.named_heads():
        spec = head.task.target
        classes = spec.num_classes
        ids = torch.arange(size) % max(1, classes)
        if spec.kind == "mask":
            rows = torch.arange(geometry.height).view(1, -1, 1) // 8
            target = ((ids.view(-1, 1, 1) + rows) % classes).expand(-1, -1, geometry.width).to(torch.uint8)
        elif spec.kind == "labels":
            target = torch.randint(0, 2, (size, classes), dtype=torch.uint8)
        else:
            target = ids
        if not classes:
            continue
        if head.column is None:
            batch["target"] = target.contiguous()
        else:
            targets[head.column] = target.contiguous()
    return batch | {"targets": targets} if targets else batch


class _Measurement(Step):
    """Steps of a copy, with an optimizer."""

    def __init__(self, module: VisionModule, config: Mapping[str, Any], device: torch.device) -> None:
        super().__init__(module, config, device)
        copy = self.copy
        factor, decay = copy.encoder_lr_factor, copy.encoder_layer_decay
        groups = parameter_groups(copy.encoder, [copy.heads], copy.lr, copy.weight_decay, factor, decay)
        self.optimizer = copy.configure(groups, 1000, 100)[0] if groups and copy.configure is not None else None
        self.cached = module.embeddings is not None

    def cost(self, size: int, geometry: Geometry, precision: str, free: int | None) -> Cost:
        weights = sum(t.nbytes for t in (*self.copy.parameters(), *self.copy.buffers()))
        timed = size if self._fits(size, geometry, free) else max(SMALL)
        batch = noise(self.copy, timed, geometry)
        self._step(batch)  # allocates what is kept, such as the optimizer's state
        kept, most = self._memory(batch)
        if timed < size:
            less_kept, less_most = self._memory(of_size(batch, min(SMALL)))
            more = (size - timed) / (timed - min(SMALL))
            kept, most = (round(a + (a - b) * more) for a, b in ((kept, less_kept), (most, less_most)))
        state = [] if self.optimizer is None else tree_leaves(list(self.optimizer.state.values()))
        optimizer = sum(value.nbytes for value in state if isinstance(value, Tensor))
        image = batch["image"].to(self.device)
        acts = [lambda: self._forward(image), lambda: self._step(batch)]
        if (cached := self._cached(batch)) is not None:
            acts.append(lambda: self._step(cached))
        forward, step, *behind = self._timed(*acts)
        return Cost(
            device=_name(self.device),
            precision="32-true" if precision == "auto" else precision,
            batch_size=size,
            timed_batch_size=timed,
            weights=weights,
            gradients=self.trained_bytes,
            optimizer=optimizer,
            activations=kept,
            peak=weights + optimizer + most,
            free=free,
            forward=forward,
            step=step if self.optimizer is not None else None,
            cached_step=behind[0] if behind else None,
        )

    def _fits(self, size: int, geometry: Geometry, free: int | None) -> bool:
        """Whether a step takes less than is free, the optimizer's state included."""
        if free is None or size <= max(SMALL):
            return True
        less, more = (self._memory(noise(self.copy, few, geometry))[1] for few in SMALL)
        each = (more - less) / (SMALL[1] - SMALL[0])
        return more + each * (size - SMALL[1]) + OF_OPTIMIZER * self.trained_bytes < free

    def _memory(self, batch: Batch) -> tuple[int, int]:
        """Bytes of tensors that are kept behind the forward pass of a step, and the most of the whole step."""
        batch = self.copy.transfer_batch_to_device(batch, self.device, 0)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            loss = self._loss(batch)
            kept = torch.cuda.memory_allocated(self.device) - before
            self._backward(loss)
            return kept, torch.cuda.max_memory_allocated(self.device) - before
        with Live() as live:
            loss = self._loss(batch)
            kept = live.now
            self._backward(loss)
        return kept, live.most

    def _loss(self, batch: Batch) -> Tensor:
        with self.plugin.train_step_context():
            return self.copy.training_step(self.plugin.convert_input(batch), 0)

    def _backward(self, loss: Tensor) -> None:
        if loss.requires_grad:
            loss.backward()
        self.copy.zero_grad(set_to_none=True)

    def _step(self, batch: Batch) -> None:
        batch = self.copy.transfer_batch_to_device(batch, self.device, 0)

        def closure() -> Tensor:
            loss = self._loss(batch)
            if loss.requires_grad:
                loss.backward()
            return loss

        if self.optimizer is None:
            closure()
        else:
            self.optimizer.step(closure)  # type: ignore[arg-type]
        self.copy.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _forward(self, image: Tensor) -> None:
        self.copy.eval()
        with self.plugin.forward_context():
            self.copy.outputs(image)
        self.copy.train()

    def _cached(self, batch: Batch) -> Batch | None:
        """The batch with the features of a frozen encoder in the place of its images, where they are cached."""
        if not self.cached or self.optimizer is None:
            return None
        with torch.no_grad(), self.plugin.forward_context():
            (found,) = self.copy.encode(self.copy.normalize(batch["image"].to(self.device))).values()
        features = [f.float().cpu() for f in (found if isinstance(found, list) else [found])]
        cached: Batch = {"features": features} | {k: v for k, v in batch.items() if k != "image"}  # type: ignore[assignment]
        return cached

    def _timed(self, *acts: Callable[[], None]) -> list[float]:
        """Least of the seconds that each of several things takes; in turns, so that other load falls on all alike."""
        times: list[list[float]] = [[] for _ in acts]
        while not times[0] or (sum(map(sum, times)) < SECONDS * len(acts) and len(times[0]) < MOST):
            for act, own in zip(acts, times, strict=True):
                start = time.perf_counter()
                act()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                own.append(time.perf_counter() - start)
        return [min(own) for own in times]


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
