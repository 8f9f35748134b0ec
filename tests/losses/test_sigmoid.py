from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.sigmoid import SigmoidCrossEntropyLoss

NAMES = ("sky", "road", "car", "tree")
TASKS = ("classification", "multilabel")


def naive(
    logits: Tensor,
    target: Tensor,
    pos_weight: list[float] | None = None,
    class_weights: list[float] | None = None,
    weight: float = 1.0,
    robust_lambda: float = 0.0,
    confidence_penalty: float = 0.0,
    label_smoothing: float = 0.0,
) -> float:
    """The documented formula, an entry at a time, in Python's floats; 255 does not count."""
    total, count = 0.0, 0
    for row, truth in zip(logits.tolist(), target.tolist(), strict=True):
        for k, z in enumerate(row):
            t = truth[k] if isinstance(truth, list) else 255 if truth == 255 else truth == k
            if t == 255:
                continue
            t = float(t) + label_smoothing * (0.5 - float(t))
            p = 1 / (1 + math.exp(-z))
            positive = 1.0 if pos_weight is None else pos_weight[k]
            bce = -(positive * t * math.log(p) + (1 - t) * math.log(1 - p))
            bce *= 1.0 if class_weights is None else class_weights[k]
            entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
            total += (1 - robust_lambda) * bce + robust_lambda / 2
            total += confidence_penalty * (math.log(2) - entropy) / math.log(2)
            count += 1
    return weight * total / count


