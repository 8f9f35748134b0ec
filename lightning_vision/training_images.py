"""What is asked of training images alone, against the rest: refused before anything is built. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError
from lightning_vision.signatures import class_constants
from lightning_vision.types import Geometry


def check_repeats(config: Mapping[str, Any]) -> None:
    """Refuse to repeat images that are all alike."""
    if config.get("repeats", 1) > 1 and not _augmentations(config):
        raise ConfigError(
            "Each training image is repeated to be augmented anew each time, and nothing is augmented.",
            given=f"repeats={config['repeats']} with augmentation=none",
            expected="an augmentation, or images that stand once",
            override="repeats=1",
        )


def check_train_size(config: Mapping[str, Any], geometry: Geometry, training: Geometry) -> None:
    """Refuse training images of another size than the model's input, if no augmentation cuts that out of them.

    Args:
        config: The config of the run.
        geometry: What the model's input is.
        training: What training images are brought to.
    """
    nodes = _augmentations(config).values()
    if training == geometry or any("size" in class_constants(node["_target_"])["injected"] for node in nodes):
        return
    names = ", ".join(_augmentations(config)) or "none"
    raise ConfigError(
        "Training images have another size than the model's input, and no augmentation cuts that out of them.",
        given=f"preprocessing.train_size={config['preprocessing']['train_size']} with "
        f"image_size={geometry.height} x {geometry.width} and augmentation {names}",
        expected="an augmentation that crops, or one size for both",
        override=["augmentation=random_resized_crop", "preprocessing.train_size=null"],
    )


def _augmentations(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The transforms of training batches, by name."""
    return {name: node for name, node in (config.get("augmentation") or {}).items() if node}
