"""Checkpoints: plain data and tensors only, complete in themselves, and refused by name where they do not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_vision.config import TRUSTED, is_part, plugin_of
from lightning_vision.data.geometry import sampled_channels
from lightning_vision.data.mask_colors import hex_color
from lightning_vision.errors import CheckpointError, listed
from lightning_vision.outputs import OF, SINGLE, is_name
from lightning_vision.overrides import override
from lightning_vision.runfolder import find_checkpoint
from lightning_vision.types import Geometry, PixelStats, TargetSpec

if TYPE_CHECKING:
    from lightning_vision.data.index import SampleIndex
    from lightning_vision.module import VisionModule

FORMAT_VERSION = 3
KEY = "lightning_vision"
ENCODER = "encoder."
# With an average of the weights: those that the training goes on with, and, once they are in place, the average.
RAW = "raw_weights"
AVERAGE = "averaged_weights"
# Groups of the config that a model is built from.
OF_MODEL = ("encoder", "neck", "decoder", "loss", "outputs", "augmentation")
# What rebuilding a model needs.
NEEDED = {"config": dict, "outputs": dict, "geometry": list, "pixel_stats": dict, "encoder_rebuild": dict}
NEEDED_OF_CONFIG = ("encoder", "data", "preprocessing", "optimizer", "scheduler", "seed", "encoder_lr_factor")
# Where the schedules of the second format are now.
MOVED = {
    "lightning_vision.optim.Cosine": "lightning_vision.optim.cosine.Cosine",
    "lightning_vision.optim.Constant": "lightning_vision.optim.constant.Constant",
}


def pack(module: VisionModule, checkpoint: dict[str, Any]) -> None:
    """Add to a Lightning checkpoint what rebuilding the model needs, and assert that all of it is plain data.

    Raises:
        CheckpointError: A value is neither plain data nor a tensor; the message names its key.
    """
    weights_inside = module.encoder.saved_weights_in_checkpoint is not False
    checkpoint[KEY] = description(module, weights_inside)
    if not weights_inside:
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith(ENCODER)}
    assert_plain(checkpoint)


def description(module: VisionModule, weights_inside: bool) -> dict[str, Any]:
    """What rebuilding the model needs beside its weights, as plain data."""
    encoder = module.encoder
    return {
        "format_version": FORMAT_VERSION,
        "config": module.config,
        "plugins": plugins_of(module.config),
        "outputs": {name: head.task.to_dict() for name, head in module.named_heads()},
        "geometry": list(astuple(module.geometry)),
        "pixel_stats": {"mean": list(module.pixel_stats.mean), "std": list(module.pixel_stats.std)},
        # Without these the encoder would be built from a hub or a folder that may be gone when it is reloaded.
        "encoder_rebuild": encoder.rebuild_kwargs() if weights_inside else {},
        "encoder_weights": None
        if weights_inside
        else {"digest": encoder.weights_digest(), "origin": encoder.weights_origin},
    }


def restore_encoder_weights(module: VisionModule, checkpoint: dict[str, Any]) -> None:
    """Complete the state dict of a checkpoint that was saved without its encoder's weights.

    Raises:
        CheckpointError: The encoder at hand has other weights than the one that the checkpoint was trained with.
    """
    left_out = checkpoint[KEY]["encoder_weights"]
    if left_out is None:
        return
    digest = module.encoder.weights_digest()
    if digest != left_out["digest"]:
        raise CheckpointError(
            "The checkpoint was saved without its encoder's weights, and the encoder at hand has other weights.",
            given=f"weights with digest {digest[:16]} from {module.encoder.weights_origin}",
            expected=f"digest {left_out['digest'][:16]} from {left_out['origin']}",
            override="encoder.weights=FILE with the weights that were used for training",
        )
    encoder_state = {ENCODER + k: v for k, v in module.encoder.state_dict().items()}
    checkpoint["state_dict"] = {**checkpoint["state_dict"], **encoder_state}


def put_raw_weights(checkpoint: dict[str, Any]) -> None:
    """Let a training go on with the raw weights, where those of the checkpoint are an average."""
    raw = checkpoint.pop(RAW, None)
    if raw is not None:
        # Of weights in half precision the average is there as well, in full.
        average = {name: checkpoint["state_dict"][name] for name in raw}
        checkpoint[AVERAGE] = {**average, **checkpoint.get(AVERAGE, {})}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **raw}


def assert_plain(value: Any, key: str = "") -> None:
    """Refuse anything that ``torch.load(weights_only=True)`` would refuse, and name its key."""
    if value is None or type(value) in (bool, int, float, str, bytes, complex) or isinstance(value, Tensor):
        return
    if isinstance(value, torch.dtype | torch.device | torch.Size):
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            assert_plain(name, f"{key} (the key {name!r})")
            assert_plain(item, f"{key}.{name}" if key else str(name))
    elif type(value) in (list, tuple, set):
        for position, item in enumerate(value):
            assert_plain(item, f"{key}[{position}]")
    else:
        raise CheckpointError(
            f"The checkpoint cannot be saved: {key} is not plain data.",
            given=f"{type(value).__module__}.{type(value).__qualname__}",
            expected="numbers, texts, lists, dicts and tensors, so that it can be read without running code",
        )


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of this project without running any code that it might hold.

    Raises:
        CheckpointError: The file is missing, unreadable, of another program or of a newer format.
    """
    file = find_checkpoint(path)
    if file.is_dir():
        from lightning_vision.inference.hub import read_hub_folder

        return _checked(read_hub_folder(file), file)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # on bytes that are no checkpoint torch raises nearly every type
        raise CheckpointError(
            "The checkpoint cannot be read: it is damaged, or holds more than plain data and tensors.",
            given=f"{file} ({_reason(error)})",
            expected="a file written by this project",
        ) from error
    if not isinstance(checkpoint, dict) or KEY not in checkpoint:
        raise CheckpointError(
            "The file is not a checkpoint of lightning_vision.",
            given=file,
            expected="a file that a fit wrote, such as checkpoints/best.ckpt in its run folder; weights alone go into "
            "encoder.weights=",
        )
    return _checked(checkpoint, file)


