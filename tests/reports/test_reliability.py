"""Reliability diagrams, and curves of an order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import precision_recall_curve, roc_curve

from lightning_vision.metrics.classification import CALIBRATION_BINS, add_calibration, calibration_error
from lightning_vision.reports.ranking import curves, ranking_figure
from lightning_vision.reports.reliability import Bins, reliability_figure

RNG = np.random.default_rng(0)


def test_bars_are_the_shares_that_are_right() -> None:
    confidence = torch.tensor([0.31, 0.33, 0.95, 1.0, 1.0], dtype=torch.float32)
    right = torch.tensor([True, False, True, True, False])
    bins = torch.zeros(3, CALIBRATION_BINS + 1, dtype=torch.float64)
    add_calibration(bins, confidence, right)
    expected = (abs(0.64 - 1) + abs(0.95 - 1) + abs(2 - 1)) / 5
    assert calibration_error(bins).item() == pytest.approx(expected, rel=1e-6)
    figure = reliability_figure([Bins("before", bins.numpy()), Bins("after", bins.numpy())])
    shares, counts = figure.axes[0], figure.axes[2]
    assert [bar.get_height() for bar in shares.containers[0]] == pytest.approx([0.5, 2 / 3])
    assert [bar.get_height() for bar in counts.containers[0]][-1] == 3
    assert f"{expected:.3f}" in shares.get_title()
    FigureCanvasAgg(figure).draw()


def test_curves_are_those_of_scikit_learn() -> None:
    positive = RNG.random(200) < 0.3
    scores = np.round(RNG.normal(size=200) + positive, 1)  # with ties
    recall, alarms, precision = curves(scores, positive)
    their_alarms, their_recall, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(alarms, their_alarms)
    np.testing.assert_allclose(recall, their_recall)
    their_precision, their_recall, _ = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(precision, their_precision[::-1])
    np.testing.assert_allclose(recall, their_recall[::-1])


def test_columns_without_positives_have_no_curve() -> None:
    truth = np.array([[1, 0, 255], [0, 0, 1], [1, 0, 0]], np.uint8)
    figure = ranking_figure(RNG.random((3, 3)), truth, ("a $", "never", "c"))
    precision = figure.axes[1]
    assert [text.get_text() for text in precision.get_legend().get_texts()] == ["a $ (2)", "c (1)"]  # type: ignore[union-attr]
    many = curves(RNG.random(50_000), RNG.random(50_000) < 0.5)
    assert len(many[0]) <= 2001
    assert many[0][-1] == many[1][-1] == 1
    FigureCanvasAgg(figure).draw()
