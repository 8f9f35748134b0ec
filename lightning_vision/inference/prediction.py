"""What is predicted for one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_vision.data.placement import Resize, Size


@dataclass
class Prediction:
    """What is predicted for one image.

    Args:
        path: The image's file.
        label: Name of the most probable class; None for a mask.
        labels: Names of all labels at or above their thresholds, of a multi-label model.
        probabilities: ``(C,)`` float32 in the order of the class names; for a mask None, or where they are wanted
            ``(C, H, W)`` float16, NaN where nothing is predicted.
        score: How unusual the image is, of anomaly detection.
        threshold: Scores from here on are anomalous; None, as is the label, where none was learned.
        embedding: ``(D,)`` float32: the encoder's embedding, of a model that compares images (or its projection), and
            of any other where it is wanted.
        mask: ``(H, W)`` uint8 class ids at the image's own size; None for a label. Pixels without a prediction (cut
            away by ``crop_or_pad`` or ``resize_crop``) hold the ignored value, or 255 where there is none.
        outputs: The prediction of each output by its name, of a model with several; all else but ``path``, ``file`` and
            ``embedding`` is empty then.
        file: What the pixels can be read from while a frame of a video or an array is predicted, None
            afterwards; empty: ``path``.
    """

    path: str
    label: str | None = None
    labels: tuple[str, ...] | None = None
    probabilities: NDArray[np.floating[Any]] | None = None
    score: float | None = None
    threshold: float | None = None
    embedding: NDArray[np.float32] | None = None
    mask: NDArray[np.uint8] | None = None
    outputs: dict[str, Prediction] = field(default_factory=dict)
    file: str | None = ""


@dataclass(frozen=True)
class Place:
    """Where an image comes from, and how it was brought to the model's size.

    Args:
        path: Its file; all files of a sample of several images.
        size: Reads height and width of the (first) file.
        resize: How images were resized.
        probabilities: Whether those of every pixel are wanted.
    """

    path: str
    size: Callable[[], Size]
    resize: Resize
    probabilities: bool = False