def _checked(checkpoint: dict[str, Any], file: Path) -> dict[str, Any]:
    """A checkpoint in the present format, with all that rebuilding the model needs."""
    version = checkpoint[KEY].get("format_version")
    if not isinstance(version, int):
        raise CheckpointError("The checkpoint does not say its format.", given=f"format_version {version} in {file}")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            "The checkpoint was written by a newer version of lightning_vision.",
            given=f"format {version} in {file}",
            expected=f"format {FORMAT_VERSION} or older",
            override="pip install --upgrade lightning_vision",
        )
    config = checkpoint[KEY].get("config")
    if isinstance(config, dict):
        upgrade(checkpoint)
    lacking = [name for name, kind in NEEDED.items() if not isinstance(checkpoint[KEY].get(name), kind)]
    lacking += [f"config.{name}" for name in NEEDED_OF_CONFIG if isinstance(config, dict) and name not in config]
    if lacking:
        raise CheckpointError(
            "The checkpoint lacks what rebuilding its model needs.",
            given=f"no usable {listed(lacking)} in {file}",
            expected="a file or folder as it was written",
        )
    # They become names of folders: a crafted one would lead out of the run folder.
    named = [*checkpoint[KEY]["outputs"], *(checkpoint[KEY]["config"].get("outputs") or ())]
    for name in named:
        if not (isinstance(name, str) and is_name(name)):
            raise CheckpointError(
                "The checkpoint has an output whose name cannot be one.",
                given=f"{name!r} in {file}",
                expected="letters, digits and underscores, as a fit writes it",
            )
    _require_plugins(checkpoint[KEY], file)
    return checkpoint


def plugins_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The plugins that a model's parts come from: package, and the distribution that brings it, with its version."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    packages = sorted({package for target in _targets(config) if (package := plugin_of(target))})
    brought = packages_distributions() if packages else {}
    found = {}
    for package in packages:
        names = brought.get(package.partition(".")[0], [package])
        try:
            found[package] = f"{names[0]} {version(names[0])}"
        except PackageNotFoundError:  # on Python's path, but not installed
            found[package] = package
    return found


def _targets(config: Mapping[str, Any]) -> Iterator[str]:
    """The classes that a model is built of."""

    def below(node: Any) -> Iterator[str]:
        if isinstance(node, Mapping):
            if isinstance(node.get("_target_"), str):
                yield node["_target_"]
            for inner in node.values():
                yield from below(inner)

    for group in OF_MODEL:
        yield from below(config.get(group))


def _require_plugins(kept: Mapping[str, Any], file: Path) -> None:
    """Refuse a checkpoint whose parts are in a package that is not installed, by the package's name."""
    plugins = {name.partition(".")[0]: by for name, by in kept.get("plugins", {}).items()}
    for target in _targets(kept.get("config", {})):
        package = target.partition(".")[0]
        if is_part(target) or target.startswith(TRUSTED) or package not in plugins:
            continue  # what is neither trusted nor a plugin is refused when it is to be built
        raise CheckpointError(
            f"The checkpoint needs the plugin {package}, which is not installed.",
            given=f"{target} in {file}",
            # No command to copy: a crafted file could name any package.
            expected=f"the package {plugins[package]}, from where you trust it",
        )


def upgrade(checkpoint: dict[str, Any]) -> None:
    """Bring a checkpoint of an older format to the present one."""
    kept = checkpoint[KEY]
    version, kept["format_version"] = kept["format_version"], FORMAT_VERSION
    if version < 2:
        _name_the_output(checkpoint)
    if version < 3:
        scheduler = kept.get("config", {}).get("scheduler") or {}
        if scheduler.get("_target_") in MOVED:
            scheduler["_target_"] = MOVED[scheduler["_target_"]]
    trainer = kept.get("config", {}).get("trainer", {})
    if trainer.get("_target_") == "lightning.pytorch.Trainer":
        trainer["_target_"] = "lightning_vision.trainer.Trainer"


