from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.dice import DiceLoss
from lightning_vision.losses.jaccard import JaccardLoss
from lightning_vision.losses.tversky import TverskyLoss
from lightning_vision.testing.conformance import check_loss

VOID = 255


def naive(
    logits: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    beta: float = 0.5,
    gamma: float = 1.0,
    smooth: float = 1.0,
    classes: str = "present",
    include_background: bool = True,
) -> Tensor:
    """The documented formula over the batch, a pixel at a time."""
    c = logits.shape[1]
    tp, fp, fn = ([logits.new_zeros(()) for _ in range(c)] for _ in range(3))
    rows = logits.softmax(1).movedim(1, -1).reshape(-1, c)
    ids = target.flatten().tolist()
    for p, y in zip(rows, ids, strict=True):
        if y == VOID:
            continue
        for k in range(c):
            if k == y:
                tp[k] = tp[k] + p[k]
                fn[k] = fn[k] + 1 - p[k]
            else:
                fp[k] = fp[k] + p[k]
    wanted = {y for y in ids if y != VOID}
    if classes == "all" and wanted:
        wanted = set(range(c))
    if not include_background:
        wanted -= {0}
    losses = [(1 - (tp[k] + smooth) / (tp[k] + alpha * fp[k] + beta * fn[k] + smooth)) ** gamma for k in sorted(wanted)]
    return sum(losses) / len(losses) if losses else logits.sum() * 0


def drawn(seed: int, classes_drawn: int = 4, void: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, classes_drawn, (2, 3, 4), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes_drawn=st.integers(1, 4),
    void=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    alpha=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    beta=st.sampled_from([0.1, 0.5, 1.0]),
    gamma=st.sampled_from([0.75, 1.0, 2.0]),
    smooth=st.sampled_from([0.0, 1.0, 20.0]),
    classes=st.sampled_from(["present", "all"]),
    include_background=st.booleans(),
)
def test_is_the_documented_formula(seed: int, classes_drawn: int, void: float, **arguments: Any) -> None:
    logits, target = drawn(seed, classes_drawn, void)
    value, expected = TverskyLoss(4, None, VOID, **arguments)(logits, target), naive(logits, target, **arguments)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    gradients = [torch.autograd.grad(v, logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-11)
    assert 0 <= value <= 1


def test_per_image_is_the_mean_of_the_images() -> None:
    logits, target = drawn(7, 3, 0.3)
    each = [naive(x[None], y[None], alpha=0.3, gamma=0.75) for x, y in zip(logits, target, strict=True)]
    value = TverskyLoss(4, None, VOID, alpha=0.3, gamma=0.75, per_image=True)(logits, target)
    torch.testing.assert_close(value, sum(each) / 2)
    void = torch.cat([target, torch.full_like(target[:1], VOID)])
    more = TverskyLoss(4, None, VOID, alpha=0.3, gamma=0.75, per_image=True)(logits[[0, 1, 1]], void)
    torch.testing.assert_close(more, value, msg="an image that is ignored is left out")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"alpha": 0.3, "beta": 0.7}, {"gamma": 0.75}, {"gamma": 2.0, "classes": "all"}, {"per_image": True}],
)
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_loss(TverskyLoss(4, None, VOID, **arguments), 4)


@pytest.mark.parametrize("common", [{}, {"classes": "all"}, {"per_image": True, "include_background": False}])
def test_dice_and_jaccard_are_special_cases(common: dict[str, Any]) -> None:
    logits, target = drawn(2, 3, 0.2)
    dice = DiceLoss(4, None, VOID, smooth=2.0, **common)(logits, target)
    torch.testing.assert_close(TverskyLoss(4, None, VOID, smooth=1.0, **common)(logits, target), dice)
    jaccard = JaccardLoss(4, None, VOID, **common)(logits, target)
    torch.testing.assert_close(TverskyLoss(4, None, VOID, alpha=1.0, beta=1.0, **common)(logits, target), jaccard)


def test_alpha_weighs_false_alarms_and_beta_what_is_missed() -> None:
    truth = torch.tensor([[[0, 0, 0, 0, 1, 1]]])
    guess = torch.tensor([[[0, 0, 0, 1, 1, 1]]])  # class 1: 2 found, 1 false alarm, none missed; class 0: 3, 0, 1
    logits = 1e3 * F.one_hot(guess, 2).movedim(-1, 1).float()
    for alpha, beta, gamma in ((0.3, 0.7, 1.0), (0.7, 0.3, 2.0), (0.5, 0.5, 0.5)):
        loss = TverskyLoss(2, alpha=alpha, beta=beta, gamma=gamma, smooth=0.0, weight=3.0)
        expected = 3 * ((1 - 3 / (3 + beta)) ** gamma + (1 - 2 / (2 + alpha)) ** gamma) / 2
        assert loss(logits, truth).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [0.5, 0.75, 1.0, 3.0])
def test_a_perfect_prediction_is_0_with_a_finite_gradient(dtype: torch.dtype, gamma: float) -> None:
    target = torch.arange(32).reshape(2, 4, 4) % 4
    logits = (1e3 * F.one_hot(target, 4).movedim(-1, 1)).to(dtype).requires_grad_()
    value = TverskyLoss(4, gamma=gamma)(logits, target)
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_no_class_but_the_background() -> None:
    with pytest.raises(ConfigError, match="include_background=true"):
        TverskyLoss(1, include_background=False)


@pytest.mark.slow  # it is no dependency: pip install --no-deps segmentation-models-pytorch
def test_is_that_of_a_published_library() -> None:
    published = pytest.importorskip("segmentation_models_pytorch").losses.TverskyLoss
    logits, target = drawn(5)
    for gamma in (1.0, 1.5):
        mine = TverskyLoss(4, smooth=0.0, alpha=0.3, beta=0.7, gamma=gamma)(logits, target)
        expected = published("multiclass", smooth=0.0, alpha=0.3, beta=0.7, gamma=1.0)(logits, target)
        if gamma == 1:
            torch.testing.assert_close(mine, expected)
        each = [published("multiclass", classes=[k], alpha=0.3, beta=0.7)(logits, target) for k in range(4)]
        torch.testing.assert_close(mine, sum(v**gamma for v in each) / 4)
