"""Scores of a pass over a split: counted batch by batch, turned into figures at its end, right over processes."""

from __future__ import annotations

from lightning_vision.metrics.anomaly import AnomalyScores, best_f1_threshold
from lightning_vision.metrics.bootstrap import PerImageConfusion, image_intervals, row_intervals, sample_intervals
from lightning_vision.metrics.calibration import fit_temperature, fit_thresholds
from lightning_vision.metrics.classification import ClassificationScores
from lightning_vision.metrics.confusion import (
    Counts,
    EpochScores,
    accuracy,
    dice,
    frequency_weighted_iou,
    iou,
    precision,
    recall,
)
from lightning_vision.metrics.multilabel import MultilabelScores
from lightning_vision.metrics.neighbours import NeighbourAccuracy
from lightning_vision.metrics.open_set import OpenSetScores

__all__ = [
    "AnomalyScores",
    "ClassificationScores",
    "Counts",
    "EpochScores",
    "MultilabelScores",
    "NeighbourAccuracy",
    "OpenSetScores",
    "PerImageConfusion",
    "accuracy",
    "best_f1_threshold",
    "dice",
    "fit_temperature",
    "fit_thresholds",
    "frequency_weighted_iou",
    "image_intervals",
    "iou",
    "precision",
    "recall",
    "row_intervals",
    "sample_intervals",
]
