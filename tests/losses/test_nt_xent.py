from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_vision.losses.nt_xent import NTXentLoss
from lightning_vision.signatures import class_constants


def naive(rows: list[list[float]], temperature: float) -> float:
    """The formula of the paper, a pair of rows at a time, in Python's floats."""

    def cosine(a: list[float], b: list[float]) -> float:
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    terms = []
    for i, row in enumerate(rows):
        s = {k: cosine(row, other) / temperature for k, other in enumerate(rows) if k != i}
        partner = i + 1 if i % 2 == 0 else i - 1
        terms.append(-math.log(math.exp(s[partner]) / math.fsum(map(math.exp, s.values()))))
    return math.fsum(terms) / len(terms)


def vectors(count: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
@pytest.mark.parametrize("count", [4, 8])
def test_is_the_documented_formula(count: int, temperature: float) -> None:
    x = vectors(count)
    loss = NTXentLoss(0, (), temperature=temperature, weight=0.7)
    assert loss(x).item() == pytest.approx(0.7 * naive(x.tolist(), temperature), rel=1e-9)
    assert loss(x).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, x.requires_grad_())


def test_the_default_temperature_is_the_documented_one() -> None:
    x = vectors()
    assert NTXentLoss(0, ())(x).item() == pytest.approx(naive(x.tolist(), 0.07), rel=1e-9)


def test_is_what_a_hand_can_compute() -> None:
    # Two pairs, equal within and at right angles to each other: e^1 against e^1 + 2 e^0.
    x = torch.tensor([[1.0, 0.0], [5.0, 0.0], [0.0, 2.0], [0.0, 0.1]])
    expected = math.log((math.e + 2) / math.e)
    assert NTXentLoss(0, (), temperature=1.0)(x).item() == pytest.approx(expected, rel=1e-6)


def test_pairs_lie_behind_each_other_and_labels_do_not_count() -> None:
    x, loss = vectors(), NTXentLoss(3, ignore_index=255)
    assert torch.allclose(loss(x[[1, 0, 7, 6, 2, 3, 4, 5]]), loss(x)), "pairs and their rows may be swapped"
    assert not torch.allclose(loss(x[[0, 2, 1, 3, 4, 5, 6, 7]]), loss(x)), "other pairs are another loss"
    assert torch.equal(loss(x, torch.full((8,), 255)), loss(x))
    assert torch.allclose(loss(4 * x), loss(x)), "length does not count"


def test_one_pair_has_nothing_to_be_told_from() -> None:
    for count in (0, 2):
        x = vectors(count).requires_grad_()
        value = NTXentLoss(0, ())(x)
        assert value.item() == 0
        value.backward()
        assert x.grad is not None
        assert not x.grad.any()


def test_odd_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two views of one image.*got 3"):
        NTXentLoss(0, ())(torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"vectors \(B, D\)"):
        NTXentLoss(0, ())(torch.randn(4, 3, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_computed(dtype: torch.dtype) -> None:
    x = vectors().to(dtype)
    loss = NTXentLoss(0, (), temperature=0.001)
    expected = loss(x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(x).dtype == torch.float32
        torch.testing.assert_close(loss(x).double(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(loss(x.float()).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e15])
def test_stays_finite(factor: float) -> None:
    x = (vectors().float() * factor).requires_grad_()
    value = NTXentLoss(0, (), temperature=1e-3)(x)
    value.backward()
    assert x.grad is not None
    assert value.isfinite()
    assert x.grad.isfinite().all()


def test_what_its_class_says() -> None:
    constants = class_constants("lightning_vision.losses.nt_xent.NTXentLoss")
    assert constants["tasks"] == ("embedding",)
    assert constants["views"] == 2
    assert constants["needs_target"] is False
