from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from lightning_vision.errors import ConfigError
from lightning_vision.losses.focal import FocalLoss

NAMES = ("sky", "road", "car", "tree")
BY_CLASS = [0.5, 2.0, 0.0, 1.5]


def naive(logits: Tensor, target: Tensor, alpha: float | list[float] | None, gamma: float) -> float:
    """The documented formula, a sample, pixel or entry at a time, in Python's floats; 255 does not count."""
    c = logits.shape[1]
    terms = []
    if target.shape == logits.shape:
        for row, truths in zip(logits.tolist(), target.tolist(), strict=True):
            for k, (z, t) in enumerate(zip(row, truths, strict=True)):
                if t == 255:
                    continue
                p = 1 / (1 + math.exp(-z))
                p_t = p if t == 1 else 1 - p
                a = 1.0
                if isinstance(alpha, float):
                    a = alpha if t == 1 else 1 - alpha
                elif alpha is not None:
                    a = alpha[k]
                terms.append(-a * (1 - p_t) ** gamma * math.log(p_t))
    else:
        rows = logits.movedim(1, -1).reshape(-1, c).tolist()
        for row, y in zip(rows, target.reshape(-1).tolist(), strict=True):
            if y == 255:
                continue
            p_t = math.exp(row[y]) / sum(map(math.exp, row))
            a = 1.0
            if isinstance(alpha, float):
                a = 1 - alpha if y == 0 else alpha
            elif alpha is not None:
                a = alpha[y]
            terms.append(-a * (1 - p_t) ** gamma * math.log(p_t))
    return sum(terms) / len(terms) if terms else 0.0


