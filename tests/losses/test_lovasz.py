from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import DataError
from lightning_vision.losses.lovasz import BINS, LovaszSoftmaxLoss
from lightning_vision.testing.conformance import check_loss

VOID = 255
WIDTH = 1 / BINS


def jaccard_loss(wrong: set[int], own: set[int]) -> float:
    """The Jaccard loss of a class when these pixels are wrong: the missed ones and the false alarms of the union."""
    return len(wrong) / len(wrong | own) if wrong else 0.0


def naive(
    logits: Tensor, target: Tensor, ignore_index: int | None = VOID, classes: str = "present", per_image: bool = False
) -> Tensor:
    """The Lovász extension by its definition: what each pixel adds to the set function, from the largest error down."""
    if per_image:
        some = [
            naive(x[None], y[None], ignore_index, classes)
            for x, y in zip(logits, target, strict=True)
            if (y != ignore_index).any()
        ]
        return sum(some) / len(some) if some else logits.sum() * 0
    keep = target.flatten() != ignore_index if ignore_index is not None else slice(None)
    p = logits.softmax(1).movedim(1, -1).reshape(-1, logits.shape[1])[keep]
    y = target.flatten()[keep].tolist()
    losses = []
    for c in range(p.shape[1]):
        own = {i for i, k in enumerate(y) if k == c}
        if not y or (classes == "present" and not own):
            continue
        errors = [1 - p[i, c] if i in own else p[i, c] for i in range(len(y))]
        loss, wrong = logits.new_zeros(()), set()
        for i in sorted(range(len(y)), key=lambda i: -errors[i].item()):
            loss = loss + errors[i] * (jaccard_loss(wrong | {i}, own) - jaccard_loss(wrong, own))
            wrong.add(i)
        losses.append(loss)
    return sum(losses) / len(losses) if losses else logits.sum() * 0


def published(p: Tensor, target: Tensor) -> Tensor:
    """The formula of the paper's Algorithm 1 by cumulated sums, over the classes present; exact in float64."""
    rows, y = p.movedim(1, -1).reshape(-1, p.shape[1]), target.flatten().long()
    rows, y = rows[y != VOID], y[y != VOID]
    losses = []
    for c in y.unique().tolist():
        own = (y == c).to(rows.dtype)
        errors, order = (own - rows[:, c]).abs().sort(descending=True)
        sorted_own = own[order]
        intersection = own.sum() - sorted_own.cumsum(0)
        union = own.sum() + (1 - sorted_own).cumsum(0)
        jaccard = 1 - intersection / union
        losses.append(errors @ torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]]))
    return torch.stack(losses).mean()


def drawn(seed: int, classes_drawn: int = 4, void: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 3, 4, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, classes_drawn, (2, 3, 4), generator=generator)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits.requires_grad_(), target


def many(scale: float, right: float, void: float = 0.1, rare: bool = False, size: int = 192) -> tuple[Tensor, Tensor]:
    """So many pixels that they are counted in bins; ``right`` is what the logits of the truth are raised by."""
    generator = torch.Generator().manual_seed(int(10 * (scale + right)))
    target = torch.randint(0, 5, (2, size, size), generator=generator, dtype=torch.uint8)
    if rare:
        target[(target == 3) & (torch.rand(target.shape, generator=generator) < 0.999)] = 0
    target[target == 4] = 1
    logits = torch.randn(2, 5, size, size, generator=generator) * scale
    logits += right * F.one_hot(target.long(), 5).movedim(-1, 1)
    target[torch.rand(target.shape, generator=generator) < void] = VOID
    return logits, target


