"""Mirroring top to bottom."""

from __future__ import annotations

from lightning_vision.augmentation.flip import Flip


class RandomVerticalFlip(Flip):
    """Mirror each image top to bottom with probability ``p``; a class map is mirrored with its image."""

    axis = -2
