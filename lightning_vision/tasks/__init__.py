"""What is learned: how a target is scored, which figures are reported, and what a prediction looks like."""

from __future__ import annotations

from lightning_vision.tasks.base import Task
from lightning_vision.tasks.classification import Classification
from lightning_vision.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, Segmentation)}

__all__ = ["TASKS", "Classification", "Segmentation", "Task"]