def with_gradient(loss: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    value = loss(logits, target)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    classes_drawn=st.integers(1, 4),
    void=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    classes=st.sampled_from(["present", "all"]),
    per_image=st.booleans(),
)
def test_is_the_lovasz_extension_of_the_jaccard_loss(seed: int, classes_drawn: int, void: float, **given: Any) -> None:
    logits, target = drawn(seed, classes_drawn, void)
    value, expected = LovaszSoftmaxLoss(4, None, VOID, **given)(logits, target), naive(logits, target, **given)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-13)
    gradients = [torch.autograd.grad(v, logits)[0] for v in (value, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-13)
    assert 0 <= value <= 1


@pytest.mark.parametrize("arguments", [{}, {"classes": "all"}, {"per_image": True}, {"weight": 0.3}])
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_loss(LovaszSoftmaxLoss(4, None, VOID, **arguments), 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [4, 192])
def test_all_wrong_with_two_of_four_classes_costs_1(size: int, dtype: torch.dtype) -> None:
    target = torch.zeros(2, size, size, dtype=torch.long)
    target[:, :, size // 2 :] = 1
    wrong = 1e3 * F.one_hot(1 - target, 4).movedim(-1, 1).to(dtype)
    assert LovaszSoftmaxLoss(4)(wrong, target).item() == pytest.approx(1, abs=1e-6)
    assert LovaszSoftmaxLoss(4, weight=0.5)(wrong, target).item() == pytest.approx(0.5, abs=1e-6)
    # the two absent classes are said nowhere
    assert LovaszSoftmaxLoss(4, classes="all")(wrong, target).item() == pytest.approx(0.5, abs=1e-6)
    assert LovaszSoftmaxLoss(4)(-wrong, target) < 1
    right = 1e3 * F.one_hot(target, 4).movedim(-1, 1).to(dtype)
    assert LovaszSoftmaxLoss(4)(right, target).item() == pytest.approx(0, abs=1e-7)


def test_of_hard_predictions_it_is_one_minus_the_iou() -> None:
    torch.manual_seed(1)
    target, guess = torch.randint(0, 3, (2, 2, 9, 9))
    logits = 1e3 * F.one_hot(guess, 3).movedim(-1, 1).double()
    iou = [((target == c) & (guess == c)).sum() / ((target == c) | (guess == c)).sum() for c in range(3)]
    assert LovaszSoftmaxLoss(3)(logits, target).item() == pytest.approx(1 - sum(iou).item() / 3)


def test_images_and_absent_classes() -> None:
    logits, target = drawn(9, 3)
    target[0][target[0] == 1] = 0
    batch, images, everything = (
        LovaszSoftmaxLoss(4, None, VOID, **a)(logits, target) for a in ({}, {"per_image": True}, {"classes": "all"})
    )
    assert abs(batch - images) > 1e-3
    torch.testing.assert_close(everything, (3 * batch + logits.softmax(1)[:, 3].max()) / 4)
    void = torch.cat([target, torch.full_like(target[:1], VOID)])
    more = LovaszSoftmaxLoss(4, None, VOID, per_image=True)(logits[[0, 1, 1]], void)
    torch.testing.assert_close(more, images, msg="an image that is ignored is left out")


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize(("scale", "right"), [(1.0, 0.0), (1.0, 3.0), (4.0, 6.0), (0.1, 12.0), (3.0, 25.0)])
def test_bins_are_as_good_as_sorting(scale: float, right: float, rare: bool) -> None:
    """From random logits to a solved task, where most errors fall into the lowest bin."""
    logits, target = many(scale, right, rare=rare)
    loss = LovaszSoftmaxLoss(5, None, VOID)
    value, gradient = with_gradient(loss, logits, target)
    exact, exact_gradient = with_gradient(lambda x, y: published(x.softmax(1), y), logits.double(), target)
    assert loss(logits.double(), target).item() == pytest.approx(exact.item(), rel=1e-10, abs=1e-13), "sorted"
    assert -WIDTH <= value - exact <= 3e-7, "too small by less than a bin, if at all"
    if exact > 1e-2:
        assert abs(value - exact) < 3e-7
        off = (gradient - exact_gradient).abs().sum() / exact_gradient.abs().sum()
        assert off < (2e-3 if rare else 5e-5)
    assert (gradient.movedim(1, -1)[target == VOID] == 0).all()


@pytest.mark.parametrize(("scale", "right"), [(1.0, 0.0), (1.0, 3.0), (4.0, 6.0)])
def test_few_pixels_are_sorted_in_float32_too(scale: float, right: float) -> None:
    logits, target = many(scale, right, size=96)
    value, gradient = with_gradient(LovaszSoftmaxLoss(5, None, VOID), logits, target)
    exact, exact_gradient = with_gradient(lambda x, y: published(x.softmax(1), y), logits.double(), target)
    torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=1e-7)
    assert (gradient - exact_gradient).abs().sum() < 3e-6 * exact_gradient.abs().sum()


def test_the_bound_of_the_bins_is_reached_but_not_passed() -> None:
    """All errors in one bin, the class's own above the others: the worst that an order inside a bin can hide."""
    own = torch.zeros(1, 512, 512, dtype=torch.bool)
    own[0, 0, :8] = True
    # Errors of 0.9 of a bin at the eight pixels of class 1, and 0.1 of a bin at all others.
    p1 = torch.where(own, 1 - 0.9 * WIDTH, 0.1 * WIDTH).double()
    logits = torch.stack([(1 - p1).log(), p1.log()], 1)
    loss = LovaszSoftmaxLoss(2, ignore_index=VOID)
    target = own.long()
    exact, value = published(logits.float().softmax(1).double(), target), loss(logits.float(), target)
    assert 0.1 * WIDTH < exact - value < WIDTH


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("classes", ["present", "all"])
def test_bins_know_images_and_absent_classes(classes: str, per_image: bool) -> None:
    logits, target = many(1.0, 2.0, size=256)
    loss = LovaszSoftmaxLoss(5, None, VOID, classes=classes, per_image=per_image)
    value, gradient = with_gradient(loss, logits, target)
    exact, exact_gradient = with_gradient(loss, logits.double(), target)
    torch.testing.assert_close(value.double(), exact, rtol=0, atol=3e-7)
    assert (gradient - exact_gradient).abs().sum() < 5e-5 * exact_gradient.abs().sum()


def test_half_precision_is_widened_and_float64_is_kept() -> None:
    logits, target = many(1.0, 2.0)
    loss = LovaszSoftmaxLoss(5, None, VOID)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(loss(logits.to(dtype), target), loss(logits.to(dtype).float(), target))
    assert loss(logits.double(), target).dtype == torch.float64


def test_the_gradient_is_that_of_the_value() -> None:
    logits, target = drawn(11, void=0.2)
    assert torch.autograd.gradcheck(lambda x: LovaszSoftmaxLoss(4, None, VOID, weight=2.5)(x, target), logits)


@pytest.mark.parametrize("size", [8, 192])
def test_the_order_of_pixels_and_their_layout_are_of_no_matter(size: int) -> None:
    logits, target = many(1.0, 1.0, size=size)
    loss = LovaszSoftmaxLoss(5, None, VOID)
    value, gradient = with_gradient(loss, logits, target)
    order = torch.randperm(size * size)
    moved = loss(logits.flatten(2)[:, :, order].view_as(logits), target.flatten(1)[:, order].view_as(target))
    torch.testing.assert_close(moved, value)
    other = with_gradient(loss, logits.to(memory_format=torch.channels_last), target.long())
    torch.testing.assert_close(other, (value, gradient), check_stride=False)


def test_of_one_class_nothing_can_be_wrong() -> None:
    assert LovaszSoftmaxLoss(1)(torch.randn(2, 1, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long)) == 0


def test_a_graph_can_be_walked_twice() -> None:
    logits, target = drawn(12)
    value = LovaszSoftmaxLoss(4)(logits, target)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(3 * value, logits)[0], 3 * first)


def test_ids_beyond_the_classes_are_refused() -> None:
    logits, target = drawn(1, void=0.3)
    with pytest.raises(DataError, match=r"data\.ignore_index=255"):
        LovaszSoftmaxLoss(4)(logits, target)


@pytest.mark.slow  # it is no dependency: pip install --no-deps segmentation-models-pytorch
def test_is_that_of_a_published_library() -> None:
    theirs = pytest.importorskip("segmentation_models_pytorch").losses.LovaszLoss
    logits, target = drawn(5, 3, 0.2)
    logits = logits.float()  # theirs knows nothing else
    for per_image in (False, True):
        expected = with_gradient(theirs("multiclass", per_image=per_image, ignore_index=VOID), logits, target)
        found = with_gradient(LovaszSoftmaxLoss(4, None, VOID, per_image=per_image), logits, target)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
