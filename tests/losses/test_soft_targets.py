"""Losses of mixed images, whose targets are probabilities. That 0 and 1 count as classes do: testing/conformance.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.combined import CombinedLoss
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.losses.dice import DiceLoss
from lightning_vision.losses.entmax import Entmax15Loss, entmax15
from lightning_vision.losses.jaccard import JaccardLoss
from lightning_vision.losses.poly import PolyLoss
from lightning_vision.losses.sigmoid import SigmoidCrossEntropyLoss
from lightning_vision.losses.tversky import TverskyLoss

CLASSES = 4


def example(dense: bool, ignored: bool = False) -> tuple[Tensor, Tensor]:
    """Logits in float64 and mixtures of two classes; ``ignored``: every third is of none."""
    g = torch.Generator().manual_seed(2)
    shape = (2, 3, 5) if dense else (7,)
    logits = torch.randn(shape[0], CLASSES, *shape[1:], generator=g, dtype=torch.float64) * 3
    one, two = (F.one_hot(torch.randint(0, CLASSES, shape, generator=g), CLASSES).movedim(-1, 1) for _ in range(2))
    share = torch.rand(shape, generator=g, dtype=torch.float64).unsqueeze(1)
    target = share * one + (1 - share) * two
    if ignored:
        target *= (torch.arange(share.numel()) % 3 > 0).view_as(share)
    return logits.requires_grad_(), target


def rows(logits: Tensor, target: Tensor) -> list[tuple[list[float], list[float]]]:
    """Log-probabilities and target of each sample or pixel that counts, in Python's floats."""
    log_p = logits.detach().log_softmax(1).movedim(1, -1).reshape(-1, CLASSES).tolist()
    t = target.movedim(1, -1).reshape(-1, CLASSES).tolist()
    return [(a, b) for a, b in zip(log_p, t, strict=True) if any(b)]


def naive_softmax(logits: Tensor, target: Tensor, settings: dict[str, Any]) -> float:
    """The docstring's sums, as if each sample were one of class k, t_k times."""
    weights = settings.get("class_weights") or [1.0] * CLASSES
    smoothing, temperature = settings.get("label_smoothing", 0.0), settings.get("class_similarities_temperature", 0.0)
    total = mass = penalty = 0.0
    counted = rows(logits, target)
    for log_p, t in counted:
        for k in range(CLASSES):
            q = [float(c == k) for c in range(CLASSES)]
            if temperature:
                row = [math.exp(s / temperature) for s in settings["class_similarities"][k]]
                q = [r / sum(row) for r in row]
            q = [(1 - smoothing) * x + smoothing / CLASSES for x in q]
            total += t[k] * weights[k] * -sum(a * b for a, b in zip(q, log_p, strict=True))
            mass += t[k] * weights[k]
        entropy = -sum(math.exp(x) * x for x in log_p)
        penalty += (math.log(CLASSES) - entropy) / math.log(CLASSES) / len(counted)
    robust = settings.get("robust_lambda", 0.0)
    loss = (1 - robust) * total / mass + robust / CLASSES + settings.get("confidence_penalty", 0.0) * penalty
    return settings.get("weight", 1.0) * loss


SIMILAR = [[1.0, 0.5, 0.0, 0.0], [0.5, 1.0, 0.2, 0.0], [0.0, 0.2, 1.0, 0.1], [0.0, 0.0, 0.1, 1.0]]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": [1.0, 2.0, 0.0, 0.5], "label_smoothing": 0.2, "weight": 0.7},
    {"robust_lambda": 0.3, "confidence_penalty": 0.4},
    {"class_similarities": SIMILAR, "class_similarities_temperature": 0.5, "class_weights": [3.0, 1.0, 1.0, 1.0]},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dense", [False, True])
def test_softmax_cross_entropy_is_the_documented_formula(dense: bool, settings: dict[str, Any]) -> None:
    logits, target = example(dense, ignored=True)
    loss = SoftmaxCrossEntropyLoss(CLASSES, **settings)
    assert loss(logits, target).item() == pytest.approx(naive_softmax(logits, target, settings), rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("dense", [False, True])
def test_softmax_cross_entropy_is_that_of_torch_and_timm(dense: bool) -> None:
    logits, target = example(dense)
    found = SoftmaxCrossEntropyLoss(CLASSES)(logits, target)
    torch.testing.assert_close(found, F.cross_entropy(logits, target))
    smoothed = SoftmaxCrossEntropyLoss(CLASSES, label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits, target, label_smoothing=0.1))
    if not dense:
        torch.testing.assert_close(found, SoftTargetCrossEntropy()(logits, target))


