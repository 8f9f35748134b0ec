"""Intervals that tasks report, beside their figures and a loop over draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from lightning_vision.metrics import AnomalyScores, ClassificationScores, MultilabelScores, OpenSetScores
from lightning_vision.metrics.bootstrap import MOST_IMAGES, MOST_RANKED
from lightning_vision.tasks.anomaly import Anomaly
from lightning_vision.tasks.classification import Classification
from lightning_vision.tasks.multilabel import Multilabel
from lightning_vision.tasks.open_set import OpenSet
from lightning_vision.tasks.segmentation import ImageScores, Segmentation
from lightning_vision.types import UNKNOWN, TargetSpec

NAMES = ("sky", "road", "car")


def logits_of(target: Tensor, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    clear = torch.nn.functional.one_hot(target.clamp(0, 2), 3).movedim(-1, 1) if target.ndim != 2 else target
    return torch.randn(shape, generator=generator) + clear


def labels(size: int = 120) -> Tensor:
    return torch.randint(0, 3, (size,), generator=torch.Generator().manual_seed(0))


def around(intervals: dict[str, tuple[float, float]], figures: dict[str, float], names: set[str]) -> None:
    assert set(intervals) == names
    for name, (low, high) in intervals.items():
        assert low < figures[name] < high, name


def test_classification() -> None:
    target, task = labels(), Classification(TargetSpec("label", NAMES))
    scores = ClassificationScores(3)
    scores.update(logits_of(target, (120, 3)), target)
    computed = scores.compute()
    around(task.intervals(computed), task.figures(computed), {"accuracy", "accuracy_macro", "f1"})


def test_open_set() -> None:
    target, task = labels(), OpenSet(TargetSpec("label", NAMES, ignore_index=-1))
    logits = logits_of(target, (120, 3)) * 2
    target[::4] = -1
    known, every = ClassificationScores(3, -1), OpenSetScores()
    known.update(logits, target)
    every.update(logits, target, confidence=logits.amax(1) + (target >= 0))
    computed = known.compute() | every.compute()
    names = {"accuracy", "accuracy_macro", "f1"}
    around(task.intervals(computed), task.figures(computed), names | {"unknown_auroc"})
    many = torch.zeros(MOST_IMAGES + 1)
    assert set(task.intervals(computed | {"confidence": many, "known": many.bool()})) == names


def test_anomaly() -> None:
    anomalous, task = labels() == 0, Anomaly(TargetSpec("label", ("good", "bad")))
    scores = AnomalyScores()
    scores.update(torch.randn(120, generator=torch.Generator().manual_seed(0)) + anomalous, anomalous)
    stored = dict(zip(("scores", "anomalous"), scores.stored(), strict=True))
    computed = scores.compute() | stored | {"threshold": torch.tensor(0.5)}
    around(task.intervals(computed), task.figures(computed), {"auroc", "average_precision"})
    many = torch.zeros(MOST_IMAGES + 1)
    assert task.intervals({"scores": many, "anomalous": many.bool()}) == {}


def test_segmentation() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (20, 4, 5), generator=generator)
    task, scores = Segmentation(TargetSpec("mask", NAMES)), ImageScores(3)
    scores.update(logits_of(target, (20, 3, 4, 5)), target)
    computed = scores.compute()
    names = {"mean_iou", "pixel_accuracy", "mean_accuracy", "dice", "frequency_weighted_iou"}
    around(task.intervals(computed), task.figures(computed), names)
    assert task.intervals({name: value for name, value in computed.items() if name != "per_image"}) == {}


def test_multilabel_against_scikit_learn_draw_by_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(80, 3, generator=generator) < torch.tensor([0.5, 0.2, 0.02])).to(torch.uint8)
    target[torch.rand(80, 3, generator=generator) < 0.2] = UNKNOWN
    task, scores = Multilabel(TargetSpec("labels", NAMES)), MultilabelScores(3)
    scores.update(logits_of(target, (80, 3)), target)
    computed = scores.compute()
    found = task.intervals(computed)
    around(found, task.figures(computed), {"mean_average_precision"})
    values, truth, expected = computed["probabilities"].numpy(), computed["truth"].numpy(), []
    for rows in torch.randint(80, (600, 80), generator=generator).numpy():
        columns = [(truth[rows, c], values[rows, c]) for c in range(3)]
        kept = [(t[t != UNKNOWN], v[t != UNKNOWN]) for t, v in columns]
        expected.append(np.mean([average_precision_score(t, v) for t, v in kept if t.any()]))
    ends = np.percentile(expected, [2.5, 97.5])
    assert list(found["mean_average_precision"]) == pytest.approx(ends, abs=0.12 * (ends[1] - ends[0]))


def test_multilabel_leaves_out_what_would_take_long() -> None:
    task = Multilabel(TargetSpec("labels", NAMES))
    for shape in ((MOST_IMAGES + 1, 1), (1000, MOST_RANKED // 1000 + 1)):
        assert task.intervals({"probabilities": torch.zeros(shape), "truth": torch.zeros(shape)}) == {}
    assert task.intervals({}) == {}
