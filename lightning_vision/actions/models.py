"""Models: built from a config, or loaded from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from lightning_vision import runfolder
from lightning_vision.actions.arguments import composed, require_ready
from lightning_vision.resolve import Plan, resolve

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.module import VisionModule


def build(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> tuple[VisionModule, VisionDataModule]:
    """Build model and data of a config, to look at them or to train them with a Trainer of one's own.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``; ``data`` also takes images
            (arrays, PIL images or paths), a pair of images and targets, a data frame, or a Hugging Face dataset.

    Returns:
        The LightningModule and the LightningDataModule.
    """
    return build_parts(resolve(composed(config, choices, "build")))


def load(checkpoint: str | Path) -> VisionModule:
    """Load a trained model from its checkpoint alone, without a network, in eval mode.

    ``module(images)`` takes uint8 ``(B, C, H, W)`` of any size and returns logits; the normalisation is inside.

    Raises:
        CheckpointError: The file is missing, damaged, or of something else.
    """
    file = runfolder.find_checkpoint(checkpoint)
    from lightning_vision import checkpoint as checkpoints
    from lightning_vision.assembly import rebuild_module

    return rebuild_module(checkpoints.read(file))


def build_parts(plan: Plan) -> tuple[VisionModule, VisionDataModule]:
    """Build model and data of a plan, with its seed."""
    from lightning.pytorch import seed_everything

    from lightning_vision.assembly import build_data, build_module

    seed_everything(plan.config["seed"], workers=True, verbose=False)
    return build_module(plan), build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)


def module_of(model: str | Path | VisionModule) -> tuple[VisionModule, dict[str, Any]]:
    """Return a model, loaded if a path was given, and the config that it was trained with."""
    module = load(model) if isinstance(model, str | Path) else model
    return module, module.config


def weights_of(module: VisionModule, path: Path) -> dict[str, Any]:
    """Read the weights of a checkpoint, for a model that is there already."""
    from lightning_vision import checkpoint as checkpoints

    state = checkpoints.read(path)
    checkpoints.restore_encoder_weights(module, state)
    return cast(dict[str, Any], state["state_dict"])


def untrained_plan(cfg: DictConfig, source: str | list[str] | None = None) -> Plan:
    """The plan of a model that predicts without training."""
    require_ready(cfg)
    plan = resolve(cfg, source)
    why = plan.reasons.get("image_size")
    print(f"{plan.geometry.height} x {plan.geometry.width} pixels" + (f": {why} (image_size=N)" if why else ""))
    return plan
