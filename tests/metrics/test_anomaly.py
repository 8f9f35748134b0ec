"""Scores of anomaly detectors against scikit-learn, and the threshold against trying all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch import Tensor

from lightning_vision.metrics import AnomalyScores, best_f1_threshold


def rows(size: int = 120) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(size, generator=generator) < 0.2
    return torch.randn(size, generator=generator) * 3 + 2 * target, target


def scored(scores: Tensor, target: Tensor) -> AnomalyScores:
    metric = AnomalyScores()
    metric.update(scores, target, torch.tensor(2.0))
    return metric


def test_figures_against_scikit_learn() -> None:
    scores, target = rows()
    expected = {
        "loss": 2,
        "auroc": roc_auc_score(target, scores),
        "average_precision": average_precision_score(target, scores),
    }
    found = scored(scores, target).compute()
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)


def test_one_class_only_is_nan_without_a_warning() -> None:
    scores, target = rows()
    found = scored(scores, torch.zeros_like(target)).compute()
    assert all(found[name].isnan() for name in ("auroc", "average_precision"))


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_processes_give_the_figures_of_one(gathered: Callable[..., dict[str, Tensor]]) -> None:
    scores, target = rows()
    first, second = scored(scores[:33], target[:33]), scored(scores[33:], target[33:])
    for ranks in ((first, second), (AnomalyScores(), first, second)):
        for name, value in scored(scores, target).compute().items():
            torch.testing.assert_close(gathered(*ranks)[name], value)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=20))
def test_no_threshold_is_better(pairs: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(s) for s, _ in pairs])
    target = torch.tensor([t for _, t in pairs])
    threshold = best_f1_threshold(scores, target)
    if target.all() or not target.any():
        assert threshold is None
        return
    tried = {t: f1_score(target, scores >= t) for t in sorted({s for s, _ in pairs})}
    best = max(tried.values())
    assert threshold is not None
    assert f1_score(target, scores >= threshold) == pytest.approx(best)
    # The highest of the best, midway to the score below it.
    upper = max(t for t, f1 in tried.items() if f1 == pytest.approx(best))
    lower = max((t for t in tried if t < upper), default=upper)
    assert threshold == (upper + lower) / 2


def test_neighbouring_floats_and_infinite_scores_are_parted() -> None:
    near = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    for low, high in ((torch.tensor(1.0), near), (torch.tensor(-torch.inf), torch.tensor(torch.inf))):
        scores = torch.stack([low, low, high])
        threshold = best_f1_threshold(scores, torch.tensor([0, 0, 1]))
        assert (scores >= threshold).tolist() == [False, False, True]