def example(task: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits in float64, and a target with some 255 in which class 3 is absent."""
    generator = torch.Generator().manual_seed(seed)
    shape = {"classification": (7, 4), "multilabel": (5, 4), "segmentation": (2, 4, 3, 2)}[task]
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    if task == "multilabel":
        target = torch.randint(0, 2, shape, generator=generator)
        target[:, 3] = 0
    else:
        target = torch.randint(0, 3, (shape[0], *shape[2:]), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.25] = 255
    assert (target == 255).any()
    return logits, target


TASKS = ("classification", "multilabel", "segmentation")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [None, 0.25, BY_CLASS])
@pytest.mark.parametrize("task", TASKS)
def test_is_the_documented_formula(task: str, alpha: Any, gamma: float) -> None:
    logits, target = example(task)
    loss = FocalLoss(4, NAMES, 255, alpha=alpha, gamma=gamma, weight=0.7)
    expected = 0.7 * naive(logits, target, alpha, gamma)
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(loss(logits, target.to(torch.uint8)), loss(logits, target))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("task", TASKS)
def test_without_alpha_and_gamma_is_cross_entropy(task: str) -> None:
    logits, target = example(task)
    loss = FocalLoss(4, NAMES, 255, gamma=0.0)(logits, target)
    if task == "multilabel":
        known = target != 255
        expected = F.binary_cross_entropy_with_logits(logits[known], target[known].double())
    else:
        expected = F.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_two_classes_are_the_published_binary_loss(alpha: float | None) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 2, 5, 5, generator=generator)
    target = torch.randint(0, 2, (2, 5, 5), generator=generator)
    published = sigmoid_focal_loss(
        logits[:, 1] - logits[:, 0], target.float(), -1 if alpha is None else alpha, 2.0, reduction="mean"
    )
    torch.testing.assert_close(FocalLoss(2, alpha=alpha)(logits, target), published)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_multilabel_is_the_published_binary_loss(alpha: float | None) -> None:
    logits, target = torch.randn(6, 4), torch.randint(0, 2, (6, 4), dtype=torch.uint8)
    published = sigmoid_focal_loss(logits, target.float(), -1 if alpha is None else alpha, 2.0, reduction="mean")
    torch.testing.assert_close(FocalLoss(4, NAMES, alpha=alpha)(logits, target), published)
    torch.testing.assert_close(FocalLoss(4, NAMES, alpha=alpha)(logits, target.float()), published)


def test_settings_change_the_loss_as_documented() -> None:
    # Two classes, p_t = 1/4 of a pixel of class 0 and p_t = 3/4 of one of class 1.
    logits, target = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]), torch.tensor([0, 1])
    hard, easy = math.log(4), math.log(4 / 3)
    for settings, expected in (
        ({}, (0.75**2 * hard + 0.25**2 * easy) / 2),
        ({"gamma": 1.0}, (0.75 * hard + 0.25 * easy) / 2),
        ({"gamma": 0.0}, (hard + easy) / 2),
        ({"gamma": 0.0, "alpha": 0.25}, (0.75 * hard + 0.25 * easy) / 2),
        ({"gamma": 0.0, "alpha": 0.9}, (0.1 * hard + 0.9 * easy) / 2),
        ({"gamma": 0.0, "alpha": [2.0, 0.5]}, (2 * hard + 0.5 * easy) / 2),
        ({"gamma": 0.0, "alpha": {"1": 3.0}}, (hard + 3 * easy) / 2),
        ({"gamma": 0.0, "weight": 0.1}, (hard + easy) / 20),
    ):
        assert FocalLoss(2, **settings)(logits, target).item() == pytest.approx(expected, rel=1e-5), settings


def test_default_weighs_all_classes_the_same() -> None:
    logits = torch.zeros(1, 4)
    assert len({FocalLoss(4, NAMES)(logits, torch.tensor([y])).item() for y in range(4)}) == 1


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25, BY_CLASS])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_ignored_leaves_no_trace(task: str, alpha: Any, gamma: float) -> None:
    logits, target = example(task)
    loss = FocalLoss(4, NAMES, 255, alpha=alpha, gamma=gamma)
    hidden = (target == 255) if task == "multilabel" else (target == 255).unsqueeze(1).expand_as(logits)
    moved = logits.masked_scatter(hidden, torch.randn_like(logits) * 1e4).requires_grad_()
    value = loss(moved, target)
    assert torch.equal(value, loss(logits, target))
    value.backward()
    assert (moved.grad[hidden] == 0).all()
    moved.grad = None
    nothing = loss(moved, torch.full_like(target, 255))
    assert nothing == 0
    nothing.backward()
    assert (moved.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("task", TASKS)
def test_half_precision_is_widened(task: str, dtype: torch.dtype) -> None:
    logits, target = example(task)
    loss = FocalLoss(4, NAMES, 255, alpha=0.25)
    value = loss(logits.to(dtype), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target), rtol=2e-2, atol=1e-3)
    assert loss(logits, target).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("task", TASKS)
def test_extreme_logits_stay_finite(task: str, gamma: float, dtype: torch.dtype) -> None:
    logits, target = example(task)
    logits = (logits.sign() * 1e4).to(dtype).requires_grad_()
    value = FocalLoss(4, NAMES, 255, alpha=0.25, gamma=gamma)(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_one_class_alone_costs_nothing() -> None:
    logits = torch.randn(3, 1, requires_grad=True)
    loss = FocalLoss(1, gamma=0.5)(logits, torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_settings_leave_no_trace_in_a_checkpoint() -> None:
    assert FocalLoss(4, NAMES, alpha=BY_CLASS).state_dict() == {}


@pytest.mark.parametrize(
    ("alpha", "message"),
    [
        ({"raod": 1.0}, "did you mean: road"),
        ([1.0, 2.0], "4 numbers"),
        ([1.0, 2.0, -1.0, 1.0], "loss.alpha must hold one number from 0 on"),
        ([1.0, math.inf, 1.0, 1.0], "from 0 on"),
        (1.5, "from 0 to 1"),
        (-0.1, "from 0 to 1"),
    ],
)
def test_wrong_alpha_is_refused(alpha: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FocalLoss(4, NAMES, alpha=alpha)
