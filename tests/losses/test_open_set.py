from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.open_set import EntropicOpenSetLoss, ObjectosphereLoss
from lightning_vision.testing.conformance import check_loss

NAMES = ("cat", "dog", "street", "owl")


def naive(
    logits: Tensor,
    target: Tensor,
    background: int | None,
    features: Tensor | None = None,
    xi: float = 10.0,
    zeta: float = 0.1,
) -> float:
    """The documented formulas, a row at a time, in Python's floats; 255 is background."""
    terms = []
    for i, (row, y) in enumerate(zip(logits.tolist(), target.tolist(), strict=True)):
        unknown = y in (255, background)
        known = {k: v for k, v in enumerate(row) if k != background}
        z = math.log(sum(map(math.exp, known.values())))
        log_p = {k: v - z for k, v in known.items()}
        term = -sum(log_p.values()) / len(log_p) if unknown else -log_p[y]
        if features is not None:
            length = math.sqrt(sum(v * v for v in features[i].tolist()))
            term += zeta * (length**2 if unknown else max(0.0, xi - length) ** 2)
        terms.append(term)
    return sum(terms) / len(terms)


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Logits and features in float64, and a target of known and background rows in which class 3 is absent."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(9, 4, generator=generator, dtype=torch.float64) * 2
    features = torch.randn(9, 6, generator=generator, dtype=torch.float64) * torch.arange(1, 10)[:, None]
    return logits, torch.tensor([0, 1, 2, 255, 2, 0, 1, 255, 1]), features


@pytest.mark.parametrize("background", [None, 0, 1, 2, 3])
def test_entropic_is_the_documented_formula(background: int | None) -> None:
    logits, target, _ = example()
    loss = EntropicOpenSetLoss(4, NAMES, 255, background, weight=0.7)
    assert loss(logits, target).item() == pytest.approx(0.7 * naive(logits, target, background), rel=1e-12)
    assert torch.equal(loss(logits, target.to(torch.uint8)), loss(logits, target))
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("background", [None, 0, 2, 3])
@pytest.mark.parametrize(("xi", "zeta"), [(10.0, 0.1), (30.0, 0.5), (10.0, 0.0), (0.0, 0.1)])
def test_objectosphere_is_the_documented_formula(background: int | None, xi: float, zeta: float) -> None:
    logits, target, features = example()
    loss = ObjectosphereLoss(4, NAMES, 255, background, xi=xi, zeta=zeta, weight=0.7)
    expected = 0.7 * naive(logits, target, background, features, xi, zeta)
    assert loss(logits, target, features=features).item() == pytest.approx(expected, rel=1e-12)
    inputs = (logits.requires_grad_(), features.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, f: loss(x, target, features=f), inputs)


def test_without_a_background_is_cross_entropy() -> None:
    logits, target, _ = example()
    known = target != 255
    expected = F.cross_entropy(logits[known], target[known])
    torch.testing.assert_close(EntropicOpenSetLoss(4, NAMES, 255)(logits[known], target[known]), expected)


@pytest.mark.parametrize("background", [None, "street"])
def test_entropic_keeps_the_contract(background: str | None) -> None:
    torch.manual_seed(0)
    check_loss(EntropicOpenSetLoss(4, NAMES, None, background), 4, ignore_index=None)


def test_settings_change_the_loss_as_documented() -> None:
    # A known row with p = 3/4 and a background row with p = (3/4, 1/4) of the known classes 0 and 2; lengths 5 and 13.
    logits = torch.tensor([[math.log(3), 7.0, 0.0], [math.log(3), -7.0, 0.0]])
    target, features = torch.tensor([0, 1]), torch.tensor([[3.0, 4.0], [5.0, 12.0]])
    known, background = math.log(4 / 3), (math.log(4 / 3) + math.log(4)) / 2
    entropic = (known + background) / 2
    for settings, expected in (
        ({}, entropic + 0.1 * (5**2 + 13**2) / 2),
        ({"xi": 7.0}, entropic + 0.1 * (2**2 + 13**2) / 2),
        ({"xi": 4.0}, entropic + 0.1 * 13**2 / 2),
        ({"zeta": 0.0}, entropic),
        ({"zeta": 0.3}, entropic + 0.3 * (5**2 + 13**2) / 2),
        ({"weight": 0.1}, (entropic + 0.1 * (5**2 + 13**2) / 2) / 10),
    ):
        found = ObjectosphereLoss(3, background_class=1, **settings)(logits, target, features=features).item()
        assert found == pytest.approx(expected, rel=1e-5), settings
    # The same rows, none of them background.
    plain = F.cross_entropy(logits, target).item()
    assert EntropicOpenSetLoss(3)(logits, target).item() == pytest.approx(plain, rel=1e-5)
    found = ObjectosphereLoss(3)(logits, target, features=features).item()
    assert found == pytest.approx(plain + 0.1 * 5**2 / 2, rel=1e-5)
    assert EntropicOpenSetLoss(3, background_class=1)(logits, target).item() == pytest.approx(entropic, rel=1e-5)
    assert EntropicOpenSetLoss(3, background_class=1, weight=2.0)(logits, target).item() == pytest.approx(
        2 * entropic, rel=1e-5
    )


