"""Intervals against resampling image by image, and against what is known of their width."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vision import metrics
from lightning_vision.metrics import PerImageConfusion, bootstrap, image_interval, row_interval, sample_interval
from lightning_vision.metrics.ranking import auroc


def mean_iou(confusion: Tensor) -> Tensor:
    return metrics.iou(confusion).nanmean(-1)


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


class TestPerImageConfusion:
    def test_each_image_has_its_own_matrix(self) -> None:
        predicted, target = maps()
        matrices = collected(predicted, target).compute()
        assert matrices is not None
        assert matrices.dtype == torch.int32
        for matrix, found, truth in zip(matrices, predicted, target, strict=True):
            scores = metrics.EpochScores(3, 255)
            scores.update(found.unsqueeze(0), truth.unsqueeze(0))
            assert torch.equal(matrix.long(), scores.confusion)

    def test_logits_and_an_ignored_class_among_the_others(self) -> None:
        predicted, target = maps()
        target[target == 255] = 1
        logits = torch.nn.functional.one_hot(predicted, 3).movedim(3, 1).float()
        metric = PerImageConfusion(3, 1)
        metric.update(logits, target)
        matrices = metric.compute()
        scores = metrics.EpochScores(3, 1)
        scores.update(logits, target)
        assert matrices is not None
        assert torch.equal(matrices.sum(0), scores.confusion)

    def test_a_gpu_counts_all_images_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        predicted, target = maps()
        expected = collected(predicted, target).compute()
        monkeypatch.setattr(Tensor, "is_cuda", True)
        assert torch.equal(collected(predicted, target).compute(), expected)

    @pytest.mark.parametrize("bound", [{"max_images": 29}, {"max_bytes": 29 * 36}])
    def test_too_many_images_leave_none(self, bound: dict[str, int]) -> None:
        predicted, target = maps()
        metric = collected(predicted, target, **bound)
        assert metric.compute() is None
        assert not len(metric.rows("matrices"))
        metric.reset()
        metric.update(predicted[:5], target[:5])
        assert metric.compute().shape == (5, 3, 3)

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
        matrices = collected(*maps()).compute()
        assert matrices is not None
        low, high = image_interval(matrices, mean_iou, seed=1)
        generator = np.random.default_rng(0)
        figures = [mean_iou(matrices[generator.integers(30, size=30)].sum(0)).item() for _ in range(4000)]
        expected = np.percentile(figures, [2.5, 97.5])
        width = expected[1] - expected[0]
        assert [low, high] == pytest.approx(expected, abs=0.12 * width)
        # Pixels drawn one by one would say far too small an interval, because those of an image go together.
        ends = sample_interval(matrices.sum(0), mean_iou)
        assert ends[1] - ends[0] < 0.6 * width

    def test_blocks_and_seeds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matrices = collected(*maps()).compute()
        whole = image_interval(matrices, mean_iou, draws=200)
        assert image_interval(matrices, mean_iou, draws=200) == whole
        assert image_interval(matrices, mean_iou, draws=200, seed=1) != whole
        monkeypatch.setattr(bootstrap, "BLOCK", 100)
        assert image_interval(matrices, mean_iou, draws=200) == pytest.approx(whole)
        assert sample_interval(matrices.sum(0), mean_iou, draws=50)[0] > 0

    def test_the_order_of_images_and_rows_does_not_matter(self) -> None:
        matrices = collected(*maps()).compute()
        assert matrices is not None
        other = torch.randperm(30, generator=torch.Generator().manual_seed(0))
        assert image_interval(matrices[other], mean_iou, draws=50) == image_interval(matrices, mean_iou, draws=50)
        scores, positive = torch.rand(30), torch.arange(30) % 2 == 0
        shuffled = row_interval(auroc, scores[other], positive[other], draws=50)
        assert shuffled == row_interval(auroc, scores, positive, draws=50)

    def test_accuracy_has_the_width_of_a_binomial(self) -> None:
        confusion = torch.tensor([[300, 50], [70, 180]])
        low, high = sample_interval(confusion, metrics.accuracy)
        deviation = math.sqrt(0.8 * 0.2 / 600)
        assert [low, high] == pytest.approx([0.8 - 1.96 * deviation, 0.8 + 1.96 * deviation], abs=0.2 * deviation)

    def test_rows(self) -> None:
        generator = torch.Generator().manual_seed(0)
        positive = torch.rand(200, generator=generator) < 0.5
        scores = torch.randn(200, generator=generator) + positive
        low, high = row_interval(auroc, scores, positive, draws=300)
        area = auroc(scores, positive).item()
        positives, negatives = int(positive.sum()), int((~positive).sum())
        # Hanley & McNeil 1982.
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
        deviation = math.sqrt(variance / (positives * negatives))
        assert [low, high] == pytest.approx([area - 1.96 * deviation, area + 1.96 * deviation], abs=0.4 * deviation)

    def test_undefined_figures(self) -> None:
        nothing = (pytest.approx(math.nan, nan_ok=True),) * 2
        assert image_interval(torch.zeros(0, 3, 3), mean_iou) == nothing
        assert image_interval(torch.zeros(2, 3, 3), mean_iou) == nothing
        assert sample_interval(torch.zeros(3, 3), mean_iou) == nothing
        assert row_interval(auroc, torch.zeros(0), torch.zeros(0)) == nothing
        assert row_interval(auroc, torch.rand(3), torch.ones(3).bool(), draws=5) == nothing
