"""What is asked of training images alone, against the rest: refused before anything is built. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError
from lightning_vision.loss_choice import loss_parts
from lightning_vision.options import load_option
from lightning_vision.outputs import outputs_of
from lightning_vision.overrides import override
from lightning_vision.searchpath import options_of
from lightning_vision.signatures import class_constants, describe
from lightning_vision.types import Geometry


def check_repeats(config: Mapping[str, Any]) -> None:
    """Refuse to repeat images that are all alike, or whose copies must not meet in a batch.

    Raises:
        ConfigError: The message names what does not go with ``repeats``.
    """
    repeats, batch_size = config.get("repeats", 1), config["batch_size"]
    if repeats == 1:
        return
    if not _augmentations(config):
        raise ConfigError(
            "Each training image is repeated to be augmented anew each time, and nothing is augmented.",
            given=f"repeats={config['repeats']} with augmentation=none",
            expected="an augmentation, or images that stand once",
            override="repeats=1",
        )
    parts = [part["_target_"] for node in outputs_of(config).values() for part in loss_parts(node["loss"])]
    compared = [target for target in parts if class_constants(target)["views"] > 1]
    if compared:
        raise ConfigError(
            "The loss tells the views of an image from all others in its batch, and a copy would count as another.",
            given=f"repeats={repeats} with {compared[0]}",
            expected="images that stand once: their views are augmented anew each by itself",
            override="repeats=1",
        )
    steps = [(name, describe(node["_target_"])) for name, node in _augmentations(config).items()]
    mixing = [name for name, known in steps if known is not None and known.constants.get("mixes")]
    if mixing and 1 < batch_size * _processes(config["trainer"]) <= repeats:
        raise ConfigError(
            "An image is mixed with others of its batch, and a batch has copies of one image alone.",
            given=f"repeats={repeats} and batch_size={batch_size} with augmentation.{mixing[0]}",
            expected="a batch of several images; many are better",
            override=[f"repeats={max(1, batch_size // 4)}", f"batch_size={4 * repeats}"],
        )


def _processes(trainer: Mapping[str, Any]) -> float:
    """Processes that take turns at the copies of an image; without end where their number is not given."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, int) and devices > 0:
        return devices * float(trainer.get("num_nodes", 1))
    return len(devices) * float(trainer.get("num_nodes", 1)) if isinstance(devices, list) else float("inf")


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
        override=[*_with_crop(config), "preprocessing.train_size=null"],
    )


def _with_crop(config: Mapping[str, Any]) -> list[str]:
    """The word for a crop before all that is there; none where something has a name that cannot be listed."""
    nodes, options = _augmentations(config), options_of("augmentation")
    entries: list[Any] = ["random_resized_crop"]
    for name, node in nodes.items():
        if name not in options:
            return []
        usual = load_option("augmentation", name).get(name, {})
        settings = {key: value for key, value in node.items() if value != usual.get(key)}
        entries.append({"type": name, **settings} if settings else name)
    return [override("augmentation", entries if len(entries) > 1 else entries[0])]


def _augmentations(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The transforms of training batches, by name."""
    return {name: node for name, node in (config.get("augmentation") or {}).items() if node}
