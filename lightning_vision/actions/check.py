"""The action check: look at all data before training."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from lightning_vision import runfolder
from lightning_vision.actions.arguments import composed_with_keys
from lightning_vision.config import instantiate
from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.data.sources.base import WrongKind
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.options import load_option
from lightning_vision.outputs import main_output
from lightning_vision.pictures import asked_pictures
from lightning_vision.resolve import look, resolve
from lightning_vision.tasks import TASKS

DRAWN = ("augmentation", "classes")
# Who typed one of these chose what is predicted.
CHOOSE = {"decoder", "task", "loss", "neck", "template", "experiment", "ludwig"}


def run(cfg: DictConfig) -> None:
    """Carry out the action.

    Raises:
        DataError: A fit cannot start.
    """
    ok = check(cfg)
    runfolder.remove_if_empty(Path(cfg.output_dir))
    if not ok:
        raise DataError("The data cannot be trained on as they are; the report above says why.")


def check(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> bool:
    """Look at all data before training: decode every image, read every target, find copies, print one page.

    ``quick`` reads the headers of images alone. ``report`` names a file that gets everything as JSON; with ``-`` the
    JSON is printed, and the page is not. ``plots`` names pictures that are drawn into the run folder: ``augmentation``,
    training images as the augmentation changes them; ``classes``, how often each class occurs.

    Data that do not go with the default decoder are looked at with one that takes them, and a note says so; where
    somebody chose what is predicted, this is among the errors.

    Returns:
        Whether a fit can start.

    Raises:
        ConfigError: A setting with which nothing can be read at all.
        DataError: The table or folder cannot be read at all, or the report cannot be written.
    """
    from lightning_vision.data.report import check_index
    from lightning_vision.data.report_page import render

    cfg, keys = composed_with_keys(config, choices, "check")
    pictures = asked_pictures(cfg.plots, "check", DRAWN)
    cfg, index, settings = _looked_at(cfg, keys)
    task = settings["task"] if settings["task"] in TASKS else None
    report = check_index(index, instantiate(settings["preprocessing"]), settings["image_size"], cfg.quick, task)
    print(report.to_json() if cfg.report == "-" else render(report))
    if cfg.report not in (None, "-"):
        report.write(Path(cfg.report).expanduser())
    if report.classes and "classes" in pictures:
        from lightning_vision.reports.classes import balance_of_report, draw_classes

        out = Path(settings["output_dir"]) / "plots" / "classes.png"
        draw_classes(balance_of_report(report, index), out)
        _say(cfg, f"classes: {out}")
    if report.ok and "augmentation" in pictures:
        _say(cfg, f"augmentation: {_draw_augmentation(cfg)}")
    return report.ok


def _looked_at(cfg: DictConfig, keys: Sequence[str]) -> tuple[DictConfig, SampleIndex, dict[str, Any]]:
    """The config with a decoder that takes what the data hold, and what ``look`` returns for it."""
    try:
        return cfg, *look(cfg)
    except WrongKind as error:
        if cfg.get("outputs"):
            raise  # which of them is another is for the user to say
        said = {key.partition(".")[0] for key in keys} & CHOOSE
        problem = Problem(
            "error" if said else "note",
            str(error)
            if said
            else f"{error.summary}; nobody chose that decoder, so this is the page for decoder={error.decoder}, "
            "which a fit must be given",
        )
        fitting = copy.deepcopy(cfg)
        with open_dict(fitting):
            fitting.task, fitting.decoder = "auto", load_option("decoder", error.decoder)
            fitting.loss, fitting.neck = {"auto": True}, {"auto": True}
    index, settings = look(fitting)
    index.problems = (problem, *index.problems)
    return fitting, index, settings


def _say(cfg: DictConfig, text: str) -> None:
    """Print a line; not into the JSON that is on its way to another program."""
    print(text, file=sys.stderr if cfg.report == "-" else sys.stdout)


def _draw_augmentation(cfg: DictConfig) -> Path:
    plan = resolve(cfg)
    if not any((plan.config.get("augmentation") or {}).values()):
        raise ConfigError(
            "Nothing is augmented, so there is nothing to draw.",
            given="plots=augmentation with augmentation=none",
            override="augmentation=light",
        )
    from lightning_vision.assembly import build_data
    from lightning_vision.augmenting import build_augmentation
    from lightning_vision.reports.augmentation import draw_augmentation

    transforms, uncovered = build_augmentation(plan.config, plan.outputs, plan.geometry)
    data = build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)
    target = plan.outputs[main_output(plan.config)].target
    out = Path(plan.config["output_dir"]) / "plots" / "augmentation.png"
    draw_augmentation(data, transforms, target, uncovered, out)
    return out
