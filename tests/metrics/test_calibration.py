"""The temperature against a search over a grid, and thresholds against trying all."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.metrics import f1_score, log_loss

from lightning_vision.metrics import calibration, fit_temperature, fit_thresholds
from lightning_vision.metrics.calibration import negative_log_likelihood


def rows(factor: float, size: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are ``factor`` times too large for their targets."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 5, generator=generator) * 2
    return logits * factor, logits.softmax(1).multinomial(1, generator=generator).squeeze(1)


@pytest.mark.parametrize("factor", [0.2, 1, 3, 20])
def test_the_temperature_is_the_best_of_all(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = rows(factor)

    def loss(log_temperature: float) -> float:
        scaled = logits.double() / math.exp(log_temperature)
        return log_loss(target, scaled.softmax(1).numpy(), labels=range(5))

    best = math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x)
    assert fit_temperature(logits, target) == pytest.approx(best, rel=1e-5)
    assert best == pytest.approx(factor, rel=0.2)
    monkeypatch.setattr(calibration, "BLOCK", 37)
    assert fit_temperature(logits, target) == pytest.approx(best, rel=1e-5)
    assert negative_log_likelihood(logits, target, best) == pytest.approx(loss(math.log(best)))


@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(1e-3, 1e4))
def test_it_is_never_worse_than_none(seed: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, 3, generator=generator) * scale
    target = torch.randint(0, 3, (size,), generator=generator)
    temperature = fit_temperature(logits, target)
    assert 0.01 <= temperature <= 100
    assert negative_log_likelihood(logits, target, temperature) <= negative_log_likelihood(logits, target)


def test_edges() -> None:
    logits, target = torch.eye(3) * 4, torch.arange(3)
    assert fit_temperature(logits, target) == 0.01
    assert fit_temperature(logits, (target + 1) % 3) == 100
    assert fit_temperature(torch.zeros(4, 3), torch.zeros(4).long()) == 1
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0).long()) == 1
    logits, target = rows(2)
    expected = fit_temperature(logits, target)
    masked = torch.cat([logits, torch.full((400, 1), -torch.inf)], 1)
    assert fit_temperature(masked, target) == pytest.approx(expected)
    more = torch.cat([logits, torch.randn(9, 5)]), torch.cat([target, torch.full((9,), 255)])
    assert fit_temperature(*more, ignore_index=255) == pytest.approx(expected)


def test_thresholds_of_labels() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(60, 4, generator=generator)
    target = (torch.rand(60, 4, generator=generator) < probabilities**2).to(torch.uint8)
    target[:20, 1] = 255
    target[:, 3] = 0
    found = fit_thresholds(probabilities, target)
    assert found[3] == 0.5
    for label in range(3):
        known = target[:, label] != 255
        truth, scores = target[known, label], probabilities[known, label]
        best = max(f1_score(truth, scores >= t) for t in scores)
        assert f1_score(truth, scores >= found[label]) == pytest.approx(best)
        np.testing.assert_array_less(0, found[label])
