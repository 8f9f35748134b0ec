"""Scores against torchmetrics and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from lightning_vision import metrics
from lightning_vision.metrics import EpochScores


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


def test_nothing_counted_gives_a_finite_loss() -> None:
    scores = EpochScores(3, 255)
    scores.update(torch.zeros(1, 3, 2, 2), torch.full((1, 2, 2), 255), torch.zeros(()))
    assert scores.compute()["loss"].item() == 0
    assert scores.compute()["confusion"].sum() == 0
