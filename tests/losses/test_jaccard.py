from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.jaccard import JaccardLoss
from lightning_vision.testing.conformance import check_loss

VOID = 255


def naive(
    logits: Tensor,
    target: Tensor,
    smooth: float = 1.0,
    classes: str = "present",
    per_image: bool = False,
    include_background: bool = True,
) -> Tensor:
    """The documented formula on one-hot truth, an image and a class at a time."""
    if per_image:
        each = [
            naive(x[None], y[None], smooth, classes, False, include_background)
            for x, y in zip(logits, target, strict=True)
        ]
        foreign = (VOID,) if include_background or classes == "all" else (VOID, 0)
        some = [v for v, y in zip(each, target, strict=True) if any(i not in foreign for i in y.flatten().tolist())]
        return sum(some) / len(some) if some else logits.sum() * 0
    p = logits.softmax(1).movedim(1, -1)[target != VOID]
    truth = F.one_hot(target[target != VOID], logits.shape[1]).double()
    losses = []
    for c in range(0 if include_background else 1, logits.shape[1]):
        if len(p) and (classes == "all" or truth[:, c].any()):
            both = (p[:, c] * truth[:, c]).sum()
            losses.append(1 - (both + smooth) / (p[:, c].sum() + truth[:, c].sum() - both + smooth))
    return sum(losses) / len(losses) if losses else logits.sum() * 0


def drawn(seed: int, classes_drawn: int = 4, void: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 3, 4, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, classes_drawn, (3, 3, 4), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes_drawn=st.integers(1, 4),
    void=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    smooth=st.sampled_from([0.0, 1.0, 20.0]),
    classes=st.sampled_from(["present", "all"]),
    per_image=st.booleans(),
    include_background=st.booleans(),
)
def test_is_the_documented_formula(seed: int, classes_drawn: int, void: float, **arguments: Any) -> None:
    logits, target = drawn(seed, classes_drawn, void)
    value, expected = JaccardLoss(4, None, VOID, **arguments)(logits, target), naive(logits, target, **arguments)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(v, logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
    assert 0 <= value <= 1


@pytest.mark.parametrize(
    "arguments", [{}, {"classes": "all"}, {"per_image": True}, {"include_background": False}, {"weight": 0.3}]
)
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_loss(JaccardLoss(4, None, VOID, **arguments), 4)


def test_cases_by_hand() -> None:
    """Logits so large that the softmax is 0 and 1: the soft sums are counts."""
    truth = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, VOID]]])
    guess = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 2]]])
    logits = 1e3 * F.one_hot(guess, 3).movedim(-1, 1).float()
    # class 0: 4 of a union of 5; class 1: 2 of 3; class 2: said where it is ignored
    cases: list[tuple[dict[str, Any], float]] = [
        ({}, (1 - 5 / 6 + 1 - 3 / 4) / 2),
        ({"smooth": 0.0}, (1 - 4 / 5 + 1 - 2 / 3) / 2),
        ({"weight": 0.5}, (1 - 5 / 6 + 1 - 3 / 4) / 4),
        ({"classes": "all"}, (1 - 5 / 6 + 1 - 3 / 4 + 0) / 3),
        ({"include_background": False}, 1 - 3 / 4),
        ({"per_image": True}, ((1 - 2 / 3 + 1 - 3 / 4) / 2 + 0) / 2),
    ]
    for arguments, expected in cases:
        value = JaccardLoss(3, None, VOID, **arguments)(logits, truth)
        assert value.item() == pytest.approx(expected, abs=1e-6), arguments


def test_the_order_of_pixels_is_of_no_matter() -> None:
    logits, target = drawn(3, void=0.2)
    order = torch.randperm(12)
    moved = logits.flatten(2)[:, :, order].view_as(logits), target.flatten(1)[:, order].view_as(target)
    torch.testing.assert_close(JaccardLoss(4, None, VOID)(*moved), JaccardLoss(4, None, VOID)(logits, target))


def test_no_class_but_the_background() -> None:
    with pytest.raises(ConfigError, match="include_background=true"):
        JaccardLoss(1, include_background=False)


@pytest.mark.slow  # it is no dependency: pip install --no-deps segmentation-models-pytorch
def test_is_that_of_a_published_library() -> None:
    published = pytest.importorskip("segmentation_models_pytorch").losses.JaccardLoss
    logits, target = drawn(5)
    for smooth in (0.0, 1.0):
        expected = published("multiclass", smooth=smooth)(logits, target)
        torch.testing.assert_close(JaccardLoss(4, smooth=smooth)(logits, target), expected)
