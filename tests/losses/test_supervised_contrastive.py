from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_vision.errors import ConfigError
from lightning_vision.losses.nt_xent import NTXentLoss
from lightning_vision.losses.supervised_contrastive import SupervisedContrastiveLoss

NAMES = ("sky", "road", "car", "tree")
TARGET = torch.tensor([0, 0, 2, 2, 0, 0, 1, 1, 3])  # tree is alone


def naive(rows: list[list[float]], target: list[int], temperature: float, ignored: int | None = None) -> float:
    """``L_out`` of the paper, a pair of rows at a time, averaged over rows that have a positive."""
    kept = [(row, t) for row, t in zip(rows, target, strict=True) if t != ignored]
    terms = []
    for i, (a, t) in enumerate(kept):
        s = {
            k: math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b)) / temperature
            for k, (b, _) in enumerate(kept)
            if k != i
        }
        positives = [k for k in s if kept[k][1] == t]
        if positives:
            total = math.fsum(map(math.exp, s.values()))
            terms.append(-math.fsum(math.log(math.exp(s[p]) / total) for p in positives) / len(positives))
    return math.fsum(terms) / len(terms) if terms else 0.0


def vectors(count: int = 9) -> Tensor:
    return torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("ignore_index", [None, 2, 255])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_is_the_documented_formula(temperature: float, ignore_index: int | None) -> None:
    x, target = vectors(), TARGET.clone()
    if ignore_index == 255:
        target[[1, 6]] = 255  # of road one row is left, which has no positive
    loss = SupervisedContrastiveLoss(4, NAMES, ignore_index, temperature=temperature, weight=0.6)
    expected = 0.6 * naive(x.tolist(), target.tolist(), temperature, ignore_index)
    assert loss(x, target).item() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(loss(x, target.to(torch.uint8)), loss(x, target))
    assert torch.autograd.gradcheck(lambda v: loss(v, target), x.requires_grad_())


def test_the_default_temperature_is_the_documented_one() -> None:
    x = vectors()
    value = SupervisedContrastiveLoss(4, NAMES)(x, TARGET).item()
    assert value == pytest.approx(naive(x.tolist(), TARGET.tolist(), 0.1), rel=1e-9)


def test_with_a_class_for_each_image_it_is_nt_xent() -> None:
    x, target = vectors(8), torch.arange(4).repeat_interleave(2)
    supervised = SupervisedContrastiveLoss(4, NAMES, temperature=0.3)(x, target)
    torch.testing.assert_close(supervised, NTXentLoss(4, NAMES, temperature=0.3)(x))


def test_ignored_rows_leave_no_trace() -> None:
    loss = SupervisedContrastiveLoss(4, NAMES, 255)
    target = TARGET.clone()
    target[[2, 5]] = 255
    x = vectors()
    x[[2, 5]] = float("nan")
    x.requires_grad_()
    value = loss(x, target)
    value.backward()
    kept = target != 255
    rest = x.detach()[kept].requires_grad_()
    alone = loss(rest, target[kept])
    alone.backward()
    assert x.grad is not None
    torch.testing.assert_close(value, alone)
    torch.testing.assert_close(x.grad[kept], rest.grad)
    assert not x.grad[~kept].any()


@pytest.mark.parametrize("target", [[0, 1, 2, 3], [255, 255, 255, 255], [0, 1, 255, 255], []])
def test_without_any_positive_it_is_zero(target: list[int]) -> None:
    x = vectors(len(target)).requires_grad_()
    value = SupervisedContrastiveLoss(4, NAMES, 255)(x, torch.tensor(target, dtype=torch.int64))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    x = vectors().to(dtype)
    loss = SupervisedContrastiveLoss(4, NAMES, temperature=0.001)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x, TARGET)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(x.double(), TARGET), rtol=1e-5, atol=0)


def test_without_labels_it_names_the_loss_that_needs_none() -> None:
    with pytest.raises(ConfigError, match="loss=nt_xent_loss"):
        SupervisedContrastiveLoss(0, ())(vectors(), None)
