"""What a step takes: memory and time of a copy, with noise for images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import lightning_vision as lv
from lightning_vision.module import VisionModule
from lightning_vision.tuning import cost
from lightning_vision.tuning.cost import measure, noise


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "SECONDS", 0.0)


def measured(**choices: Any) -> tuple[VisionModule, cost.Cost]:
    module, _ = lv.build(image_size=32, **choices)
    return module, measure(module, module.config)


def test_memory_of_weights_gradients_and_optimizer() -> None:
    module, found = measured(decoder="classifier", batch_size=4)
    weights = sum(p.nbytes for p in module.parameters())
    assert found.gradients == weights
    assert found.weights == weights + sum(b.nbytes for b in module.buffers())
    # Adam keeps two values for each weight, and a step for each tensor.
    assert found.optimizer == 2 * weights + 4 * len(list(module.parameters()))
    assert found.peak > found.weights + found.optimizer + found.gradients
    assert found.step is not None
    assert found.forward > 0
    _, plain = measured(
        decoder="classifier", batch_size=4, optimizer="sgd", **{"optimizer.momentum": 0.0, "optimizer.nesterov": False}
    )
    assert plain.optimizer == 0


def test_times_are_the_least_of_several_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy at first does not make a forward pass look longer than a step."""
    monkeypatch.setattr(cost, "SECONDS", 12.0)
    clock, turns = [0.0], []

    def act(name: str, seconds: list[float]) -> None:
        turns.append(name)
        clock[0] += seconds[min(turns.count(name), len(seconds)) - 1]

    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    here = SimpleNamespace(device=torch.device("cpu"))
    forward, step = cost._Measurement._timed(here, lambda: act("f", [8, 9, 1]), lambda: act("s", [3, 2, 4]))  # type: ignore[arg-type]
    assert (forward, step) == (1, 2)
    assert turns == ["f", "s"] * 3


def test_activations_are_what_autograd_keeps() -> None:
    """Against torch's own hooks; those also see weights, and inputs that were there before."""
    module, found = measured(decoder="unet", batch_size=4)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    there = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    module.augmentation = nn.ModuleList()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.train().training_step(noise(module, 4, module.geometry), 0)
    saved = sum(size for key, size in kept.items() if key not in there)
    assert found.activations == pytest.approx(saved, rel=0.1)
    assert loss.requires_grad


def test_a_batch_that_does_not_fit_is_extended_from_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = measured(decoder="classifier", batch_size=24)
    monkeypatch.setattr(cost, "free_memory", lambda device: 1)
    _, extended = measured(decoder="classifier", batch_size=24)
    assert (whole.timed_batch_size, extended.timed_batch_size) == (24, 4)
    assert extended.activations == pytest.approx(whole.activations, rel=0.05)
    assert extended.peak == pytest.approx(whole.peak, rel=0.05)


VIEWS = {"task": "embedding", "decoder": "projector", "augmentation": "views"}
ANOMALY = {"decoder": "anomaly", "decoder.normal_class": "circle"}


@pytest.mark.parametrize(
    "choices",
    [
        VIEWS,
        ANOMALY,
        {"decoder": "classifier", "loss": "entropic_open_set"},
        {"outputs": {"mask": {"decoder": "linear"}, "scene": {"decoder": "classifier", "target": "label"}}},
        {"decoder": "classifier", "encoder.trainable": False},
    ],
    ids=["views", "anomaly", "open set", "two outputs", "frozen"],
)
def test_every_task_makes_a_step(choices: dict[str, Any]) -> None:
    module, found = measured(batch_size=4, **choices)
    assert found.step is not None
    frozen = choices.get("encoder.trainable") is False
    assert (found.cached_step is not None) == frozen
    assert all(parameter.grad is None for parameter in module.parameters())