@pytest.mark.parametrize("background", [0, 2, 3])
def test_the_background_has_no_logit_and_no_probability(background: int) -> None:
    logits, target, _ = example()
    logits.requires_grad_()
    loss = EntropicOpenSetLoss(4, NAMES, 255, background)
    loss(logits, target).backward()
    assert (logits.grad[:, background] == 0).all()
    p = loss.probabilities(logits)
    known = [k for k in range(4) if k != background]
    assert (p[:, background] == 0).all()
    torch.testing.assert_close(p[:, known], logits[:, known].softmax(1))
    torch.testing.assert_close(EntropicOpenSetLoss(4).probabilities(logits), logits.softmax(1))


def test_a_background_row_is_best_where_known_classes_are_equal() -> None:
    loss = EntropicOpenSetLoss(4, NAMES, background_class="street")
    best = torch.tensor([[1.0, 1.0, 9.0, 1.0]], requires_grad=True)
    value = loss(best, torch.tensor([2]))
    value.backward()
    assert value.item() == pytest.approx(math.log(3), rel=1e-6)
    torch.testing.assert_close(best.grad, torch.zeros(1, 4), rtol=0, atol=1e-7)
    assert loss(torch.tensor([[1.0, 2.0, 9.0, 1.0]]), torch.tensor([2])) > value


def test_rows_of_no_class_are_those_of_a_background_class() -> None:
    logits, target, features = example()
    target = torch.where(target == 2, 255, target)
    as_class = torch.where(target == 255, 4, target)
    wider = torch.cat([logits, torch.randn(9, 1, dtype=torch.float64)], 1)
    for kind, more in ((EntropicOpenSetLoss, {}), (ObjectosphereLoss, {"features": features})):
        found = kind(4, NAMES, ignore_index=255)(logits, target, **more)
        expected = kind(5, (*NAMES, "unknown"), background_class="unknown")(wider, as_class, **more)
        torch.testing.assert_close(found, expected)


def test_an_empty_batch_costs_nothing() -> None:
    loss = ObjectosphereLoss(4)(torch.zeros(0, 4, requires_grad=True), torch.zeros(0), features=torch.zeros(0, 6))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("y", [0, 2])
def test_one_kind_of_row_alone(y: int) -> None:
    logits, _, features = example()
    target = torch.full((9,), y)
    value = ObjectosphereLoss(4, NAMES, 255, 2)(logits, target, features=features)
    assert value.item() == pytest.approx(naive(logits, target, 2, features), rel=1e-12)


def test_one_known_class_costs_nothing() -> None:
    logits = torch.randn(4, 2, requires_grad=True)
    loss = EntropicOpenSetLoss(2, background_class=0)(logits, torch.tensor([0, 1, 1, 0]))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    logits, target, features = example()
    loss = ObjectosphereLoss(4, NAMES, 255, 2)
    value = loss(logits.to(dtype), target, features=features.to(dtype))
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), target, features=features.float()), rtol=1e-2, atol=1e-3)
    assert loss(logits, target, features=features).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_and_features_stay_finite(dtype: torch.dtype) -> None:
    logits, target, features = example()
    logits = (logits.sign() * 1e4).to(dtype).requires_grad_()
    features = (features.sign() * 1e4).to(dtype)
    features[:2] = 0  # a length of 0 has no direction
    features.requires_grad_()
    value = ObjectosphereLoss(4, NAMES, 255, 2)(logits, target, features=features)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize(("given", "found"), [("street", 2), ("cat", 0), (3, 3), (0, 0), (None, None)])
def test_the_background_is_found_by_name_or_id(given: Any, found: int | None) -> None:
    for loss in (EntropicOpenSetLoss(4, NAMES, None, given), ObjectosphereLoss(4, NAMES, None, given)):
        assert loss.background == found


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (NAMES, "stret", r"(?s)did you mean: street.*loss.background_class=2"),
        (NAMES, "zebra", r"(?s)cat, dog, street, owl.*loss.background_class=null"),
        (NAMES, 4, "an id from 0 to 3"),
        (NAMES, -1, "an id from 0 to 3"),
        (("5", "7"), 7, r"(?s)did you mean: 7.*loss.background_class=1"),
        (("cat",), "cat", "leaves no class that is known"),
    ],
)
def test_a_wrong_background_is_refused(names: tuple[str, ...], given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EntropicOpenSetLoss(len(names), names, background_class=given)


def test_objectosphere_needs_features() -> None:
    assert ObjectosphereLoss.needs == ("features",)
    with pytest.raises(TypeError, match="needs the features"):
        ObjectosphereLoss(4)(torch.randn(2, 4), torch.tensor([0, 1]))
