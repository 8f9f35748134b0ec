from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError, DataError
from lightning_vision.losses.dice import DiceLoss
from lightning_vision.testing.conformance import check_loss

VOID = 255


def naive(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None = None,
    smooth: float = 1.0,
    classes: str = "present",
    per_image: bool = False,
    include_background: bool = True,
    square_denominator: bool = False,
) -> Tensor:
    """The documented formula, a pixel at a time."""
    p = logits.softmax(1)
    b, c, h, w = p.shape
    of_images = []
    for images in [[i] for i in range(b)] if per_image else [list(range(b))]:
        pixels = [(i, y, x) for i in images for y in range(h) for x in range(w) if target[i, y, x] != ignore_index]
        losses = []
        for k in range(0 if include_background else 1, c):
            own = [at for at in pixels if target[at] == k]
            if not pixels or (classes == "present" and not own):
                continue
            overlap = sum(p[i, k, y, x] for i, y, x in own)
            predicted = sum(p[i, k, y, x] ** (2 if square_denominator else 1) for i, y, x in pixels)
            losses.append(1 - (2 * overlap + smooth) / (predicted + len(own) + smooth))
        if losses:
            of_images.append(sum(losses) / len(losses))
    return sum(of_images) / len(of_images) if of_images else logits.sum() * 0


def drawn(seed: int, classes_drawn: int = 4, void: float = 0.0, dtype: torch.dtype = torch.float64) -> Any:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 4, generator=generator, dtype=dtype) * 3
    target = torch.randint(0, classes_drawn, (2, 3, 4), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits, target


def with_gradient(loss: Any, logits: Tensor, target: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, target, **arguments)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes_drawn=st.integers(1, 4),
    void=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    smooth=st.sampled_from([0.0, 1.0, 20.0]),
    classes=st.sampled_from(["present", "all"]),
    per_image=st.booleans(),
    include_background=st.booleans(),
    square_denominator=st.booleans(),
)
def test_is_the_documented_formula(seed: int, classes_drawn: int, void: float, **arguments: Any) -> None:
    logits, target = drawn(seed, classes_drawn, void)
    value, gradient = with_gradient(DiceLoss(4, None, VOID, **arguments), logits, target)
    expected, expected_gradient = with_gradient(naive, logits, target, ignore_index=VOID, **arguments)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
    assert 0 <= value <= 1


@pytest.mark.parametrize(
    "arguments",
    [{}, {"classes": "all"}, {"per_image": True}, {"include_background": False}, {"square_denominator": True}],
)
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_loss(DiceLoss(4, None, VOID, **arguments), 4)


