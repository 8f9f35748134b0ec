from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.poly import PolyLoss
from lightning_vision.testing.conformance import check_loss


def naive(logits: Tensor, target: Tensor, epsilon: float) -> float:
    """The documented formula, a sample or pixel at a time, in Python's floats; 255 does not count."""
    terms = []
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1]).tolist()
    for row, y in zip(rows, target.reshape(-1).tolist(), strict=True):
        if y != 255:
            p_t = math.exp(row[y]) / sum(map(math.exp, row))
            terms.append(-math.log(p_t) + epsilon * (1 - p_t))
    return sum(terms) / len(terms)


def example(dense: bool) -> tuple[Tensor, Tensor]:
    """Logits in float64, and a target with some 255 in which class 3 is absent."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, 3, 2) if dense else (7,)
    logits = torch.randn(shape[0], 4, *shape[1:], generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, 3, shape, generator=generator)
    target.view(-1)[::3] = 255
    return logits, target


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("dense", [False, True])
def test_is_the_documented_formula(dense: bool, epsilon: float) -> None:
    logits, target = example(dense)
    loss = PolyLoss(4, None, 255, epsilon=epsilon, weight=0.7)
    assert loss(logits, target).item() == pytest.approx(0.7 * naive(logits, target, epsilon), rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("epsilon", [-1.0, 1.0])
def test_keeps_the_contract(epsilon: float) -> None:
    torch.manual_seed(0)
    check_loss(PolyLoss(4, None, 255, epsilon=epsilon), 4)


@pytest.mark.parametrize("dense", [False, True])
def test_epsilon_0_is_cross_entropy(dense: bool) -> None:
    logits, target = example(dense)
    expected = F.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(PolyLoss(4, None, 255, epsilon=0.0)(logits, target), expected)


def test_settings_change_the_loss_as_documented() -> None:
    logits, target = torch.tensor([[0.0, math.log(3)]]), torch.tensor([0])  # p_t = 1/4
    for settings, expected in (
        ({}, math.log(4) + 0.75),
        ({"epsilon": 0.0}, math.log(4)),
        ({"epsilon": -0.5}, math.log(4) - 0.375),
        ({"weight": 0.1}, 0.1 * (math.log(4) + 0.75)),
    ):
        assert PolyLoss(2, **settings)(logits, target).item() == pytest.approx(expected, rel=1e-5), settings


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dense", [False, True])
def test_half_precision_is_close(dense: bool, dtype: torch.dtype) -> None:
    logits, target = example(dense)
    loss = PolyLoss(4, None, 255)
    torch.testing.assert_close(loss(logits.to(dtype), target), loss(logits.float(), target), rtol=1e-2, atol=1e-2)
    assert loss(logits, target).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    logits, target = example(dense=True)
    logits = (logits.sign() * 1e4).to(dtype).requires_grad_()
    value = PolyLoss(4, None, 255)(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_one_class_alone_costs_nothing() -> None:
    logits = torch.randn(3, 1, requires_grad=True)
    loss = PolyLoss(1)(logits, torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
