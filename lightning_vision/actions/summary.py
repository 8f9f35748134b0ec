"""The action summary: what a model consists of and what it costs, without training it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.actions.arguments import composed_with_keys
from lightning_vision.actions.models import load
from lightning_vision.config import instantiate
from lightning_vision.pictures import asked_pictures
from lightning_vision.resolve import plain, resolve
from lightning_vision.settings import for_checkpoint

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule
    from lightning_vision.reports.summary import Summary

DRAWN = ("architecture",)


def run(cfg: DictConfig) -> None:
    """Carry out the action."""
    summary(cfg)
    runfolder.remove_if_empty(Path(cfg.output_dir))


def summary(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> Summary:
    """Print what a model consists of and what it costs: nothing is trained, and nothing is left behind.

    For each stage stride, channels, map, parameters, their trained share and multiply-adds; the learning rates; memory
    and time of a training step of ``batch_size`` images of noise on this machine. Data are read as far as the size of
    the images and the classes need it. ``checkpoint`` names a model that is there already, which needs no data at all.
    ``quick`` measures neither memory nor time. ``report`` names a file that gets everything as JSON; with ``-`` the
    JSON is printed in place of the tables. ``plots="architecture"`` draws the model into the run folder.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name, as in ``fit``.

    Raises:
        ConfigError: A setting is wrong, or weights are not at hand.
        DataError: The data cannot be read, or the report cannot be written.
        CheckpointError: The checkpoint is unreadable.
    """
    cfg, keys = composed_with_keys(config, choices, "summary")
    pictures = asked_pictures(cfg.plots, "summary", DRAWN)
    module, settings = _model(cfg, keys)
    garbage.release()

    from lightning_vision.assembly import quiet_lightning
    from lightning_vision.reports.architecture import parts_of, rates_of
    from lightning_vision.reports.summary import Summary
    from lightning_vision.tuning.cost import measure

    quiet_lightning()
    printed = cfg.report != "-"
    classes = {name: head.task.target.num_classes for name, head in module.named_heads()}
    optimizer = str(settings["optimizer"]["_target_"]).rpartition(".")[2]
    found = Summary(module.geometry, classes, parts_of(module), rates_of(module), optimizer)
    if printed:
        found.show_model()
    if not cfg.quick:
        found.cost = measure(module, settings, _training_geometry(module, settings))
    if printed:
        found.show_cost()
    else:
        print(found.to_json())
    if cfg.report not in (None, "-"):
        found.write(Path(cfg.report).expanduser())
    if pictures:
        from lightning_vision.reports.architecture_picture import draw_architecture

        out = Path(cfg.output_dir) / "plots" / "architecture.png"
        draw_architecture(found, out)
        print(f"architecture: {out}")
    return found


def _model(cfg: DictConfig, keys: Sequence[str]) -> tuple[VisionModule, Mapping[str, Any]]:
    """The model, new or from a checkpoint, and its settings."""
    if cfg.checkpoint is not None:
        module = load(str(cfg.checkpoint))
        return module, for_checkpoint(module.config, plain(cfg), keys)
    plan = resolve(cfg)

    from lightning.pytorch import seed_everything

    from lightning_vision.assembly import build_module

    seed_everything(plan.config["seed"], workers=True, verbose=False)
    return build_module(plan), plan.config


def _training_geometry(module: VisionModule, settings: Mapping[str, Any]) -> Any:
    """What training images are before their augmentation, where it makes views of them that are compared."""
    from lightning_vision.data.geometry import training_geometry

    return training_geometry(module.geometry, instantiate(settings["preprocessing"])) if module.views > 1 else None
