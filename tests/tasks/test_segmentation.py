"""Figures of segmentation that look at more than the confusion matrix of a split."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from lightning_vision.metrics import iou
from lightning_vision.metrics.confusion import counts_of
from lightning_vision.tasks import TASKS, task_class
from lightning_vision.tasks.base import Stage, Task
from lightning_vision.tasks.segmentation import ImageScores, Segmentation, near_borders
from lightning_vision.types import TargetSpec

NAMES = ("sky", "road", "car")


def naive(target: Tensor, width: int) -> Tensor:
    height, wide = target.shape
    found = torch.zeros(height, wide, dtype=torch.bool)
    for y in range(height):
        for x in range(wide):
            around = target[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
            found[y, x] = (around != target[y, x]).any()
    return found


@pytest.mark.parametrize("width", [1, 2, 3])
def test_borders_are_where_another_class_is_near(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (4, 5, 6), generator=generator).repeat_interleave(4, 1).repeat_interleave(3, 2)
    target[0, :3] = 255
    for dtype in (torch.uint8, torch.int64):
        found = near_borders(target.to(dtype), width)
        for image, mask in zip(found, target, strict=True):
            # A pixel that another class is near is near a border of its own class, and the other way round.
            assert torch.equal(image, naive(mask, width))


def test_the_inner_figure_forgives_a_shift_of_two_pixels() -> None:
    truth = torch.zeros(1, 20, 20, dtype=torch.uint8)
    truth[:, 5:15, 5:15] = 1
    truth[:, 0] = 255
    task = Segmentation(TargetSpec("mask", NAMES, ignore_index=255))
    scores = task.scores("test")
    scores.update(truth.roll(2, 2).where(truth != 255, 0), truth)
    figures = task.figures(scores.compute())
    assert figures["mean_iou_inner"] == 1
    assert figures["mean_iou"] < 0.9
    inside = ~near_borders(truth) & (truth != 255)
    assert scores.inner.compute()["confusion"].sum() == inside.sum()


def test_the_counts_of_the_images_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = ImageScores(3, 255)
    for _ in range(3):
        target = torch.randint(0, 3, (2, 9, 7), generator=generator, dtype=torch.uint8)
        target[:, 0] = 255
        scores.update(torch.randn(2, 3, 9, 7, generator=generator), target)
    computed = scores.compute()
    assert torch.equal(computed["per_image"].sum(0).double(), torch.stack(counts_of(computed["confusion"])))
    low, high = Segmentation(TargetSpec("mask", NAMES, ignore_index=255)).intervals(computed)["mean_iou"]
    assert low < iou(computed["confusion"]).nanmean() < high


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reports_what_it_says(name: str) -> None:
    """The figures of a counter are those that a monitor is held against; ``shown`` and ``monitor`` are among them."""
    kind = task_class(name)
    task: Task = kind(TargetSpec(kind.target_kind, NAMES if name != "anomaly" else ("good", "bad"), ignore_index=255))
    for stage in get_args(Stage):
        if stage == "original" or (stage == "train" and not task.train_figures):
            continue
        names = task.figure_names(stage)
        assert len(set(names)) == len(names)
        if stage == "val":
            assert {task.monitor, *task.shown} <= set(names)