def test_sigmoid_cross_entropy_is_that_of_timm_and_torch() -> None:
    logits, target = example(False)
    found = SigmoidCrossEntropyLoss(CLASSES)(logits, target)
    torch.testing.assert_close(found, BinaryCrossEntropy(smoothing=0.0)(logits, target))
    # timm smooths while it mixes, and its loss smooths classes alone.
    smoothed = SigmoidCrossEntropyLoss(CLASSES, label_smoothing=0.1, smoothed_to="uniform")
    torch.testing.assert_close(
        smoothed(logits, target), F.binary_cross_entropy_with_logits(logits, 0.9 * target + 0.1 / CLASSES)
    )
    ids = target.argmax(1)
    torch.testing.assert_close(smoothed(logits, ids), BinaryCrossEntropy(smoothing=0.1)(logits, ids))
    half = SigmoidCrossEntropyLoss(CLASSES, label_smoothing=0.1, pos_weight=[1.0, 2.0, 3.0, 0.5])
    expected = F.binary_cross_entropy_with_logits(
        logits, 0.9 * target + 0.05, pos_weight=torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    )
    torch.testing.assert_close(half(logits, target), expected)


def test_unknown_labels_of_mixed_sets_do_not_count() -> None:
    logits, target = example(False)
    target[::2, 1] = 255.0
    found = SigmoidCrossEntropyLoss(CLASSES)(logits, target)
    known = target != 255
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(logits[known], target[known]))
    (slope,) = torch.autograd.grad(found, logits)
    assert (slope[~known] == 0).all()


@pytest.mark.parametrize("dense", [False, True])
def test_poly_is_the_documented_formula(dense: bool) -> None:
    logits, target = example(dense, ignored=True)
    loss = PolyLoss(CLASSES, epsilon=1.5, weight=0.5)
    terms = [
        -sum(q * x for q, x in zip(t, log_p, strict=True))
        + 1.5 * (1 - sum(q * math.exp(x) for q, x in zip(t, log_p, strict=True)))
        for log_p, t in rows(logits, target)
    ]
    assert loss(logits, target).item() == pytest.approx(0.5 * sum(terms) / len(terms), rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("dense", [False, True])
def test_the_slope_of_entmax_is_its_error(dense: bool) -> None:
    logits, target = example(dense, ignored=True)
    loss = Entmax15Loss(CLASSES)
    counted = (target > 0).any(1, keepdim=True)
    (slope,) = torch.autograd.grad(loss(logits, target), logits)
    torch.testing.assert_close(slope, (entmax15(logits.detach()) - target) * counted / counted.sum())
    right = entmax15(logits.detach())
    assert loss(logits, right).item() == pytest.approx(0, abs=1e-12)
    assert loss(logits, target) > 0


REGIONS = [
    DiceLoss(CLASSES, smooth=0.5),
    DiceLoss(CLASSES, smooth=0.5, square_denominator=True),
    JaccardLoss(CLASSES, classes="all", per_image=True, include_background=False),
    TverskyLoss(CLASSES, alpha=0.3, beta=0.7, gamma=0.75),
]


@pytest.mark.parametrize("loss", REGIONS, ids=lambda loss: type(loss).__name__)
def test_regions_are_right_at_the_target_and_nowhere_else(loss: Any) -> None:
    logits, target = example(True)
    probable = (target + 0.05) / (1 + 0.05 * CLASSES)
    assert loss(probable.log(), probable).item() == pytest.approx(0, abs=1e-9)
    assert loss(logits, probable) > 0.1
    sharper = (3 * probable.log()).log_softmax(1)
    assert loss(sharper, probable) > 0.01, "no class of its own is better than the mixture"


@pytest.mark.parametrize("square", [False, True])
def test_dice_is_the_documented_formula(square: bool) -> None:
    logits, target = example(True, ignored=True)
    loss = DiceLoss(CLASSES, smooth=0.5, square_denominator=square, classes="all")
    total = 0.0
    counted = [([math.exp(x) for x in log_p], t) for log_p, t in rows(logits, target)]
    for c in range(CLASSES):
        p, t = [p[c] for p, _ in counted], [t[c] for _, t in counted]
        both = sum(x * y if square else min(x, y) for x, y in zip(p, t, strict=True))
        sides = sum(x**2 + y**2 if square else x + y for x, y in zip(p, t, strict=True))
        total += 1 - (2 * both + 0.5) / (sides + 0.5)
    assert loss(logits, target).item() == pytest.approx(total / CLASSES, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


def test_a_sum_takes_what_all_of_it_take() -> None:
    cross_entropy, dice = SoftmaxCrossEntropyLoss(CLASSES), DiceLoss(CLASSES)
    both = CombinedLoss(CLASSES, losses={"a": cross_entropy, "b": dice})
    assert both.soft_targets
    logits, target = example(True)
    torch.testing.assert_close(both(logits, target), cross_entropy(logits, target) + dice(logits, target))


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropyLoss, PolyLoss, Entmax15Loss, DiceLoss, SigmoidCrossEntropyLoss])
def test_half_precision_is_widened(loss: Any) -> None:
    logits, target = example(loss is DiceLoss)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(CLASSES)(logits.detach().bfloat16(), target.float())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(CLASSES)(logits, target).item(), rel=0.02)