def _name_the_output(checkpoint: dict[str, Any]) -> None:
    """The first format knew one output without a name."""
    kept = checkpoint[KEY]
    kept["outputs"] = {SINGLE: {"task": kept.pop("task"), "target": kept.pop("target")}}
    preprocessing = kept.get("config", {}).get("preprocessing", {})
    if "bad_image" in preprocessing:  # its name in the first checkpoints
        preprocessing["on_bad_image"] = preprocessing.pop("bad_image")
    of_head = ("neck.", "decoder.", "loss.")
    checkpoint["state_dict"] = {
        f"heads.{OF}{SINGLE}.{key}" if key.startswith(of_head) else key: value
        for key, value in checkpoint["state_dict"].items()
    }
    if kept["outputs"][SINGLE]["task"] == "classification":
        checkpoint["state_dict"][f"heads.{OF}{SINGLE}.temperature"] = torch.ones(())


def _reason(error: Exception) -> str:
    """What is wrong with the file: one sentence, without torch's advice to trust the file all the same."""
    text = str(error)
    for advice in ("from a trusted source.", "WeightsUnpickler error:"):
        text = text.rpartition(advice)[2]
    return text.strip().split("\n")[0].split(". ")[0][:300] or type(error).__name__


def targets_of(checkpoint: Mapping[str, Any]) -> dict[str, TargetSpec]:
    """The classes that each output of the checkpoint was trained for, by its name."""
    return {name: TargetSpec.from_dict(kept["target"]) for name, kept in checkpoint[KEY]["outputs"].items()}


def geometry_of(checkpoint: Mapping[str, Any]) -> Geometry:
    """The height, width and channels that the checkpoint was trained at."""
    return Geometry(*checkpoint[KEY]["geometry"])


def pixel_stats_of(checkpoint: Mapping[str, Any]) -> PixelStats:
    """The pixel statistics that the checkpoint was trained with."""
    stats = checkpoint[KEY]["pixel_stats"]
    return PixelStats(tuple(stats["mean"]), tuple(stats["std"]))


def require_same_target(trained: TargetSpec, found: TargetSpec, origin: str) -> None:
    """Refuse data whose classes are not those that the model was trained for.

    Raises:
        CheckpointError: Kind, class names, their order, or the ignored value differ; the message names the difference.
    """
    if trained.kind != found.kind:
        raise CheckpointError(
            f"The data have {found.kind}s, but the checkpoint predicts {trained.kind}s.",
            given=origin,
            expected=f"a column or folder of {trained.kind}s",
            override="data.target=COLUMN",
        )
    if trained.class_names != found.class_names:
        raise CheckpointError(
            "The classes of the data are not those of the checkpoint.",
            given=f"{_named(found.class_names, trained.class_names)} in {origin}",
            expected=f"{_named(trained.class_names, found.class_names)}, in this order",
            override="data.class_names=FILE with one name a line, in the checkpoint's order",
        )
    if trained.mask_values == found.mask_values == "color" and trained.palette != found.palette:
        colors = [hex_color(color) for color in trained.palette or ()]
        raise CheckpointError(
            "The colours of the masks are not those of the checkpoint.",
            given=f"{listed(map(hex_color, found.palette or ()), 20)} in {origin}",
            expected=f"{listed(colors, 20)}, in this order",
            override=override("data.colors", colors),
        )
    if trained.ignore_index != found.ignore_index:
        raise CheckpointError(
            "The ignored mask value of the data is not that of the checkpoint.",
            given=f"ignore_index {found.ignore_index} in {origin}",
            expected=f"ignore_index {trained.ignore_index}",
            override=f"data.ignore_index={'null' if trained.ignore_index is None else trained.ignore_index}",
        )


def require_channels(trained: Geometry, index: SampleIndex, sample: int) -> None:
    """Refuse images that lack what the model was trained on: colour, or alpha. What they have beyond it is left out.

    Args:
        trained: What the model was trained on.
        index: The data to score.
        sample: Number of images whose headers are read.

    Raises:
        CheckpointError: No image has colour, or not all have alpha, and the model takes it.
    """
    found = sampled_channels(index, np.arange(len(index)), sample)
    lacks = "colour" if trained.num_channels >= 3 > found else ""
    if trained.num_channels in (2, 4) and found not in (2, 4):
        lacks = f"{lacks} and alpha" if lacks else "alpha"
    if lacks:
        raise CheckpointError(
            f"The images of the data have no {lacks}, and the checkpoint was trained with it.",
            given=f"{found} channels in {index.origin}",
            expected=f"{trained.num_channels} channels, or your word that they shall be converted",
            override=f"preprocessing.num_channels={trained.num_channels}",
        )


def _named(names: Sequence[str], other: Sequence[str]) -> str:
    """Name all classes when there are few, else those that differ."""
    if len(names) <= 20:
        return f"{len(names)} classes ({', '.join(names)})"
    only = [n for n in names if n not in set(other)]
    return f"{len(names)} classes, only here: {', '.join(only[:20]) or 'none (the order differs)'}"
