"""What is fitted on the validation split is what predictions are made with."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lightning_vision as lv
from lightning_vision.decoders.classifier import ClassifierDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput
from lightning_vision.losses.base import Loss
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.losses.entmax import Entmax15Loss
from lightning_vision.losses.open_set import EntropicOpenSetLoss
from lightning_vision.losses.sigmoid import SigmoidCrossEntropyLoss
from lightning_vision.tasks.base import Task
from lightning_vision.tasks.classification import Classification
from lightning_vision.tasks.multilabel import Multilabel
from lightning_vision.tasks.open_set import OpenSet
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import FeatureInfo, TargetSpec

INFO = FeatureInfo((4,), (2,), 4)
NAMES = ("a", "b", "c")


def head(task: Task, loss: Loss) -> Head:
    return Head(ClassifierDecoder(INFO, 3), task, loss, calibrate=("temperature", "thresholds"))


def fitted(built: Head, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Let a head learn as the validation of a fit does, and return the figures of that."""
    scores = built.task.scores("val")
    built.calibrating = True
    built.task.update(scores, built, HeadOutput(logits), target, torch.ones(()))
    computed = built.task.compute(built, scores)
    built.task.learn(built, computed)
    built.calibrating = False
    return built.task.figures(computed)


def scored(built: Head, logits: Tensor, target: Tensor) -> dict[str, float]:
    scores = built.task.scores("test")
    built.task.update(scores, built, HeadOutput(logits), target, torch.ones(()))
    return built.task.figures(built.task.compute(built, scores))


def sample(count: int = 600, scale: float = 6.0) -> tuple[Tensor, Tensor]:
    """Logits that are too sure by a factor of ``scale``, and classes drawn from what they should be."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 3, generator=generator) * 2
    target = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * scale, target


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropyLoss, Entmax15Loss, SigmoidCrossEntropyLoss])
def test_the_temperature_is_the_best_for_what_is_shown(loss: type[Loss]) -> None:
    logits, target = sample(scale=1.5)
    built = head(Classification(TargetSpec("label", NAMES)), loss(3))
    fitted(built, logits, target)
    best = float(built.temperature)

    def likelihood(temperature: float) -> float:
        built.temperature.fill_(temperature)
        shown = built.probabilities(logits).clamp(min=1e-12)
        return float(nn.functional.nll_loss(shown.log(), target))

    # Of a sparse loss the classes that it rules out stay out at any temperature, and count the same.
    tolerance = 0.01 if loss is Entmax15Loss else 1e-4
    assert likelihood(best) <= min(likelihood(best * 0.9), likelihood(best * 1.1)) + tolerance
    assert likelihood(best) <= likelihood(1.0)
    torch.testing.assert_close(built.probabilities(logits).sum(1), torch.ones(len(logits)))


def test_a_temperature_that_was_known_is_found() -> None:
    logits, target = sample()
    built = head(Classification(TargetSpec("label", NAMES)), SoftmaxCrossEntropyLoss(3))
    raw = fitted(built, logits, target)
    assert float(built.temperature) == pytest.approx(6, rel=0.15)
    assert scored(built, logits, target)["calibration_error"] < 0.3 * raw["calibration_error"]
    assert scored(built, logits, target)["accuracy"] == raw["accuracy"]


def test_labels_that_are_certain_do_not_spoil_the_others() -> None:
    logits, _ = sample()
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand(logits.shape, generator=generator) < (logits / 6).sigmoid()).to(torch.uint8)
    built = head(Multilabel(TargetSpec("labels", NAMES)), SigmoidCrossEntropyLoss(3))
    fitted(built, logits, target)
    before = float(built.temperature)
    logits[0], target[0] = 80.0, 1
    fitted(built, logits, target)
    assert float(built.temperature) == pytest.approx(before, rel=0.1)
    assert before == pytest.approx(6, rel=0.2)


def test_the_threshold_of_the_unknown_goes_with_the_temperature() -> None:
    logits, target = sample()
    target[::4] = 3
    logits[::4] *= 0.1
    built = head(OpenSet(TargetSpec("label", NAMES, ignore_index=3)), EntropicOpenSetLoss(3, ignore_index=3))
    raw = fitted(built, logits, target)
    again = scored(built, logits, target)
    assert float(built.temperature) > 2
    for name in ("known_kept", "unknown_recall", "open_set_f1", "accuracy"):
        assert again[name] == pytest.approx(raw[name], abs=0.02), name
    assert raw["known_kept"] > 0.5


def test_the_mean_loss_is_over_what_the_loss_counts() -> None:
    logits, _ = sample(6)
    built = head(OpenSet(TargetSpec("label", NAMES, ignore_index=3)), EntropicOpenSetLoss(3, ignore_index=3))
    scores = built.task.scores("val")
    for value, ids in ((1.0, [0, 1, 2]), (5.0, [3, 3, 3])):
        target = torch.tensor(ids)
        built.task.update(scores, built, HeadOutput(logits[:3]), target, torch.tensor(value))
    assert built.task.compute(built, scores)["loss"] == 3


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"task": "segmentation", "decoder": "unet", "data.target": "mask"}, "a temperature to fit"),
        ({"data.val_fraction": 0.0}, "the data have none"),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    table = write_discs(tmp_path, ignore_index=None)
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] != "val"]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plain = {"data": "table", "decoder": "classifier", "calibrate": "temperature", "image_size": 32}
    dotted = {"data.path": str(table), "data.target": "label", **{k: v for k, v in values.items() if "." in k}}
    with pytest.raises(ConfigError, match=says):
        lv.build(**{**plain, **{k: v for k, v in values.items() if "." not in k}}, overrides=dotted)
