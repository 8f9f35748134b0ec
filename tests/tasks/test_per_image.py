"""What is said of single images, against loops in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_vision.head import Head, HeadOutput
from lightning_vision.tasks.anomaly import Anomaly
from lightning_vision.tasks.classification import Classification
from lightning_vision.tasks.multilabel import Multilabel
from lightning_vision.tasks.open_set import OpenSet
from lightning_vision.tasks.segmentation import Segmentation
from lightning_vision.types import TargetSpec

NAMES = ("a", "b", "c")


def head(task: Any, decoder: nn.Module | None = None) -> Head:
    return Head(decoder or nn.Identity(), task)  # type: ignore[arg-type]


def counted(task: Any, logits: torch.Tensor, target: torch.Tensor, own: Head | None = None) -> tuple[Any, Any]:
    own = own or head(task)
    scores = own.test_scores
    task.update(scores, own, HeadOutput(logits), target)
    return task.per_image(scores, own, HeadOutput(logits), target), task.compute(own, scores)


@pytest.mark.parametrize("ignored", [255, 1, None])
def test_iou_of_each_image(ignored: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    task = Segmentation(TargetSpec("mask", NAMES, ignored))
    logits = torch.randn(5, 3, 6, 7, generator=generator)
    target = torch.randint(0, 3, (5, 6, 7), generator=generator).to(torch.uint8)
    target[0] = 0
    logits[0, 2] = -9  # in image 0 the third class is in neither truth nor prediction
    if ignored is not None:
        target[1, :3] = ignored
        target[4] = ignored
    found, computed = counted(task, logits, target)
    for i in range(5):
        truth, guess = target[i].numpy(), logits[i].argmax(0).numpy()
        kept = truth != ignored if ignored is not None else np.ones_like(truth, bool)
        ious = []
        for c, name in enumerate(NAMES):
            both = int((kept & (truth == c) & (guess == c)).sum())
            either = int((kept & ((truth == c) | (guess == c))).sum())
            ious.append(both / either if either else math.nan)
            assert found.columns[f"iou/{name}"][i].item() == pytest.approx(ious[-1], nan_ok=True)
        mean = np.nanmean(ious) if kept.any() else math.nan
        assert found.columns["mean_iou"][i].item() == pytest.approx(mean, nan_ok=True)
        right = (guess == truth)[kept]
        assert found.columns["pixels"][i].item() == len(right)
        assert found.columns["pixel_accuracy"][i].item() == pytest.approx(
            right.mean() if len(right) else math.nan, nan_ok=True
        )
    # The split counts all pixels together: not the mean over the images.
    assert task.figures(computed)["mean_iou"] != pytest.approx(found.columns["mean_iou"].nanmean().item(), abs=1e-3)


def test_the_rows_of_a_classification_have_the_accuracy_and_the_log_loss_of_the_split() -> None:
    generator = torch.Generator().manual_seed(1)
    task = Classification(TargetSpec("label", NAMES, ignore_index=3))
    own = head(task)
    own.temperature.fill_(2.0)
    logits, target = torch.randn(50, 3, generator=generator), torch.randint(0, 4, (50,), generator=generator)
    found, computed = counted(task, logits, target, own)
    columns = found.columns
    known = (target < 3).tolist()
    assert columns["correct"].nanmean().item() == pytest.approx(task.figures(computed)["accuracy"])
    assert columns["truth"] == [NAMES[t] if k else "" for t, k in zip(target.tolist(), known, strict=True)]
    chances = np.exp(logits.double().numpy() / 2)
    chances /= chances.sum(1, keepdims=True)
    for i, (t, k) in enumerate(zip(target.tolist(), known, strict=True)):
        assert columns["probability"][i].item() == pytest.approx(chances[i].max(), rel=1e-5)
        assert columns["prediction"][i] == NAMES[chances[i].argmax()]
        expected = -math.log(chances[i, t]) if k else math.nan
        assert columns["loss"][i].item() == pytest.approx(expected, rel=1e-5, nan_ok=True)
    worst = found.badness.nan_to_num(-1).argmax().item()
    assert columns["loss"][worst].item() == columns["loss"].nan_to_num(-1).max().item()


def test_the_rows_of_labels_have_the_exact_match_of_the_split() -> None:
    generator = torch.Generator().manual_seed(2)
    task = Multilabel(TargetSpec("labels", NAMES))
    own = head(task)
    own.thresholds.copy_(torch.tensor([0.3, 0.5, 0.8]))
    logits = torch.randn(40, 3, generator=generator)
    target = torch.tensor([0, 1, 1, 255], dtype=torch.uint8)[torch.randint(0, 4, (40, 3), generator=generator)]
    target[0] = 255
    found, computed = counted(task, logits, target, own)
    columns = found.columns
    assert columns["correct"].nanmean().item() == pytest.approx(computed["exact_match"].item())
    assert math.isnan(columns["correct"][0])
    assert math.isnan(columns["loss"][0])
    for i in range(1, 40):
        terms, wrong, called = [], 0, []
        for c in range(3):
            p = 1 / (1 + math.exp(-logits[i, c].item()))
            if p >= own.thresholds[c]:
                called.append(NAMES[c])
            if target[i, c] != 255:
                present = target[i, c] == 1
                terms.append(-math.log(p if present else 1 - p))
                wrong += int((p >= own.thresholds[c].item()) != present)
        assert columns["prediction"][i] == "|".join(called)
        assert columns["wrong_labels"][i] == wrong
        assert columns["loss"][i].item() == pytest.approx(np.mean(terms) if terms else math.nan, rel=1e-5, nan_ok=True)


def test_embeddings_are_kept_of_a_test_alone() -> None:
    task = Classification(TargetSpec("label", NAMES))
    own = head(task)
    output = HeadOutput(torch.eye(3), torch.arange(12.0).view(3, 4))
    for scores in (own.val_scores, own.test_scores):
        task.update(scores, own, output, torch.tensor([0, 1, 1]))
    assert "embeddings" not in task.compute(own, own.val_scores)
    computed = task.compute(own, own.test_scores)
    assert torch.equal(computed["embeddings"], output.hidden)
    assert computed["embedded_truth"].tolist() == [0, 1, 1]


def test_the_worst_of_an_open_set_are_wrong_and_sure() -> None:
    task = OpenSet(TargetSpec("label", NAMES, ignore_index=3))
    own = head(task)
    own.threshold.fill_(0.6)
    logits = torch.tensor([[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [0.1, 0, 0], [0.1, 0, 0]])
    target = torch.tensor([0, 3, 1, 0, 3])
    found, computed = counted(task, logits, target, own)
    assert found.columns["truth"] == ["a", "unknown", "b", "a", "unknown"]
    assert found.columns["prediction"] == ["a", "a", "a", "unknown", "unknown"]
    assert found.columns["correct"].tolist() == [1, 0, 0, 0, 1]
    confidence = logits.double().softmax(1).amax(1)
    signs = torch.tensor([-1, 1, 1, 1, -1])  # the decisions about images 1, 2 and 3 are wrong
    assert found.badness.tolist() == pytest.approx((signs * (confidence - 0.6).abs()).tolist(), rel=1e-5)
    assert set(found.badness.argsort(descending=True)[:2].tolist()) == {1, 2}
    assert found.badness.argsort(descending=True).tolist()[2:] == [3, 4, 0]
    right = (computed["predicted"] == computed["labels"]) & (computed["confidence"] >= 0.6) | (
        ~computed["known"] & (computed["confidence"] < 0.6)
    )
    assert right.double().mean() == found.columns["correct"].mean()


def test_false_alarms_and_misses_are_measured_alike() -> None:
    decoder: Any = nn.Identity()
    decoder.threshold = torch.tensor(2.0)
    task = Anomaly(TargetSpec("label", ("normal", "odd")))
    scores, target = torch.tensor([1.0, 8.0, 0.25, 5.0, 0.0]), torch.tensor([0, 0, 1, 1, 1])
    own = head(task, decoder)
    found, computed = counted(task, scores, target, own)
    assert found.columns["prediction"] == ["normal", "odd", "normal", "odd", "normal"]
    assert found.columns["correct"].mean().item() == pytest.approx(task.figures(computed)["accuracy"])
    assert found.badness.argsort(descending=True).tolist() == [4, 2, 1, 0, 3]
    decoder.threshold = torch.tensor(math.nan)
    without = task.per_image(own.test_scores, own, HeadOutput(scores), target)
    assert list(without.columns) == ["truth", "score"]
    assert without.badness.isnan().all()
    assert SimpleNamespace(**without._asdict()).prominence.tolist() == scores.tolist()
