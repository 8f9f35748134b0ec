"""Scores against torchmetrics and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from lightning_vision import metrics
from lightning_vision.metrics import EpochScores
from lightning_vision.metrics.confusion import Counts, confusion_counts, count


def maps(classes: int, ignore: int | None, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 9, 7, generator=generator)
    target = torch.randint(0, classes, (3, 9, 7), generator=generator)
    if ignore is not None:
        target[:, :2] = ignore
    return logits, target


@pytest.mark.parametrize(("classes", "ignore"), [(2, None), (5, None), (5, 255), (11, 11), (6, 2)])
def test_mean_iou_is_the_dataset_level_jaccard_index(classes: int, ignore: int | None) -> None:
    ours = EpochScores(classes, ignore)
    oracle = MulticlassJaccardIndex(classes, average=None, ignore_index=ignore)
    for seed in range(3):
        logits, target = maps(classes, ignore, seed)
        ours.update(logits, target)
        oracle.update(logits, target)
    expected = oracle.compute()
    found = metrics.iou(ours.compute()["confusion"])
    rows = [c for c in range(classes) if c != ignore]
    torch.testing.assert_close(found[rows].float(), expected[rows])


def test_absent_classes_are_left_out_of_the_mean() -> None:
    target = torch.tensor([0, 0, 1, 1])
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 1, 1]), 4).float()
    scores = EpochScores(4)
    scores.update(logits, target)
    iou = metrics.iou(scores.compute()["confusion"])
    assert iou.isnan().tolist() == [False, False, True, True]
    oracle = MulticlassJaccardIndex(4, average="macro")(logits, target)
    torch.testing.assert_close(iou.nanmean().float(), oracle)


def test_accuracies_and_dice_against_independent_references() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(200, 7, generator=generator)
    target = torch.randint(0, 6, (200,), generator=generator)  # the seventh class has no target
    scores = EpochScores(7, top_k=5)
    for part in range(0, 200, 33):
        scores.update(logits[part : part + 33], target[part : part + 33])
    computed = scores.compute()
    confusion = computed["confusion"]
    predicted = logits.argmax(1)
    assert metrics.accuracy(confusion).item() == pytest.approx((predicted == target).float().mean().item())
    with warnings.catch_warnings():  # scikit-learn warns of the class that has no target
        warnings.simplefilter("ignore")
        balanced = balanced_accuracy_score(target, predicted)
    dice = f1_score(target, predicted, average=None, labels=list(range(7)))
    assert metrics.recall(confusion).nanmean().item() == pytest.approx(balanced)
    np.testing.assert_allclose(metrics.dice(confusion).numpy(), dice)
    top = MulticlassAccuracy(7, top_k=5, average="micro")(logits, target)
    assert computed["top"].item() == pytest.approx(top.item())


def test_mean_loss_does_not_depend_on_the_cut_into_batches() -> None:
    logits, target = maps(5, 255)
    entropy = torch.nn.functional.cross_entropy
    whole, parts = EpochScores(5, 255), EpochScores(5, 255)
    whole.update(logits, target, entropy(logits, target, ignore_index=255))
    for cut in (slice(0, 1), slice(1, 3)):
        parts.update(logits[cut], target[cut], entropy(logits[cut], target[cut], ignore_index=255))
    torch.testing.assert_close(whole.compute()["loss"], parts.compute()["loss"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("ignore", [255, 1, None])
def test_a_loss_weighs_as_many_targets_as_were_counted(ignore: int | None) -> None:
    logits, target = maps(5, ignore)
    scores = EpochScores(5, ignore)
    counted = [sum(value != ignore for value in target[i].flatten().tolist()) for i in range(3)]
    for i in range(3):
        scores.update(logits[i : i + 1], target[i : i + 1], torch.tensor(float(i)))
    assert scores.compute()["loss"].item() == pytest.approx((counted[1] + 2 * counted[2]) / sum(counted))
    assert scores.confusion.sum() == sum(counted)


def test_nothing_counted_gives_a_finite_loss() -> None:
    scores = EpochScores(3, 255)
    scores.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255), torch.zeros(()))
    assert scores.compute()["loss"].item() == 0
    assert scores.compute()["confusion"].sum() == 0


@pytest.mark.parametrize(
    ("classes", "ignore"), [(3, None), (3, 255), (3, 1), (180, 255), (181, 255), (255, 255), (256, None), (300, -1)]
)
def test_counts_are_those_of_a_loop(classes: int, ignore: int | None) -> None:
    generator = torch.Generator().manual_seed(classes)
    target = torch.randint(0, classes, (2, 5, 4), generator=generator)
    target[0, 0, 0] = classes - 1
    if ignore is not None:
        target[:, 2] = ignore
    predicted = torch.randint(0, classes, target.shape, generator=generator)
    predicted[0, 0, 0] = classes - 1
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for truth, found in zip(target.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if truth != ignore:
            expected[truth, found] += 1
    assert torch.equal(confusion_counts(predicted, target, classes, ignore), expected)
    if classes <= 256:  # what bytes hold
        assert torch.equal(confusion_counts(predicted, target.to(torch.uint8), classes, ignore), expected)
    # Labels go the way without narrow numbers.
    assert torch.equal(confusion_counts(predicted.flatten(), target.flatten(), classes, ignore), expected)


def test_counting_without_waiting_for_the_device_is_bincount(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = torch.randint(0, 7, (50,), dtype=torch.int16)
    expected = count(cells, 9)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    assert torch.equal(count(cells, 9), expected)


def test_ignored_samples_are_no_hits() -> None:
    logits = torch.randn(20, 6)
    target = torch.arange(20) % 6
    scores = EpochScores(6, ignore_index=2, top_k=6)
    scores.update(logits, target)
    assert scores.compute()["top"].item() == 1


def test_precision_and_frequency_weighted_iou_by_hand() -> None:
    confusion = torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert metrics.precision(confusion).tolist() == pytest.approx([3 / 5, 4 / 5, float("nan")], nan_ok=True)
    assert metrics.frequency_weighted_iou(confusion).item() == pytest.approx(3 / 6 * 0.4 + 4 / 7 * 0.6)
    assert metrics.frequency_weighted_iou(torch.zeros(2, 2)).isnan()


@pytest.mark.parametrize("figure", ["iou", "dice", "recall", "precision", "accuracy", "frequency_weighted_iou"])
def test_figures_of_many_matrices_are_those_of_each(figure: str) -> None:
    matrices = torch.randint(0, 5, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    many = getattr(metrics, figure)(matrices)
    each = torch.stack([getattr(metrics, figure)(matrix) for matrix in matrices.flatten(0, 1)])
    torch.testing.assert_close(many.flatten(0, 1), each, equal_nan=True)
    # The same from the counts alone, also as integers.
    counts = Counts(matrices.diagonal(dim1=2, dim2=3), matrices.sum(3), matrices.sum(2))
    assert torch.equal(getattr(metrics, figure)(counts).nan_to_num(-1), many.nan_to_num(-1))


def test_two_processes_count_as_one(gathered: Callable[..., dict[str, torch.Tensor]]) -> None:
    logits, target = maps(5, 255)
    whole, first, second = (EpochScores(5, 255) for _ in range(3))
    whole.update(logits, target, torch.tensor(0.5))
    first.update(logits[:1], target[:1], torch.tensor(0.5))
    second.update(logits[1:], target[1:], torch.tensor(0.5))
    for found in (gathered(first, second), gathered(second, first, EpochScores(5, 255))):
        assert torch.equal(found["confusion"], whole.compute()["confusion"])
        assert found["loss"].item() == 0.5
