"""AUROC and average precision against scikit-learn and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from lightning_vision.metrics.ranking import (
    BINS,
    LOG_ODDS,
    Ranking,
    _histogram,
    auroc,
    auroc_of_counts,
    average_precision,
    average_precision_of_counts,
    drawn_auroc,
    drawn_average_precision,
)

ROWS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30)


@given(ROWS)
def test_any_scores_with_ties(rows: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(s) for s, _ in rows])
    positive = torch.tensor([p for _, p in rows])
    area, precision = auroc(scores, positive).item(), average_precision(scores, positive).item()
    if positive.any() and not positive.all():
        assert area == pytest.approx(roc_auc_score(positive, scores))
    else:
        assert math.isnan(area)
    if positive.any():
        assert precision == pytest.approx(average_precision_score(positive, scores))
    else:
        assert math.isnan(precision)


@given(ROWS)
def test_pairs_are_counted_one_by_one(rows: list[tuple[int, bool]]) -> None:
    pairs = [(a > b) + (a == b) / 2 for a, yes in rows if yes for b, no in rows if not no]
    found = auroc(torch.tensor([s for s, _ in rows]), torch.tensor([p for _, p in rows])).item()
    assert found == pytest.approx(sum(pairs) / len(pairs) if pairs else math.nan, nan_ok=True)


@given(ROWS, st.integers(0, 2**31))
def test_draws_are_figures_of_the_rows_as_often_as_they_were_drawn(rows: list[tuple[int, bool]], seed: int) -> None:
    scores = torch.tensor([float(s) for s, _ in rows])
    positive = torch.tensor([p for _, p in rows])
    times = torch.randint(0, 3, (len(rows), 6), generator=torch.Generator().manual_seed(seed))
    for drawn, figure in ((drawn_auroc, auroc), (drawn_average_precision, average_precision)):
        each = [figure(scores.repeat_interleave(n), positive.repeat_interleave(n)) for n in times.T]
        for dtype in (torch.float32, torch.float64):
            found = drawn(scores, positive, times.to(dtype))
            torch.testing.assert_close(found.double(), torch.stack(each), equal_nan=True, rtol=1e-12, atol=0)


def test_scores_that_a_float32_sigmoid_would_call_equal() -> None:
    scores = torch.tensor([30.0, 31.0, 32.0, 33.0])
    positive = torch.tensor([False, False, True, True])
    assert auroc(scores, positive) == 1
    assert auroc(-scores, positive) == 0


def test_many_rows_against_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(5000, generator=generator, dtype=torch.float64)
    positive = torch.rand(5000, generator=generator, dtype=torch.float64) < scores
    assert auroc(scores, positive).item() == pytest.approx(binary_auroc(scores, positive.long()).item(), abs=1e-6)
    expected = binary_average_precision(scores, positive.long()).item()
    assert average_precision(scores, positive).item() == pytest.approx(expected, abs=1e-6)


def test_the_histogram_is_torchmetrics_binned_form_with_thresholds_in_log_odds() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(400, generator=generator, dtype=torch.float64) * 5
    positive = torch.rand(400, generator=generator) < logits.sigmoid()
    edges = torch.linspace(-LOG_ODDS, LOG_ODDS, BINS + 1, dtype=torch.float64)[:-1].sigmoid()
    negatives, positives = _histogram(logits.sigmoid()[:, None], positive[:, None].to(torch.uint8))
    thresholds = torch.cat([torch.zeros(1, dtype=torch.float64), edges[1:]])
    expected = binary_auroc(logits.sigmoid(), positive.long(), thresholds=thresholds).item()
    assert auroc_of_counts(positives[0], negatives[0]).item() == pytest.approx(expected, abs=1e-5)
    expected = binary_average_precision(logits.sigmoid(), positive.long(), thresholds=thresholds).item()
    assert average_precision_of_counts(positives[0], negatives[0]).item() == pytest.approx(expected, abs=1e-5)


def test_the_ends_of_the_probabilities_and_unknown_entries_have_their_places() -> None:
    values = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.5, 0.5]])
    truth = torch.tensor([[0, 1], [1, 255], [255, 0]], dtype=torch.uint8)
    negatives, positives = _histogram(values, truth)
    assert negatives.sum(1).tolist() == [1, 1]
    assert positives.sum(1).tolist() == [1, 1]
    assert negatives[0, 0] == 1
    assert positives[:, -1].tolist() == [1, 1]
    assert negatives[1, BINS // 2] == 1


class Columns(Ranking):
    def __init__(self, columns: int, max_stored: int) -> None:
        super().__init__()
        self.add_ranking(columns, max_stored)

    def update(self, values: torch.Tensor, truth: torch.Tensor) -> None:
        self.rank(values, truth)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.ranked()


def rows(seed: int = 0, size: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(size, 3, generator=generator)
    truth = (torch.rand(size, 3, generator=generator) < values).to(torch.uint8)
    truth[torch.rand(size, 3, generator=generator) < 0.2] = 255
    return values, truth


def test_unknown_entries_are_left_out() -> None:
    values, truth = rows()
    metric = Columns(3, 10**6)
    metric.update(values, truth)
    areas, precisions = metric.compute()
    for column in range(3):
        known = truth[:, column] != 255
        label, score = truth[known, column].numpy(), values[known, column].double().numpy()
        assert areas[column].item() == pytest.approx(roc_auc_score(label, score))
        assert precisions[column].item() == pytest.approx(average_precision_score(label, score))


def test_beyond_the_bound_nothing_is_stored_and_the_figures_hardly_change() -> None:
    values, truth = rows()
    exact, binned = Columns(3, 10**6), Columns(3, 400)
    for metric in (exact, binned):
        for part in range(0, 300, 50):
            metric.update(values[part : part + 50], truth[part : part + 50])
    assert len(exact.values) == 6
    assert not binned.values
    assert binned.histogram.sum() == (truth != 255).sum()
    for ours, other in zip(binned.compute(), exact.compute(), strict=True):
        np.testing.assert_allclose(ours, other, atol=2e-3)
        assert not torch.equal(ours, other)
    binned.reset()
    assert not binned.histogram.any()
    binned.update(values[:100], truth[:100])
    assert len(binned.values) == 1


def test_a_process_beyond_the_bound_beside_one_below(gathered: object) -> None:
    values, truth = rows()
    whole, below, beyond = Columns(3, 400), Columns(3, 400), Columns(3, 400)
    whole.update(values, truth)
    below.update(values[:100], truth[:100])
    beyond.update(values[100:], truth[100:])
    for ranks in ((below, beyond), (beyond, below), (below, beyond, Columns(3, 400))):
        for ours, other in zip(gathered(*ranks), whole.compute(), strict=True):
            torch.testing.assert_close(ours, other)
