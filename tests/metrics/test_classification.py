"""Figures of probabilities against torchmetrics and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor
from torchmetrics.classification import MulticlassAUROC, MulticlassAveragePrecision, MulticlassCalibrationError

from lightning_vision.metrics import ClassificationScores, EpochScores

PROBABILISTIC = ("auroc", "average_precision", "calibration_error")


def batch(classes: int = 5, size: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, classes, generator=generator) * 2
    target = torch.distributions.Categorical(logits=logits / 2).probs.multinomial(1, generator=generator).squeeze(1)
    return logits, target


def computed(logits: Tensor, target: Tensor, **settings: int | None) -> dict[str, Tensor]:
    scores = ClassificationScores(logits.shape[1], **settings)
    scores.update(logits, target, torch.tensor(1.5))
    return scores.compute()


def test_figures_against_scikit_learn() -> None:
    logits, target = batch()
    found = computed(logits, target)
    probabilities = logits.softmax(1).double()
    probabilities /= probabilities.sum(1, keepdim=True)
    area = roc_auc_score(target, probabilities, multi_class="ovr", average="macro")
    assert found["auroc"].item() == pytest.approx(area, abs=1e-7)
    truth = torch.nn.functional.one_hot(target, 5)
    precision = average_precision_score(truth, probabilities, average="macro")
    assert found["average_precision"].item() == pytest.approx(precision, abs=1e-7)


def test_figures_against_torchmetrics() -> None:
    logits, target = batch(seed=1)
    target[::7] = 255
    found = computed(logits, target, ignore_index=255)
    for name, oracle in (
        ("auroc", MulticlassAUROC(5, ignore_index=255)),
        ("average_precision", MulticlassAveragePrecision(5, ignore_index=255)),
        ("calibration_error", MulticlassCalibrationError(5, n_bins=15, ignore_index=255)),
    ):
        assert found[name].item() == pytest.approx(oracle(logits, target).item(), abs=1e-6), name


def test_certain_predictions_are_calibrated_as_in_torchmetrics() -> None:
    logits = torch.tensor([[60.0, 0.0], [60.0, 0.0], [0.0, 60.0], [1.0, 0.0]])
    target = torch.tensor([0, 1, 1, 0])
    oracle = MulticlassCalibrationError(2, n_bins=15)(logits, target)
    assert computed(logits, target)["calibration_error"].item() == pytest.approx(oracle.item(), abs=1e-7)


def test_it_counts_what_epoch_scores_count() -> None:
    logits, target = batch(7)
    target[:9] = 255
    expected = EpochScores(7, 255, 3)
    expected.update(logits, target, torch.tensor(1.5))
    found = computed(logits, target, ignore_index=255, top_k=3)
    for name, value in expected.compute().items():
        assert torch.equal(found[name], value)


def test_classes_without_a_target_are_left_out() -> None:
    logits, target = batch()
    target[target == 4] = 1
    probabilities = logits.softmax(1).double()
    areas = [roc_auc_score(target == c, probabilities[:, c]) for c in range(4)]
    assert computed(logits, target)["auroc"].item() == pytest.approx(sum(areas) / 4)


def test_undefined_figures_are_nan_without_a_warning() -> None:
    logits, target = batch()
    one = computed(logits, torch.zeros_like(target))
    assert one["auroc"].isnan()
    nothing = computed(logits, torch.full_like(target, 9), ignore_index=9)
    assert all(nothing[name].isnan() for name in PROBABILISTIC)
    assert nothing["loss"] == 0


@given(st.lists(st.integers(1, 60), max_size=6), st.sampled_from([10**6, 300]))
def test_the_cut_into_batches_does_not_matter(cuts: list[int], max_stored: int) -> None:
    logits, target = batch()
    scores = ClassificationScores(5, max_stored=max_stored)
    start = 0
    for size in [*cuts, 400]:
        if start < 200:
            scores.update(logits[start : start + size], target[start : start + size])
        start += size
    whole = ClassificationScores(5, max_stored=max_stored)
    whole.update(logits, target)
    expected = whole.compute()
    for name, value in scores.compute().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_processes_give_the_figures_of_one(gathered: Callable[..., dict[str, Tensor]]) -> None:
    logits, target = batch()
    ranks = [ClassificationScores(5) for _ in range(3)]
    for rank, rows in zip(ranks, (slice(0, 70), slice(70, 200)), strict=False):
        for part in range(0, 200, 60):
            rank.update(logits[rows][part : part + 60], target[rows][part : part + 60])
    for order in (ranks, ranks[::-1]):
        found = gathered(*order)
        for name, value in computed(logits, target).items():
            if value.ndim == 0 and name != "loss":
                torch.testing.assert_close(found[name], value)
        # Rows follow each other by process.
        torch.testing.assert_close(found["probabilities"].sort(0).values, logits.softmax(1).sort(0).values)


def test_half_precision_logits() -> None:
    logits, target = batch()
    for name, value in computed(logits.bfloat16(), target).items():
        torch.testing.assert_close(value, computed(logits.bfloat16().float(), target)[name])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_type_has_the_same_figures(dtype: torch.dtype) -> None:
    logits, target = batch()
    logits = logits.to(torch.bfloat16).float()
    expected = computed(logits, target)
    scores = ClassificationScores(5).to(dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        scores.update(logits.to(dtype), target, torch.tensor(1.5))
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(scores.compute(), expected, rtol=1e-6, atol=0)
    scores.reset()
    assert scores.loss_sum.dtype == scores.calibration.dtype == torch.float64
