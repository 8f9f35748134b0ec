"""Scores of several labels an image against scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, roc_auc_score
from torch import Tensor
from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision

from lightning_vision.metrics import MultilabelScores

LABELS, ROWS = 4, 150


def batch(unknown: float = 0.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, LABELS, generator=generator) * 2
    target = (torch.rand(ROWS, LABELS, generator=generator) < (logits / 2).sigmoid()).to(torch.uint8)
    target[torch.rand(ROWS, LABELS, generator=generator) < unknown] = 255
    return logits, target


def scored(logits: Tensor, target: Tensor, thresholds: Tensor | None = None, **settings: int) -> MultilabelScores:
    scores = MultilabelScores(logits.shape[1], thresholds, **settings)
    scores.update(logits, target, torch.tensor(0.25))
    return scores


@pytest.mark.parametrize("thresholds", [None, torch.tensor([0.1, 0.5, 0.7, 0.95])])
def test_all_figures_against_scikit_learn(thresholds: Tensor | None) -> None:
    logits, target = batch()
    found = scored(logits, target, thresholds).compute()
    probabilities = logits.sigmoid()
    predicted = (probabilities >= (0.5 if thresholds is None else thresholds)).numpy()
    truth, probabilities = target.numpy(), probabilities.double().numpy()
    expected = {
        "mean_average_precision": average_precision_score(truth, probabilities),
        "auroc": roc_auc_score(truth, probabilities),
        "f1_macro": f1_score(truth, predicted, average="macro"),
        "f1_micro": f1_score(truth, predicted, average="micro"),
        "exact_match": accuracy_score(truth, predicted),
        "hamming_accuracy": 1 - hamming_loss(truth, predicted),
    }
    assert {name: found[name].item() for name in expected} == pytest.approx(expected)
    np.testing.assert_allclose(found["average_precision"], average_precision_score(truth, probabilities, average=None))
    np.testing.assert_allclose(found["f1"], f1_score(truth, predicted, average=None))
    assert found["support"].tolist() == truth.sum(0).tolist()
    assert found["loss"].item() == 0.25


def test_unknown_entries_are_left_out() -> None:
    logits, target = batch(unknown=0.3)
    target[:3] = 255
    found = scored(logits, target).compute()
    predicted, probabilities = logits >= 0, logits.sigmoid()
    f1 = []
    for label in range(LABELS):
        known = target[:, label] != 255
        f1.append(f1_score(target[known, label], predicted[known, label]))
    np.testing.assert_allclose(found["f1"], f1)
    known = target != 255
    right = (predicted == (target == 1)) & known
    assert found["hamming_accuracy"].item() == pytest.approx((right.sum() / known.sum()).item())
    rows = [i for i in range(ROWS) if known[i].any()]
    exact = sum(bool((right[i] | ~known[i]).all()) for i in rows) / len(rows)
    assert found["exact_match"].item() == pytest.approx(exact)
    masked = target.long().masked_fill(~known, -1)
    for name, oracle in (("auroc", MultilabelAUROC), ("mean_average_precision", MultilabelAveragePrecision)):
        expected = oracle(LABELS, ignore_index=-1)(probabilities, masked).item()
        assert found[name].item() == pytest.approx(expected, abs=1e-6)


def test_by_hand() -> None:
    logits = torch.tensor([[2.0, -1.0, 3.0], [1.0, 1.0, -2.0]])
    target = torch.tensor([[1, 0, 255], [0, 1, 255]], dtype=torch.uint8)
    found = scored(logits, target).compute()
    assert found["average_precision"].tolist() == pytest.approx([1, 1, float("nan")], nan_ok=True)
    assert found["f1"].tolist() == pytest.approx([2 / 3, 1, float("nan")], nan_ok=True)
    assert found["f1_micro"].item() == pytest.approx(4 / 5)
    assert found["exact_match"].item() == 0.5
    assert found["hamming_accuracy"].item() == 0.75
    assert found["support"].tolist() == [1, 1, 0]


def test_nothing_known_is_nan_without_a_warning() -> None:
    logits, target = batch(unknown=1)
    found = scored(logits, target).compute()
    assert found["loss"] == 0
    assert found["support"].sum() == 0
    rest = found.keys() - {"loss", "support", "probabilities", "truth"}
    assert all(found[name].isnan().all() for name in rest)


def test_stored_rows_are_there_for_fitting_until_there_are_too_many() -> None:
    logits, target = batch(0.2)
    found = scored(logits, target).compute()
    assert torch.equal(found["probabilities"], logits.sigmoid())
    assert torch.equal(found["truth"], target)
    assert not {"probabilities", "truth"} & scored(logits, target, max_stored=100).compute().keys()


@given(st.lists(st.integers(1, 50), max_size=6), st.sampled_from([10**6, 300]))
def test_the_cut_into_batches_does_not_matter(cuts: list[int], max_stored: int) -> None:
    logits, target = batch(0.2)
    parts = MultilabelScores(LABELS, max_stored=max_stored)
    start = 0
    for size in [*cuts, ROWS]:
        if start < ROWS:
            # An equal mean loss of all entries is the mean of all batches, whatever their sizes.
            parts.update(logits[start : start + size], target[start : start + size], torch.tensor(0.25))
        start += size
    for name, value in scored(logits, target, max_stored=max_stored).compute().items():
        torch.testing.assert_close(parts.compute()[name], value, equal_nan=True)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_processes_give_the_figures_of_one(gathered: Callable[..., dict[str, Tensor]]) -> None:
    logits, target = batch(0.2)
    first, second = scored(logits[:40], target[:40]), scored(logits[40:], target[40:])
    for ranks in ((first, second), (MultilabelScores(LABELS), second, first)):
        found = gathered(*ranks)
        for name, value in scored(logits, target).compute().items():
            if name not in ("probabilities", "truth"):  # which follow each other by process
                torch.testing.assert_close(found[name], value)
