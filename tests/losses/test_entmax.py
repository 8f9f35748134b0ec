from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vision.losses.entmax import Entmax15Loss, entmax15
from lightning_vision.testing.conformance import check_loss


def bisected(row: list[float]) -> list[float]:
    """1.5-entmax of one row in Python's floats: tau is sought by halving."""
    z = [v / 2 for v in row]
    low, high = max(z) - 1, max(z)
    for _ in range(200):
        tau = (low + high) / 2
        if sum(max(v - tau, 0) ** 2 for v in z) >= 1:
            low = tau
        else:
            high = tau
    return [max(v - low, 0) ** 2 for v in z]


def naive(logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """The loss by its definition ``Omega*(z) + Omega(e_y) - z_y``, and ``p - e_y`` for its gradient, without 255."""
    c = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, c).tolist()
    targets = target.reshape(-1).tolist()
    count = sum(y != 255 for y in targets)
    total, gradients = 0.0, []
    for row, y in zip(rows, targets, strict=True):
        if y == 255:
            gradients.append([0.0] * c)
            continue
        p = bisected(row)
        omega = sum(v**1.5 - v for v in p) / (1.5 * 0.5)
        total += sum(a * b for a, b in zip(p, row, strict=True)) - omega - row[y]
        gradients.append([(v - (k == y)) / count for k, v in enumerate(p)])
    gradient = torch.tensor(gradients, dtype=torch.float64).reshape(logits.movedim(1, -1).shape).movedim(-1, 1)
    return total / count, gradient


