from __future__ import annotations

import pytest
import torch

from lightning_vision.losses.deep_sad import DeepSADLoss
from lightning_vision.losses.deep_svdd import DeepSVDDLoss


def test_is_the_documented_formula() -> None:
    score = torch.rand(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.01
    target = torch.tensor([0, 1, 0, 2, 1, 0, 2, 0, 1])
    terms = []
    for s, t in zip(score.tolist(), target.tolist(), strict=True):
        if t != 2:
            terms.append(s if t == 0 else 3.0 / (s + 1e-6))
    loss = DeepSADLoss(2, None, 2, eta=3.0, weight=0.5)
    assert loss(score, target).item() == pytest.approx(0.5 * sum(terms) / len(terms), rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), score.requires_grad_())


def test_without_anomalies_it_is_deep_svdd() -> None:
    score, target = torch.rand(5), torch.zeros(5, dtype=torch.int64)
    assert torch.equal(DeepSADLoss(2)(score, target), DeepSVDDLoss(2)(score, target))


def test_pulls_what_is_normal_and_pushes_what_is_not() -> None:
    score = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    value = DeepSADLoss(2)(score, torch.tensor([0, 0, 1, 1], dtype=torch.uint8))
    assert value.isfinite(), "even of an anomaly in the centre"
    value.backward()
    assert score.grad is not None
    assert score.grad.isfinite().all()
    assert (score.grad[:2] > 0).all()
    assert (score.grad[2:] < 0).all()


def test_everything_ignored_is_zero() -> None:
    score = torch.rand(3, requires_grad=True)
    value = DeepSADLoss(2, None, 2)(score, torch.full((3,), 2))
    assert value == 0
    value.backward()
    assert torch.equal(score.grad, torch.zeros(3))  # type: ignore[arg-type]


def test_half_precision_is_widened() -> None:
    assert DeepSADLoss(2)(torch.rand(3).half(), torch.tensor([0, 1, 0])).dtype == torch.float32
