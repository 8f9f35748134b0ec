from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_vision.losses.drocc import DROCCLoss

CENTER = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    """Scores that are the squared distance from a point: what looks most normal lies in its direction."""
    return 0.05 * (x - CENTER).square().sum(1)


def rows(count: int = 5) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def norms(h: Tensor) -> Tensor:
    return h.flatten(1).norm(dim=1)


def naive_search(loss: DROCCLoss, x: Tensor, slope: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The documented search, a sample at a time."""
    found = []
    radius = loss.radius or math.sqrt(x[0].numel()) / 2
    for row, h in zip(x, start, strict=True):
        h = h / h.norm() * min(max(h.norm().item(), radius), loss.gamma * radius)
        for _ in range(loss.num_perturbation_steps):
            direction = slope(row + h)
            h = h - (loss.step_size or radius / loss.num_perturbation_steps) * direction / direction.norm()
            h = h / h.norm() * min(max(h.norm().item(), radius), loss.gamma * radius)
        found.append(row + h)
    return torch.stack(found)


@pytest.mark.parametrize("settings", [{}, {"radius": 0.3, "gamma": 1.5, "step_size": 0.1, "num_perturbation_steps": 3}])
def test_is_the_documented_formula(settings: dict[str, float]) -> None:
    loss = DROCCLoss(2, perturbation_strength=0.7, weight=0.5, **settings)  # type: ignore[arg-type]
    x, target = rows(), torch.tensor([0, 0, 1, 0, 0])
    torch.manual_seed(3)
    value = loss(bowl(x), target, inputs=x, score=bowl)
    torch.manual_seed(3)
    found = naive_search(loss, x, lambda v: 0.1 * (v - CENTER), torch.randn_like(x))
    normal = [i for i, t in enumerate(target.tolist()) if t == 0]
    clean = sum(bowl(x)[i].item() for i in normal) / len(normal)
    adversarial = sum(-math.log(1 - math.exp(-bowl(found)[i].item() - 1e-6)) for i in normal) / len(normal)
    assert value.item() == pytest.approx(0.5 * (clean + 0.7 * adversarial), rel=1e-9)


@pytest.mark.parametrize("shape", [(7,), (3, 8, 6)])
def test_the_search_stays_in_the_shell_and_finds_what_looks_more_normal(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, goal = torch.randn(6, *shape), torch.randn(*shape) * 0.2

    def score(v: Tensor) -> Tensor:
        return (v - goal).flatten(1).square().sum(1)

    radius = math.sqrt(x[0].numel()) / 2
    found = {}
    for steps in (0, 5, 60):
        torch.manual_seed(1)
        found[steps] = DROCCLoss(2, num_perturbation_steps=steps, step_size=0.1 * radius).search(x, score)
        far = norms(found[steps] - x)
        assert (far >= radius * (1 - 1e-5)).all()
        assert (far <= 2 * radius * (1 + 1e-5)).all()
    assert (score(found[5]) < score(found[0])).all()
    # The best of the shell is known here: towards the goal, as far as that is.
    distance = norms(goal - x)
    best = (distance - distance.clamp(radius, 2 * radius)).square()
    assert torch.allclose(score(found[60]), best, atol=0.02 * radius**2)


def test_the_search_leaves_no_gradients_and_training_gets_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))

    def score(v: Tensor) -> Tensor:
        return model(v).square().sum(1)

    x = torch.randn(5, 4, requires_grad=True)
    loss, target = DROCCLoss(2), torch.zeros(5, dtype=torch.int64)
    loss.search(x.detach(), score)
    assert all(p.grad is None for p in model.parameters())
    with torch.no_grad():
        loss.search(x.detach(), score)
    loss(score(x.detach()), target, inputs=x, score=score).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert x.grad is None, "the images are no parameters"


def test_the_adversarial_term_forbids_that_everything_ends_in_the_centre() -> None:
    scale = torch.tensor(1e-4, requires_grad=True)

    def score(v: Tensor) -> Tensor:
        return scale * v.square().sum(1)

    x, target = torch.randn(8, 6), torch.zeros(8, dtype=torch.int64)
    for loss, sign in ((DROCCLoss(2), -1), (DROCCLoss(2, perturbation_strength=0.0), 1)):
        (slope,) = torch.autograd.grad(loss(score(x), target, inputs=x, score=score), scale)
        assert slope.sign() == sign


def test_scores_of_zero_and_huge_ones_stay_finite() -> None:
    x = torch.zeros(2, 3)
    for constant in (0.0, 1e4):
        level = torch.full((2,), constant, requires_grad=True)
        # It does not depend on x at all: no direction is better than another.
        value = DROCCLoss(2)(level, torch.zeros(2), inputs=x, score=lambda v, a=level: a + 0 * v.sum(1))
        value.backward()
        assert value.isfinite()
        assert level.grad is not None
        assert level.grad.isfinite().all()


def test_it_is_reproducible() -> None:
    x, loss = rows(), DROCCLoss(2)
    values = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        values.append(loss(bowl(x), torch.zeros(5), inputs=x, score=bowl))
    assert values[0] == values[1] != values[2]


def test_evaluation_is_the_clean_term_without_a_search() -> None:
    def never(v: Tensor) -> Tensor:
        raise AssertionError("no search")

    x = rows()
    with torch.inference_mode():
        value = DROCCLoss(2).eval()(bowl(x), torch.zeros(5), inputs=x, score=never)
    assert value == bowl(x).mean()


def test_without_a_normal_row_it_is_zero() -> None:
    score = torch.rand(3, requires_grad=True)
    value = DROCCLoss(2)(score, torch.ones(3), inputs=torch.randn(3, 4), score=lambda v: v.square().sum(1))
    assert value == 0
    value.backward()
    assert torch.equal(score.grad, torch.zeros(3))  # type: ignore[arg-type]


def test_works_under_autocast() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8))

    def score(v: Tensor) -> Tensor:
        return model(v).float().square().sum(1)

    x, loss = torch.randn(4, 3, 8, 8), DROCCLoss(2, num_perturbation_steps=3)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(1)
        start = score(DROCCLoss(2, num_perturbation_steps=0).search(x, score))
        torch.manual_seed(1)
        found = loss.search(x, score)
        value = loss(score(x), torch.zeros(4), inputs=x, score=score)
    assert (score(found) < start).all()
    value.backward()
    assert value.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
