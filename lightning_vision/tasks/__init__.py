"""What is learned: how a target is scored, which figures are reported, and what a prediction looks like.

No torch import here: what a task's class says of itself is read from its source, so that configs are checked first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_vision.signatures import class_constants

if TYPE_CHECKING:
    from lightning_vision.tasks.base import Task

TASKS = {
    "classification": "lightning_vision.tasks.classification.Classification",
    "open_set": "lightning_vision.tasks.open_set.OpenSet",
    "multilabel": "lightning_vision.tasks.multilabel.Multilabel",
    "embedding": "lightning_vision.tasks.embedding.Embedding",
    "anomaly": "lightning_vision.tasks.anomaly.Anomaly",
    "segmentation": "lightning_vision.tasks.segmentation.Segmentation",
}


def task_constants(name: str) -> dict[str, Any]:
    """What the class of a task says of itself: see the attributes of ``Task``."""
    return class_constants(TASKS[name])


def task_class(name: str) -> type[Task]:
    """Import the class of a task."""
    module, _, attribute = TASKS[name].rpartition(".")
    found: type[Task] = getattr(import_module(module), attribute)
    return found


def tasks_of(output: str) -> list[str]:
    """The tasks that a decoder with this ``output`` can be trained for, the usual one first."""
    return [name for name in TASKS if task_constants(name)["output"] == output]
