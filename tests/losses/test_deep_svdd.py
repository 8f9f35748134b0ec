from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_vision.losses.deep_svdd import DeepSVDDLoss


def scores(count: int = 12) -> tuple[Tensor, Tensor]:
    """Scores in float64 and their targets, a third of them anomalous."""
    generator = torch.Generator().manual_seed(0)
    score = 4 * torch.rand(count, generator=generator, dtype=torch.float64)
    return score, (torch.arange(count) % 3 == 2).long()


def test_the_hard_boundary_is_the_mean_distance_of_what_is_normal() -> None:
    score, target = scores()
    expected = [s for s, t in zip(score.tolist(), target.tolist(), strict=True) if t == 0]
    assert DeepSVDDLoss(2, weight=0.5)(score, target).item() == pytest.approx(0.5 * sum(expected) / len(expected))


@pytest.mark.parametrize("nu", [0.05, 0.5])
@pytest.mark.parametrize("radius", [0.0, 1.2])
def test_the_soft_boundary_with_a_fixed_radius_is_the_documented_formula(nu: float, radius: float) -> None:
    score, target = scores()
    normal = [s for s, t in zip(score.tolist(), target.tolist(), strict=True) if t == 0]
    # The buffer holds the square in 32 bits.
    limit = float(np.float32(radius**2))
    expected = limit + sum(max(0.0, s - limit) for s in normal) / len(normal) / nu
    loss = DeepSVDDLoss(2, nu=nu, radius=radius)
    assert loss(score, target).item() == pytest.approx(expected, rel=1e-9)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), score.requires_grad_())
    assert loss.squared_radius.item() == limit, "a fixed radius stays"


def test_the_radius_moves_to_the_quantile_of_the_training_batches() -> None:
    score, target = scores(60)
    loss = DeepSVDDLoss(2, nu=0.2)
    normal = score[target == 0].numpy()
    moving = 0.0
    for _ in range(3):
        loss(score, target)
        moving += 0.1 * (np.quantile(normal, 0.8) - moving)
        assert loss.squared_radius.item() == pytest.approx(moving, rel=1e-5)
    for _ in range(200):
        loss(score, target)
    assert loss.squared_radius.item() == pytest.approx(np.quantile(normal, 0.8), rel=1e-4)
    assert (normal > loss.squared_radius.item()).mean() == pytest.approx(0.2, abs=0.03)


def test_the_quantile_is_the_best_radius() -> None:
    # Which is why it is not a trained parameter: the objective over R^2 has its minimum there.
    score, target = scores(300)
    best = min((DeepSVDDLoss(2, nu=0.2, radius=math.sqrt(r))(score, target).item(), r) for r in np.linspace(0, 4, 401))
    assert best[1] == pytest.approx(np.quantile(score[target == 0].numpy(), 0.8), abs=0.05)


def test_evaluation_leaves_the_radius_and_a_checkpoint_holds_it() -> None:
    score, target = scores()
    loss = DeepSVDDLoss(2, nu=0.2)
    loss(score, target)
    before = loss.squared_radius.clone()
    value = loss.eval()(score, target)
    assert torch.equal(loss.squared_radius, before)
    other = DeepSVDDLoss(2, nu=0.2).eval()
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(score, target), value)


@pytest.mark.parametrize("nu", [0.0, 0.1])
def test_anomalous_rows_leave_no_trace(nu: float) -> None:
    score, target = scores()
    loss = DeepSVDDLoss(2, nu=nu, radius=0.5 if nu else None)
    wild = torch.where(target == 1, torch.inf, score).requires_grad_()
    value = loss(wild, target)
    assert torch.equal(value, loss(score, target))
    value.backward()
    assert wild.grad is not None
    assert (wild.grad[target == 1] == 0).all()
    assert (wild.grad[(target == 0) & (score > 0.5)] > 0).all()


@pytest.mark.parametrize("nu", [0.0, 0.1])
def test_without_a_normal_row_it_is_zero_and_the_radius_stays(nu: float) -> None:
    loss = DeepSVDDLoss(2, nu=nu)
    loss(*scores())
    before = loss.squared_radius.clone()
    score = torch.rand(3, requires_grad=True)
    value = loss(score, torch.ones(3, dtype=torch.uint8))
    assert value == 0
    value.backward()
    assert torch.equal(score.grad, torch.zeros(3))  # type: ignore[arg-type]
    assert torch.equal(loss.squared_radius, before)


def test_half_precision_is_widened() -> None:
    score, target = scores()
    assert DeepSVDDLoss(2, nu=0.3)(score.bfloat16(), target).dtype == torch.float32
