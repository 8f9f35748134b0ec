"""What follows the encoder for one output: neck, decoder, loss, task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.inlet import Features, Inlet
from lightning_vision.losses.base import Loss
from lightning_vision.tasks.base import Task
from lightning_vision.types import Batch, TargetSpec

# Training batches that wait to be counted: 4 MB of logits, or so many.
MOST_NOTED, MOST_BATCHES = 2**20, 64


class HeadOutput(NamedTuple):
    """What a head makes of features.

    Args:
        logits: What its decoder returns: logits, vectors or scores.
        hidden: ``(B, D)``, the input of the decoder's last layer, where the decoder tells.
    """

    logits: Tensor
    hidden: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """What outputs that depend on it see: the last hidden values, or the logits where there are none."""
        return self.logits if self.hidden is None else self.hidden


class Predicted(NamedTuple):
    """What a model makes of a batch in a prediction.

    Args:
        rows: ``(B,)``, of the index.
        outputs: Of each head, by its name; empty without rows.
        embedding: ``(B, D)`` of the encoder, where it is wanted.
    """

    rows: Tensor
    outputs: Mapping[str, HeadOutput] = MappingProxyType({})
    embedding: Tensor | None = None


class Head(nn.Module):
    """One output of a model: from the encoder's features to logits, loss and figures.

    Args:
        decoder: Features to logits.
        task: Figures and predictions.
        loss: Logits and targets to a scalar; None for a module that only predicts.
        neck: One-scale maps to a pyramid, or None where the decoder takes the encoder's output as it is.
        weight: Factor of its loss in the sum over all outputs.
        column: Name of its target in ``batch["targets"]``; None: it is ``batch["target"]``.
        inlet: What it takes from other outputs, or in place of the encoder's embedding; None for nothing.
        calibrate: What is fitted on the validation split: ``temperature``, ``thresholds``.

    Attributes:
        temperature: Of tasks that calibrate it: logits are divided by it; 1 unless it was fitted.
        thresholds: Of ``multilabel``: ``(C,)``, a label is predicted from here on; 0.5 unless they were fitted.
        threshold: Of ``open_set``: the confidence from which on an image belongs to a class.
    """

    temperature: Tensor
    thresholds: Tensor
    threshold: Tensor

    def __init__(
        self,
        decoder: Decoder,
        task: Task,
        loss: Loss | None = None,
        neck: nn.Module | None = None,
        weight: float = 1.0,
        column: str | None = None,
        inlet: Inlet | None = None,
        calibrate: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.inlet = inlet
        self.neck = neck
        self.decoder = decoder
        self.loss = loss
        self.task = task
        self.weight = weight
        self.column = column
        self.train_scores = task.scores("train") if task.train_figures else None
        self.val_scores = task.scores("val")
        self.test_scores = task.scores("test")
        # Segmentation is also scored at the size of each mask's own file.
        self.original_scores = task.scores("original") if task.target_kind == "mask" else None
        self.results: dict[str, dict[str, Tensor]] = {}
        self._noted: list[tuple[Tensor, Tensor]] = []
        self._noted_size = 0
        self.calibrate = calibrate
        # In the validation of a fit, what is fitted there does not count yet.
        self.calibrating = False
        for key, value in task.buffers().items():
            self.register_buffer(key, value)

    @property
    def consumes(self) -> str:
        """What of the encoder's features it takes: ``embedding``, ``pyramid`` or ``logits``."""
        reduces = self.inlet is not None and self.inlet.reduce_input is not None
        return "pyramid" if reduces else self.decoder.consumes

    @property
    def dependencies(self) -> tuple[str, ...]:
        """Names of the outputs whose values it takes."""
        return () if self.inlet is None else tuple(self.inlet.widths)

    @property
    def views(self) -> int:
        """Augmented views of each image that its loss compares."""
        return 1 if self.loss is None else self.loss.views

    @property
    def trained_target(self) -> TargetSpec:
        """What its target is in training, where mask pixels that no image pixel covers any more are ignored too."""
        target = self.task.target
        return target if self.loss is None else replace(target, ignore_index=self.loss.ignore_index)

    def forward(
        self, features: Features, size: tuple[int, int], others: Mapping[str, HeadOutput] | None = None
    ) -> HeadOutput:
        """Decode the encoder's features of images of this height and width.

        Args:
            features: What ``consumes`` says.
            size: Height and width of the images, in pixels.
            others: The outputs so far, among them those that it depends on.
        """
        if self.inlet is not None:
            features = self.inlet(features, {name: other.seen for name, other in (others or {}).items()})
        if self.neck is not None:
            features = self.neck(features, size)
        if self.decoder.splits:
            hidden = self.decoder.hidden(features, size)
            return HeadOutput(self.decoder.last(hidden), hidden)
        return HeadOutput(self.decoder(features, size))

    def target(self, batch: Batch) -> Tensor | None:
        """Return its target of a batch, if there is any."""
        return batch.get("target") if self.column is None else batch.get("targets", {}).get(self.column)

    def loss_of(
        self,
        output: HeadOutput,
        target: Tensor | None,
        inputs: Tensor | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the loss of an output, without the head's weight.

        Args:
            output: What ``forward`` returned.
            target: The target of the same samples.
            inputs: The model's own input, for a loss that searches around it.
            score: From such inputs to scores ``(B,)``.
        """
        if self.loss is None:
            raise RuntimeError("this module was built without a loss: it predicts only")
        known: Mapping[str, object] = {"features": output.hidden, "inputs": inputs, "score": score}
        value: Tensor = self.loss(output.logits, target, **{name: known[name] for name in self.loss.needs})
        return value

    def count_later(self, logits: Tensor, target: Tensor | None) -> None:
        """Note a training batch for the training figures; many are counted at once, which costs a fraction."""
        if target is None:
            return
        self._noted.append((logits.detach(), target))
        self._noted_size += logits.numel()
        if self._noted_size > MOST_NOTED or len(self._noted) == MOST_BATCHES:
            self.count_now()

    def count_now(self) -> None:
        """Count the training batches that were noted."""
        if self._noted and self.train_scores is not None:
            logits, targets = (torch.cat(parts) for parts in zip(*self._noted, strict=True))
            self.task.update(self.train_scores, self, HeadOutput(logits), targets)
        self._noted.clear()
        self._noted_size = 0

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return what predictions show of logits ``(B, C, ...)``, at the fitted temperature."""
        return self.task.probabilities(self, logits)

    def tempered(self, logits: Tensor) -> Tensor:
        """Divide logits by the fitted temperature; not while it is being fitted."""
        return logits if self.calibrating else logits / self.temperature.to(logits.dtype)