@pytest.mark.parametrize("square_denominator", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sums_over_many_pixels_keep_their_digits(dtype: torch.dtype, square_denominator: bool) -> None:
    """One class of 0.98 a pixel: a running sum in float32 would round every one of them alike."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 512, 512).to(dtype)
    target = torch.zeros(2, 512, 512, dtype=torch.uint8)
    target[:, :4] = torch.randint(0, 3, (2, 4, 512))
    target[:, :, :9] = VOID
    logits[:, 0] += 5
    loss = DiceLoss(3, None, VOID, square_denominator=square_denominator)
    value, gradient = with_gradient(loss, logits.float(), target)
    half = loss(logits, target)
    exact, exact_gradient = with_gradient(loss, logits.double(), target)
    torch.testing.assert_close(value.double(), exact, rtol=3e-6, atol=0)
    assert (gradient - exact_gradient).abs().max() < 1e-5 * exact_gradient.abs().max()
    assert torch.equal(half, value), "half precision is widened"


def test_ids_may_be_uint8_and_beyond_the_classes_where_ignored() -> None:
    logits, target = drawn(1, void=0.3)
    expected = with_gradient(DiceLoss(4, None, VOID), logits, target)
    found = with_gradient(DiceLoss(4, None, VOID), logits, target.to(torch.uint8))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    minus = DiceLoss(4, None, -100)(logits, target.where(target != VOID, -100))
    torch.testing.assert_close(minus, expected[0], rtol=0, atol=0)


@pytest.mark.parametrize("ignore_index", [None, VOID])
def test_ids_beyond_the_classes_are_refused(ignore_index: int | None) -> None:
    logits, target = drawn(1, void=0.3)
    target[0, 0, 0] = 4
    with pytest.raises(DataError, match="0 to 3"):
        DiceLoss(4, None, ignore_index)(logits, target)


def test_a_whole_number_of_cases_by_hand() -> None:
    """Logits so large that the softmax is 0 and 1: the soft sums are counts."""
    truth = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, VOID]]])
    guess = torch.tensor([[[0, 1, 1, 1]], [[0, 0, 0, 2]]])
    logits = 1e3 * F.one_hot(guess, 3).movedim(-1, 1).float()
    # class 0: 4 found of 5, 4 said; class 1: 2 found of 2, 3 said; class 2: said where it is ignored
    cases: list[tuple[dict[str, Any], float]] = [
        ({}, (1 - 9 / 10 + 1 - 5 / 6) / 2),
        ({"smooth": 0.0}, (1 - 8 / 9 + 1 - 4 / 5) / 2),
        ({"weight": 0.5}, (1 - 9 / 10 + 1 - 5 / 6) / 4),
        ({"classes": "all"}, (1 - 9 / 10 + 1 - 5 / 6 + 0) / 3),
        ({"include_background": False}, 1 - 5 / 6),
        ({"per_image": True}, ((1 - 3 / 4 + 1 - 5 / 6) / 2 + 0) / 2),
        ({"per_image": True, "classes": "all"}, ((1 - 3 / 4 + 1 - 5 / 6 + 0) / 3 + 0) / 2),
        # the second image has no foreground
        ({"per_image": True, "include_background": False}, 1 - 5 / 6),
    ]
    for arguments, expected in cases:
        value = DiceLoss(3, None, VOID, **arguments)(logits, truth)
        assert value.item() == pytest.approx(expected, abs=1e-6), arguments


def test_squares_change_the_denominator_alone() -> None:
    logits, target = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long)
    assert DiceLoss(2, smooth=0.0)(logits, target).item() == pytest.approx(1 - 2 * 1 / (1 + 2))
    squared = DiceLoss(2, smooth=0.0, square_denominator=True)
    assert squared(logits, target).item() == pytest.approx(1 - 2 * 1 / (0.5 + 2))


def test_right_is_0_and_wrong_is_1() -> None:
    target = torch.arange(32).reshape(2, 4, 4) % 4
    right = 1e3 * F.one_hot(target, 4).movedim(-1, 1).float()
    assert DiceLoss(4)(right, target) == 0
    assert DiceLoss(4, smooth=0.0)(right.roll(1, 1), target) == 1


def test_the_order_of_pixels_is_of_no_matter() -> None:
    logits, target = drawn(3, void=0.2)
    order = torch.randperm(12)
    moved = logits.flatten(2)[:, :, order].view_as(logits), target.flatten(1)[:, order].view_as(target)
    torch.testing.assert_close(DiceLoss(4, None, VOID)(*moved), DiceLoss(4, None, VOID)(logits, target))


def test_other_memory_layouts_and_one_class() -> None:
    logits, target = drawn(4)
    value, gradient = with_gradient(DiceLoss(4), logits, target)
    other = with_gradient(DiceLoss(4), logits.to(memory_format=torch.channels_last), target)
    torch.testing.assert_close(other, (value, gradient), check_stride=False)
    assert DiceLoss(1)(torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long)) == 0


def test_no_class_but_the_background() -> None:
    with pytest.raises(ConfigError, match="include_background=true"):
        DiceLoss(1, include_background=False)


@pytest.mark.slow  # it is no dependency: pip install --no-deps segmentation-models-pytorch
def test_is_that_of_a_published_library() -> None:
    published = pytest.importorskip("segmentation_models_pytorch").losses.DiceLoss
    logits, target = drawn(5, void=0.2)
    for smooth in (0.0, 1.0):  # theirs is added to half of numerator and denominator
        expected = published("multiclass", smooth=smooth / 2, ignore_index=VOID)(logits, target)
        torch.testing.assert_close(DiceLoss(4, None, VOID, smooth=smooth)(logits, target), expected)
