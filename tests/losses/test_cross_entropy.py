from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import valid_rows
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.testing.conformance import check_loss

NAMES = ("sky", "road", "car", "tree")
SIMILAR = [[1.0, 0.2, 0.0, 0.5], [0.2, 1.0, 0.7, 0.0], [0.0, 0.7, 1.0, 0.1], [0.5, 0.0, 0.1, 1.0]]


def naive(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    class_weights: list[float] | None,
    weight: float,
    robust_lambda: float,
    confidence_penalty: float,
    similarities: list[list[float]] | None,
    temperature: float,
    smoothing: float,
) -> float:
    """The documented formula, a sample at a time, in Python's floats."""
    c = logits.shape[1]
    rows = logits.movedim(1, -1).reshape(-1, c).tolist()
    total = mass = penalty = 0.0
    count = 0
    for row, y in zip(rows, target.reshape(-1).tolist(), strict=True):
        if y == ignore_index:
            continue
        z = math.log(sum(math.exp(v) for v in row))
        log_p = [v - z for v in row]
        q = [float(k == y) for k in range(c)]
        if similarities is not None and temperature > 0:
            e = [math.exp(s / temperature) for s in similarities[y]]
            q = [v / sum(e) for v in e]
        q = [(1 - smoothing) * v + smoothing / c for v in q]
        w = 1.0 if class_weights is None else class_weights[y]
        total += w * -sum(a * b for a, b in zip(q, log_p, strict=True))
        mass += w
        entropy = -sum(math.exp(v) * v for v in log_p)
        penalty += (math.log(c) - entropy) / math.log(c)
        count += 1
    if count == 0:
        return 0.0
    loss = (1 - robust_lambda) * total / mass + robust_lambda / c
    return weight * (loss + confidence_penalty * penalty / count)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    dense=st.booleans(),
    ignore_index=st.sampled_from([None, 255, 1]),
    class_weights=st.sampled_from([None, [1.0, 2.0, 0.5, 3.0]]),
    weight=st.sampled_from([1.0, 0.3]),
    robust_lambda=st.sampled_from([0.0, 0.1, 1.0]),
    confidence_penalty=st.sampled_from([0.0, 0.5]),
    similarities=st.sampled_from([None, SIMILAR]),
    temperature=st.sampled_from([0.0, 0.7]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_is_the_documented_formula(
    seed: int,
    dense: bool,
    ignore_index: int | None,
    class_weights: list[float] | None,
    weight: float,
    robust_lambda: float,
    confidence_penalty: float,
    similarities: list[list[float]] | None,
    temperature: float,
    smoothing: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 2) if dense else (5,)
    logits = torch.randn(shape[0], 4, *shape[1:], generator=generator, dtype=torch.float64) * 3
    target = torch.randint(0, 4, shape, generator=generator)
    if ignore_index == 255:
        target[torch.rand(shape, generator=generator) < 0.3] = 255
    loss = SoftmaxCrossEntropyLoss(
        4,
        NAMES,
        ignore_index,
        class_weights=class_weights,
        weight=weight,
        robust_lambda=robust_lambda,
        confidence_penalty=confidence_penalty,
        class_similarities=similarities,
        class_similarities_temperature=temperature,
        label_smoothing=smoothing,
    )
    expected = naive(
        logits,
        target,
        ignore_index,
        class_weights,
        weight,
        robust_lambda,
        confidence_penalty,
        similarities,
        temperature,
        smoothing,
    )
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"class_weights": {"car": 5.0}},
        {"robust_lambda": 0.2},
        {"confidence_penalty": 0.2},
        {"class_similarities": SIMILAR, "class_similarities_temperature": 0.5},
        {"label_smoothing": 0.1},
        {"label_smoothing": 0.1, "class_weights": [1, 2, 3, 4]},
    ],
)
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_loss(SoftmaxCrossEntropyLoss(4, NAMES, 255, **arguments), 4)


def test_plain_is_torchs_own() -> None:
    logits, target = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    target[0] = 255
    weights = [1.0, 2.0, 3.0, 4.0]
    for kwargs in ({}, {"class_weights": weights}, {"label_smoothing": 0.2}):
        expected = F.cross_entropy(
            logits,
            target,
            weight=torch.tensor(weights) if "class_weights" in kwargs else None,
            ignore_index=255,
            label_smoothing=0.2 if "label_smoothing" in kwargs else 0.0,
        )
        torch.testing.assert_close(SoftmaxCrossEntropyLoss(4, NAMES, 255, **kwargs)(logits, target), expected)


def test_weights_by_name_are_weights_by_id() -> None:
    logits, target = torch.randn(9, 4), torch.randint(0, 4, (9,))
    by_name = SoftmaxCrossEntropyLoss(4, NAMES, class_weights={"tree": 4.0, "road": 0.5})
    by_id = SoftmaxCrossEntropyLoss(4, NAMES, class_weights=[1.0, 0.5, 1.0, 4.0])
    assert by_name(logits, target) == by_id(logits, target)


def test_settings_leave_no_trace_in_a_checkpoint() -> None:
    loss = SoftmaxCrossEntropyLoss(4, NAMES, class_weights=[1, 2, 3, 4])
    assert loss.state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weights": {"raod": 1.0}}, "did you mean: road"),
        ({"class_weights": [1.0, 2.0]}, "4 numbers"),
        ({"class_weights": [1.0, 2.0, -1.0, 1.0]}, "from 0 on"),
        ({"class_similarities": [[1.0, 0.0], [0.0, 1.0]]}, "4 x 4"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SoftmaxCrossEntropyLoss(4, NAMES, **arguments)


def test_names_and_number_of_classes_must_agree() -> None:
    with pytest.raises(ConfigError, match="3 names"):
        SoftmaxCrossEntropyLoss(3, NAMES)


def test_valid_rows_keeps_order_and_widens() -> None:
    logits = torch.arange(12.0).reshape(1, 2, 2, 3).to(torch.float16)
    target = torch.tensor([[[0, 255, 1], [1, 0, 255]]], dtype=torch.uint8)
    rows, kept = valid_rows(logits, target, 255)
    assert rows.dtype == torch.float32
    assert rows.tolist() == [[0, 6], [2, 8], [3, 9], [4, 10]]
    assert kept.tolist() == [0, 1, 1, 0]