def example(task: str) -> tuple[Tensor, Tensor]:
    """Logits in float64, and a target with some 255 in which class 3 is absent."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(7, 4, generator=generator, dtype=torch.float64) * 2
    if task == "classification":
        target = torch.randint(0, 3, (7,), generator=generator)
    else:
        target = torch.randint(0, 2, (7, 4), generator=generator)
        target[:, 3] = 0
    target.view(-1)[::3] = 255
    return logits, target


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"pos_weight": [0.5, 2.0, 1.0, 3.0]},
        {"class_weights": [0.5, 2.0, 0.0, 3.0]},
        {"pos_weight": [0.5, 2.0, 1.0, 3.0], "class_weights": [3.0, 0.1, 1.0, 1.0], "label_smoothing": 0.2},
        {"robust_lambda": 0.3},
        {"robust_lambda": 1.0},
        {"confidence_penalty": 0.4},
        {"label_smoothing": 0.3},
        {"weight": 0.3, "robust_lambda": 0.2, "confidence_penalty": 0.1, "label_smoothing": 0.1},
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_is_the_documented_formula(task: str, arguments: dict[str, Any]) -> None:
    logits, target = example(task)
    loss = SigmoidCrossEntropyLoss(4, NAMES, 255, **arguments)
    assert loss(logits, target).item() == pytest.approx(naive(logits, target, **arguments), rel=1e-6)
    assert torch.equal(loss(logits, target.to(torch.uint8)), loss(logits, target))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_multilabel_is_torchs_own() -> None:
    logits, target = torch.randn(6, 4), torch.randint(0, 2, (6, 4), dtype=torch.uint8)
    factors = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = F.binary_cross_entropy_with_logits(logits, target.float(), factors, pos_weight=factors.flip(0))
    loss = SigmoidCrossEntropyLoss(4, NAMES, pos_weight=[4, 3, 2, 1], class_weights=[1, 2, 3, 4])
    torch.testing.assert_close(loss(logits, target), expected)
    torch.testing.assert_close(loss(logits, target.float()), expected)


def test_settings_change_the_loss_as_documented() -> None:
    # p = 3/4 of the class that is there, p = 1/2 of the one that is not.
    logits, target = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[1, 0]])
    there, away = math.log(4 / 3), math.log(2)
    entropy = 0.75 * there + 0.25 * math.log(4)
    for settings, expected in (
        ({}, (there + away) / 2),
        ({"pos_weight": [3.0, 5.0]}, (3 * there + away) / 2),
        ({"class_weights": [3.0, 5.0]}, (3 * there + 5 * away) / 2),
        ({"weight": 0.1}, (there + away) / 20),
        ({"robust_lambda": 0.2}, 0.8 * (there + away) / 2 + 0.1),
        ({"confidence_penalty": 0.6}, (there + away) / 2 + 0.6 * (1 - entropy / math.log(2)) / 2),
        ({"label_smoothing": 0.4}, (0.8 * there + 0.2 * math.log(4) + away) / 2),
    ):
        found = SigmoidCrossEntropyLoss(2, ("cat", "dog"), **settings)(logits, target).item()
        assert found == pytest.approx(expected, rel=1e-5), settings


@pytest.mark.parametrize("option", ["pos_weight", "class_weights"])
def test_numbers_by_name_are_numbers_by_id(option: str) -> None:
    logits, target = torch.randn(9, 4), torch.randint(0, 2, (9, 4))
    by_name = SigmoidCrossEntropyLoss(4, NAMES, **{option: {"tree": 4.0, "road": 0.5}})
    by_id = SigmoidCrossEntropyLoss(4, NAMES, **{option: [1.0, 0.5, 1.0, 4.0]})
    assert by_name(logits, target) == by_id(logits, target)
    assert by_name.state_dict() == {}


@pytest.mark.parametrize(
    "arguments", [{}, {"robust_lambda": 0.5, "confidence_penalty": 0.5, "label_smoothing": 0.1, "pos_weight": [2] * 4}]
)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_unknown_leaves_no_trace(task: str, arguments: dict[str, Any]) -> None:
    logits, target = example(task)
    loss = SigmoidCrossEntropyLoss(4, NAMES, 255, **arguments)
    hidden = (target == 255) if task == "multilabel" else (target == 255)[:, None].expand_as(logits)
    moved = logits.masked_scatter(hidden, torch.randn_like(logits) * 1e4).requires_grad_()
    value = loss(moved, target)
    assert torch.equal(value, loss(logits, target))
    value.backward()
    assert (moved.grad[hidden] == 0).all()
    assert (moved.grad[~hidden] != 0).all()
    moved.grad = None
    nothing = loss(moved, torch.full_like(target, 255))
    assert nothing == 0
    nothing.backward()
    assert (moved.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("task", TASKS)
def test_half_precision_is_widened(task: str, dtype: torch.dtype) -> None:
    logits, target = example(task)
    loss = SigmoidCrossEntropyLoss(4, NAMES, 255, confidence_penalty=0.5, class_weights=[1, 2, 3, 4])
    value = loss(logits.to(dtype), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target), rtol=1e-2, atol=1e-3)
    assert loss(logits, target).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("task", TASKS)
def test_extreme_logits_stay_finite(task: str, dtype: torch.dtype) -> None:
    logits, target = example(task)
    logits = (logits.sign() * 1e4).to(dtype).requires_grad_()
    value = SigmoidCrossEntropyLoss(4, NAMES, 255, confidence_penalty=1.0)(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_one_class_is_a_yes_or_no() -> None:
    logits, target = torch.tensor([[math.log(3)], [0.0]]), torch.tensor([[1], [0]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert SigmoidCrossEntropyLoss(1)(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_probabilities_are_sigmoids() -> None:
    logits = torch.tensor([[0.0, math.log(3), -1e4]])
    torch.testing.assert_close(SigmoidCrossEntropyLoss(3).probabilities(logits), torch.tensor([[0.5, 0.75, 0.0]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pos_weight": {"raod": 1.0}}, "loss.pos_weight names a class"),
        ({"pos_weight": [1.0, 2.0]}, "loss.pos_weight must hold one number"),
        ({"class_weights": {"raod": 1.0}}, "did you mean: road"),
        ({"class_weights": [1.0, 2.0, -1.0, 1.0]}, "loss.class_weights must hold one number from 0 on"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SigmoidCrossEntropyLoss(4, NAMES, **arguments)