def example(dense: bool, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits in float64, and a target with some 255 in which the last class is absent."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, 3, 2) if dense else (7,)
    logits = torch.randn(shape[0], classes, *shape[1:], generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, classes - 1, shape, generator=generator)
    target.view(-1)[::3] = 255
    return logits, target


@pytest.mark.parametrize("classes", [1, 2, 3, 21, 300])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_entmax_is_that_of_bisection(scale: float, classes: int) -> None:
    z = torch.randn(6, classes, generator=torch.Generator().manual_seed(classes), dtype=torch.float64) * scale
    expected = torch.tensor([bisected(row) for row in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(entmax15(z), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(entmax15(z.float()), expected.float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(entmax15(z.t(), 0), expected.t(), rtol=0, atol=1e-12)
    torch.testing.assert_close(entmax15(z[:, :, None, None])[:, :, 0, 0], expected, rtol=0, atol=1e-12)


def test_entmax_keeps_its_digits_where_they_are_hard_to_keep() -> None:
    # Crowds of classes about 2 below the largest, where the support ends, and classes far below.
    generator = torch.Generator().manual_seed(0)
    rows = [-2 + spread * torch.rand(3000, generator=generator) for spread in (0.2, 0.02, 1e-3, 3e-7)]
    rows += [torch.full((3000,), -1e4), torch.randn(3000, generator=generator) * 20]
    z = torch.stack(rows)
    z[:, 7] = 0
    z = z.requires_grad_()
    p = entmax15(z)
    expected = torch.tensor([bisected(row) for row in z.tolist()])
    torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)
    (p * torch.randn(p.shape, generator=generator)).sum().backward()
    assert z.grad.isfinite().all()


def test_entmax_has_the_jacobian_of_entmax() -> None:
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert (entmax15(z) == 0).any()
    assert torch.autograd.gradcheck(entmax15, z)


@pytest.mark.parametrize("seed", [18, 20])
def test_entmax_of_many_classes_that_get_nothing(seed: int) -> None:
    # Thousands of equal values below the support: rounding must not take them in.
    z = torch.randn(16, 5000, generator=torch.Generator().manual_seed(seed)) * 20
    p = entmax15(z)
    torch.testing.assert_close(p.sum(1), torch.ones(16), rtol=0, atol=1e-6)
    assert (p[z <= z.amax(1, keepdim=True) - 2] == 0).all()


def test_what_is_2_below_the_largest_has_exactly_0() -> None:
    above = -2 + torch.arange(1, 4000) * 2.0**-22
    z = torch.cat([torch.zeros(3999, 1), above[:, None].expand(-1, 10), torch.full((3999, 1), -5.0)], 1)
    assert (entmax15(z)[:, -1] == 0).all()


def test_entmax_of_classes_that_are_masked_out() -> None:
    z = torch.tensor([[0.5, -torch.inf, 0.0], [-torch.inf, 3.0, -torch.inf]])
    p = entmax15(z)
    torch.testing.assert_close(p[0, ::2], entmax15(z[:1, ::2])[0])
    assert p[0, 1] == 0
    assert p[1].tolist() == [0, 1, 0]


def test_nan_stays_nan() -> None:
    assert entmax15(torch.full((2, 3), float("nan"))).isnan().all()


@pytest.mark.parametrize("dense", [False, True])
def test_is_the_documented_formula(dense: bool) -> None:
    logits, target = example(dense)
    expected, gradient = naive(logits, target)
    logits.requires_grad_()
    loss = Entmax15Loss(5, None, 255)
    value = loss(logits, target)
    assert value.item() == pytest.approx(expected, rel=1e-9)
    value.backward()
    torch.testing.assert_close(logits.grad, gradient, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)
    assert torch.equal(Entmax15Loss(5, None, 255, weight=0.5)(logits, target), 0.5 * value)


def test_two_classes_by_hand() -> None:
    # z = (0, 1): tau ** 2 + (1 / 2 - tau) ** 2 = 1.
    tau = 0.25 - 7**0.5 / 4
    p = (tau**2, (0.5 - tau) ** 2)
    loss = p[1] - 0 + (1 - p[0] ** 1.5 - p[1] ** 1.5) / 0.75
    found = Entmax15Loss(2)(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.tensor([0]))
    assert found.item() == pytest.approx(loss, rel=1e-12)


def test_keeps_the_contract() -> None:
    torch.manual_seed(0)
    check_loss(Entmax15Loss(4, None, 255), 4)


def test_is_exactly_0_from_a_margin_of_2_on() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.5, -7.0], [0.0, 0.0, 1e4, 0.0]], requires_grad=True)
    loss = Entmax15Loss(4)(logits, torch.tensor([0, 2]))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dense", [False, True])
def test_predictions_are_sparse(dense: bool, dtype: torch.dtype) -> None:
    logits = (example(dense)[0] * 2).to(dtype)
    p = Entmax15Loss(5).probabilities(logits)
    assert p.shape == logits.shape
    assert p.dtype == dtype
    assert (p == 0).any()
    torch.testing.assert_close(p.sum(1), torch.ones_like(p.sum(1)), rtol=0, atol=1e-2 if p.itemsize == 2 else 1e-6)
    assert torch.equal(p.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dense", [False, True])
def test_half_precision_is_close(dense: bool, dtype: torch.dtype) -> None:
    logits, target = example(dense)
    loss = Entmax15Loss(5, None, 255)
    torch.testing.assert_close(loss(logits.to(dtype), target), loss(logits.float(), target), rtol=1e-2, atol=1e-2)
    assert loss(logits, target).dtype == torch.float64


def test_a_shift_of_all_logits_changes_nothing() -> None:
    # Multiples of 1/64 are exact in float32 beside 1e4.
    logits, target = torch.randint(-150, 150, (20, 5)) / 64, torch.arange(20) % 5
    assert torch.equal(Entmax15Loss(5)(logits + 1e4, target), Entmax15Loss(5)(logits, target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype=dtype, requires_grad=True)
    # The first is wrong by 2e4, the second right with one rival: p = (1/2, 1/2).
    expected = (2e4 + (1 - 2 * 0.5**1.5) / 0.75) / 2
    value = Entmax15Loss(3)(logits, torch.tensor([1, 0]))
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5, 0], [-0.25, 0.25, 0]], dtype=dtype))


def test_one_class_alone_costs_nothing() -> None:
    logits = torch.randn(3, 1, requires_grad=True)
    loss = Entmax15Loss(1)(logits, torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
