"""What is asked of training images alone, against the rest: refused before anything is built. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError


def check_repeats(config: Mapping[str, Any]) -> None:
    """Refuse to repeat images that are all alike."""
    if config.get("repeats", 1) > 1 and not _augmentations(config):
        raise ConfigError(
            "Each training image is repeated to be augmented anew each time, and nothing is augmented.",
            given=f"repeats={config['repeats']} with augmentation=none",
            expected="an augmentation, or images that stand once",
            override="repeats=1",
        )


def _augmentations(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The transforms of training batches, by name."""
    return {name: node for name, node in (config.get("augmentation") or {}).items() if node}
