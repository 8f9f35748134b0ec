"""Intervals against resampling image by image, and against what is known of their width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from lightning_vision import metrics
from lightning_vision.metrics import (
    Counts,
    PerImageConfusion,
    bootstrap,
    image_intervals,
    row_intervals,
    sample_intervals,
)
from lightning_vision.metrics.confusion import confusion_counts, counts_of
from lightning_vision.metrics.ranking import auroc, drawn_auroc, drawn_average_precision


def mean_iou(confusion: Tensor | Counts) -> Tensor:
    return metrics.iou(confusion).nanmean(-1)


FIGURES: dict[str, Callable[[Tensor | Counts], Tensor]] = {
    "mean_iou": mean_iou,
    "accuracy": metrics.accuracy,
    "accuracy_macro": lambda confusion: metrics.recall(confusion).nanmean(-1),
    "f1": lambda confusion: metrics.dice(confusion).nanmean(-1),
    "frequency_weighted_iou": metrics.frequency_weighted_iou,
}
NOTHING = (pytest.approx(math.nan, nan_ok=True),) * 2


def maps(images: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (images, 6, 5), generator=generator, dtype=torch.uint8)
    # Images differ in how much of them is right.
    wrong = torch.rand(images, 6, 5, generator=generator) < torch.rand(images, 1, 1, generator=generator)
    predicted = torch.where(wrong, torch.randint(0, 3, target.shape, generator=generator), target.long())
    target[:, 0] = 255
    return predicted, target


def collected(predicted: Tensor, target: Tensor, **settings: int) -> PerImageConfusion:
    metric = PerImageConfusion(3, 255, **settings)
    for part in range(0, len(target), 7):
        metric.update(predicted[part : part + 7], target[part : part + 7])
    return metric


def stacked(confusion: Tensor) -> Tensor:
    return torch.stack(counts_of(confusion))


class TestPerImageConfusion:
    def test_each_image_has_its_own_counts(self) -> None:
        predicted, target = maps()
        counts = collected(predicted, target).compute()
        assert counts is not None
        assert counts.dtype == torch.int32
        for image, found, truth in zip(counts, predicted, target, strict=True):
            scores = metrics.EpochScores(3, 255)
            scores.update(found.unsqueeze(0), truth.unsqueeze(0))
            assert torch.equal(image.double(), stacked(scores.confusion))

    def test_logits_and_an_ignored_class_among_the_others(self) -> None:
        predicted, target = maps()
        target[target == 255] = 1
        logits = torch.nn.functional.one_hot(predicted, 3).movedim(3, 1).float()
        metric = PerImageConfusion(3, 1)
        metric.update(logits, target)
        counts = metric.compute()
        scores = metrics.EpochScores(3, 1)
        scores.update(logits, target)
        assert counts is not None
        assert torch.equal(counts.sum(0).double(), stacked(scores.confusion))

    def test_a_gpu_counts_all_images_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        predicted, target = maps()
        expected = collected(predicted, target).compute()
        monkeypatch.setattr(Tensor, "is_cuda", True)
        assert torch.equal(collected(predicted, target).compute(), expected)
        monkeypatch.setattr(bootstrap, "BLOCK", 25)  # two images of twelve cells
        assert torch.equal(collected(predicted, target).compute(), expected)

    def test_a_batch_without_images(self) -> None:
        predicted, target = maps()
        metric = collected(predicted, target)
        metric.update(predicted[:0], target[:0])
        assert torch.equal(metric.compute(), collected(predicted, target).compute())

    @pytest.mark.parametrize("bound", [{"max_images": 29}, {"max_bytes": 29 * 36}])
    def test_too_many_images_leave_none(self, bound: dict[str, int]) -> None:
        predicted, target = maps()
        metric = collected(predicted, target, **bound)
        assert metric.compute() is None
        assert not len(metric.rows("counts"))
        metric.reset()
        metric.update(predicted[:5], target[:5])
        assert metric.compute().shape == (5, 3, 3)

    def test_of_too_many_images_those_of_a_batch_are_counted_when_asked_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predicted, target = maps()
        expected = collected(predicted, target).compute()
        calls = []
        count = bootstrap._per_image
        monkeypatch.setattr(bootstrap, "_per_image", lambda *given: calls.append(1) or count(*given))
        metric = collected(predicted, target, max_images=7)
        assert len(calls) == 1
        assert torch.equal(metric.latest, expected[28:])
        assert torch.equal(metric.latest, expected[28:])
        assert len(calls) == 2

    @pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
    def test_processes_collect_as_one(self, gathered: Callable[..., Any]) -> None:
        predicted, target = maps()
        first, second = collected(predicted[:9], target[:9]), collected(predicted[9:], target[9:])
        whole = collected(predicted, target).compute()
        assert torch.equal(gathered(first, second), whole)
        assert torch.equal(gathered(PerImageConfusion(3, 255), first, second), whole)
        few, many = (collected(predicted[rows], target[rows], max_images=20) for rows in (slice(9), slice(9, 30)))
        assert gathered(few, many) is None
        halves = [collected(predicted[rows], target[rows], max_images=20) for rows in (slice(15), slice(15, 30))]
        assert gathered(*halves) is None


class TestIntervals:
    def test_images_are_drawn_whole(self) -> None:
        predicted, target = maps()
        found = image_intervals(collected(predicted, target).compute(), FIGURES, seed=1)
        matrices = torch.stack([confusion_counts(p, t, 3, 255) for p, t in zip(predicted, target, strict=True)])
        generator = np.random.default_rng(0)
        drawn = torch.stack([matrices[generator.integers(30, size=30)].sum(0) for _ in range(4000)])
        # Pixels drawn one by one would say far too small an interval, because those of an image go together.
        by_pixel = sample_intervals(matrices.sum(0), FIGURES)
        for name, figure in FIGURES.items():
            expected = np.percentile(figure(drawn), [2.5, 97.5])
            width = expected[1] - expected[0]
            assert list(found[name]) == pytest.approx(expected, abs=0.12 * width), name
            assert by_pixel[name][1] - by_pixel[name][0] < 0.6 * width

    def test_samples_are_drawn_one_by_one(self) -> None:
        generator = np.random.default_rng(0)
        # The last class is in neither truth nor prediction, the one before only sometimes in a draw.
        true = torch.tensor([0] * 40 + [1] * 30 + [2] * 25 + [3] * 2)
        predicted = torch.where(torch.arange(97) % 3 == 0, (true + 1) % 4, true)
        found = sample_intervals(confusion_counts(predicted, true, 5), FIGURES)
        samples = [torch.from_numpy(generator.integers(97, size=97)) for _ in range(4000)]
        drawn = torch.stack([confusion_counts(predicted[rows], true[rows], 5) for rows in samples])
        for name, figure in FIGURES.items():
            expected = np.percentile(figure(drawn), [2.5, 97.5])
            assert list(found[name]) == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0])), name

    def test_rows_are_drawn_one_by_one(self) -> None:
        generator = torch.Generator().manual_seed(0)
        positive = torch.rand(60, generator=generator) < 0.3
        scores = (torch.randn(60, generator=generator) + positive).round(decimals=1)
        found = row_intervals({"area": drawn_auroc, "precision": drawn_average_precision}, scores, positive)
        for name, figure in (("area", roc_auc_score), ("precision", average_precision_score)):
            draws = torch.randint(60, (800, 60), generator=generator)
            expected = np.percentile([figure(positive[rows], scores[rows]) for rows in draws], [2.5, 97.5])
            assert list(found[name]) == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0])), name

    def test_what_is_alike_has_no_width(self) -> None:
        confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
        expected = {name: (figure(confusion).item(),) * 2 for name, figure in FIGURES.items()}
        found = image_intervals(stacked(confusion).expand(9, 3, 3), FIGURES, draws=20)
        assert found == {name: pytest.approx(ends, rel=1e-12) for name, ends in expected.items()}
        one = sample_intervals(torch.tensor([[0, 7], [0, 0]]), FIGURES, draws=20)
        assert one == dict.fromkeys(FIGURES, (0, 0))
        scores, positive = torch.tensor([0.2, 0.8]).repeat(50), torch.tensor([False, True]).repeat(50)
        assert row_intervals({"area": drawn_auroc}, scores, positive, draws=20) == {"area": (1, 1)}

    def test_blocks_and_seeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        predicted, target = maps()
        counts, confusion = collected(predicted, target).compute(), confusion_counts(predicted, target, 3, 255)
        rows = torch.rand(30, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2 == 0

        def all_intervals(seed: int = 0) -> list[tuple[float, float]]:
            found = image_intervals(counts, FIGURES, draws=200, seed=seed)
            found |= {"s": sample_intervals(confusion, FIGURES, draws=200, seed=seed)["f1"]}
            return list((found | row_intervals({"r": drawn_auroc}, *rows, draws=200, seed=seed)).values())

        whole = all_intervals()
        assert all_intervals() == whole
        assert all(one != other for one, other in zip(all_intervals(seed=1), whole, strict=True))
        for block in (100, 1):
            monkeypatch.setattr(bootstrap, "BLOCK", block)
            assert all_intervals() == [pytest.approx(ends) for ends in whole]

    def test_the_order_of_images_and_rows_does_not_matter(self) -> None:
        counts = collected(*maps()).compute()
        assert counts is not None
        other = torch.randperm(30, generator=torch.Generator().manual_seed(0))
        assert image_intervals(counts[other], FIGURES, draws=50) == image_intervals(counts, FIGURES, draws=50)
        figures, scores, positive = {"area": drawn_auroc}, torch.rand(30), torch.arange(30) % 2 == 0
        shuffled = row_intervals(figures, scores[other], positive[other], draws=50)
        assert shuffled == row_intervals(figures, scores, positive, draws=50)

    def test_accuracy_has_the_width_of_a_binomial(self) -> None:
        confusion = torch.tensor([[300, 50], [70, 180]])
        low, high = sample_intervals(confusion, {"accuracy": metrics.accuracy})["accuracy"]
        deviation = math.sqrt(0.8 * 0.2 / 600)
        assert [low, high] == pytest.approx([0.8 - 1.96 * deviation, 0.8 + 1.96 * deviation], abs=0.2 * deviation)

    def test_the_area_has_the_width_of_its_formula(self) -> None:
        generator = torch.Generator().manual_seed(0)
        positive = torch.rand(200, generator=generator) < 0.5
        scores = torch.randn(200, generator=generator) + positive
        low, high = row_intervals({"area": drawn_auroc}, scores, positive)["area"]
        area = auroc(scores, positive).item()
        positives, negatives = int(positive.sum()), int((~positive).sum())
        # Hanley & McNeil 1982.
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
        deviation = math.sqrt(variance / (positives * negatives))
        assert [low, high] == pytest.approx([area - 1.96 * deviation, area + 1.96 * deviation], abs=0.4 * deviation)

    def test_undefined_figures(self) -> None:
        figures, area = {"mean_iou": mean_iou}, {"area": drawn_auroc}
        assert image_intervals(torch.zeros(0, 3, 3), figures) == {"mean_iou": NOTHING}
        assert image_intervals(torch.zeros(2, 3, 3), figures) == {"mean_iou": NOTHING}
        assert sample_intervals(torch.zeros(3, 3), figures) == {"mean_iou": NOTHING}
        assert row_intervals(area, torch.zeros(0), torch.zeros(0).bool()) == {"area": NOTHING}
        assert row_intervals(area, torch.rand(3), torch.ones(3).bool(), draws=5) == {"area": NOTHING}
