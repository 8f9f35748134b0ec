"""The figure that picks the best checkpoint and stops a run early. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.normal_class import occurring
from lightning_vision.errors import ConfigError
from lightning_vision.outputs import figure_prefix, outputs_of
from lightning_vision.reading import labels_of
from lightning_vision.tasks import TASKS, task_constants

# Figures that should be small.
SMALL = ("loss", "calibration_error")
# Figures of open_set that nothing is known of without unknown images.
OF_UNKNOWN = ("unknown_auroc", "oscr", "unknown_recall")


def decide_monitor(config: dict[str, Any], index: SampleIndex, reasons: dict[str, str]) -> None:
    """Choose the figure that picks the best checkpoint where it is ``auto``, and refuse one that no epoch can have.

    Raises:
        ConfigError: A figure of the test split, or one that the validation split cannot have.
    """
    validated = index.counts()["val"] > 0
    if config["monitor"] == "auto":
        outputs = outputs_of(config)
        name, node = next(iter(outputs.items()))
        task = node["task"]
        prefix = f"val/{figure_prefix(outputs, name)}"
        if not validated:
            config["monitor"], reasons["monitor"] = "train/loss", "there is no validation split"
        elif task == "anomaly" and (lacking := _lacking(index, name, config)):
            config["monitor"] = "train/loss" if lacking == "normal" else f"{prefix}loss"
            reasons["monitor"] = f"no validation image is {lacking}"
        elif task == "embedding" and index.target is None:
            config["monitor"], reasons["monitor"] = f"{prefix}loss", "the images have no labels"
        else:
            config["monitor"] = f"{prefix}{task_constants(task)['monitor']}"
            reasons["monitor"] = f"the figure of {task}"
    elif config["monitor"].startswith("test/"):
        other = config["monitor"].replace("test/", "val/", 1)
        raise ConfigError(
            "A figure of the test split cannot choose the checkpoint: the test would no longer tell how well it does.",
            given=f"monitor={config['monitor']}",
            expected="a figure of the validation or the training split",
            override=[f"monitor={other}", "monitor=auto"],
        )
    elif not validated and config["monitor"].startswith("val/"):
        raise ConfigError(
            "The monitored figure needs a validation split, and the data have none.",
            given=f"monitor={config['monitor']}",
            expected="a figure of the training split, or data with rows for val",
            override="monitor=train/loss",
        )
    else:
        _require_both(config, index)
    fill_monitor(config)


def _lacking(index: SampleIndex, name: str, config: Mapping[str, Any]) -> str | None:
    """What the validation split has none of, where anomalous and normal images are to be told apart."""
    labels = labels_of(index, config, name)
    assert labels is not None
    assert labels.label is not None
    there = occurring(labels.label, index.split, "val")
    return None if all(there) else "anomalous" if there[0] else "normal"


def _require_both(config: Mapping[str, Any], index: SampleIndex) -> None:
    """Refuse to monitor a figure that needs two kinds of images where the validation split has one."""
    outputs = outputs_of(config)
    for name, node in outputs.items():
        prefix = f"val/{figure_prefix(outputs, name)}"
        figure = str(config["monitor"]).removeprefix(prefix)
        lacking = None
        if node["task"] == "anomaly" and figure not in ("loss", config["monitor"]):
            lacking = _lacking(index, name, config)
        elif node["task"] == "open_set" and figure in OF_UNKNOWN and index.main_labels is not None:
            lacking = None if index.main_labels.unknown(index.rows("val")) else "unknown"
        if lacking:
            raise ConfigError(
                "The monitored figure tells two kinds of images apart, and the validation split has one.",
                given=f"monitor={config['monitor']}, and no validation image is {lacking}",
                override=["monitor=auto", f"monitor={prefix}loss"],
            )


def fill_monitor(config: dict[str, Any]) -> None:
    """Tell the callbacks what is monitored, and whether it should be large or small."""
    for callback in (config.get("callbacks") or {}).values():
        if not isinstance(callback, dict) or "monitor" not in callback:
            continue
        if callback["monitor"] == "auto":
            callback["monitor"] = config["monitor"]
        if callback.get("mode") == "auto":
            callback["mode"] = better(str(callback["monitor"]))


def better(figure: str) -> Literal["min", "max"]:
    """Whether a figure should be small or large: ``val/loss``, but not ``val/f1/loss`` of a class with that name."""
    *above, name = figure.split("/")
    of_class = bool(above) and any(above[-1] in task_constants(task)["class_figures"] for task in TASKS)
    return "min" if name in SMALL and not of_class else "max"
