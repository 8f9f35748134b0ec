"""The rows of a run and what each output predicts, as the config's source has them. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from lightning_vision.config import instantiate
from lightning_vision.data.few_shot import few_shot
from lightning_vision.data.index import FurtherTarget, SampleIndex
from lightning_vision.data.normal_class import as_normal_or_not, find_normal_class, normal_or_not
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.loss_choice import loss_parts
from lightning_vision.outputs import main_output, outputs_of, setting_prefix
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import task_constants
from lightning_vision.types import TargetKind, TargetSpec


def read_index(config: Mapping[str, Any], strict: bool = True) -> SampleIndex:
    """Build the source of a config's data and read its rows, with the targets of all outputs.

    Args:
        config: The config, with its tasks decided.
        strict: As in ``Source.read``.
    """
    outputs, main = outputs_of(config), main_output(config)
    data = dict(config["data"])
    if config.get("outputs"):
        own = {key: outputs[main][key] for key in ("target", "class_names") if outputs[main][key] is not None}
        data |= {key: value for key, value in own.items() if key in data}
    source: Any = instantiate(data)
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    constants = {name: task_constants(node["task"]) for name, node in outputs.items()}
    wanted: TargetKind | None = constants[main]["target_kind"]
    if not constants[main]["needs_target"] and source.target_kind(wanted) != wanted:
        wanted = None
    further = {
        name: (node["target"], constants[name]["target_kind"], node.get("class_names"))
        for name, node in outputs.items()
        if name != main
    }
    covered = constants[main]["covers_classes"]
    index = source.read(wanted, config["seed"], strict, preprocessing, coverage=covered, further=further)
    few = config.get("images_per_class")
    return cast(SampleIndex, index) if few is None else few_shot(index, few, config["seed"])


def targets_of(index: SampleIndex, config: Mapping[str, Any]) -> dict[str, TargetSpec]:
    """What each output predicts, by its name; without targets, labels without classes."""
    main = main_output(config)
    own = index.target or TargetSpec("label", ())
    return {name: own if name == main else index.further_targets[name].target for name in outputs_of(config)}


def labels_of(index: SampleIndex, config: Mapping[str, Any], name: str) -> FurtherTarget | None:
    """The labels of an output; None where it has masks, or no targets."""
    return index.main_labels if name == main_output(config) else index.further_targets.get(name)


def normal_or_not_of(index: SampleIndex, config: dict[str, Any], reasons: dict[str, str]) -> SampleIndex:
    """Of the classes that anomaly detection is to learn, make two; its config gets the name of the normal one."""
    outputs, main = outputs_of(config), main_output(config)
    for name, node in outputs.items():
        labels = labels_of(index, config, name)
        if node["task"] != "anomaly" or labels is None:
            continue
        key = f"{setting_prefix(config, name)}decoder.normal_class"
        normal, reasons[key] = find_normal_class(labels, index.split, node["decoder"]["normal_class"], key)
        node["decoder"]["normal_class"] = normal
        wanted = any(class_constants(part["_target_"])["trains_on_anomalies"] for part in loss_parts(node["loss"]))
        if name == main:
            # Other outputs learn from anomalous images too; the losses leave out those that they do not want.
            index = as_normal_or_not(index, normal, wanted or len(outputs) > 1)
        else:
            index = replace(index, further_targets={**index.further_targets, name: normal_or_not(labels, normal)})
    return index


def background_as_unknown(config: dict[str, Any], reasons: dict[str, str]) -> None:
    """Take the background class of a loss for what it means: rows that belong to none of the classes."""
    data = config["data"]
    for name, node in outputs_of(config).items():
        key = f"{setting_prefix(config, name)}loss"
        given = node["loss"].get("background_class")
        if given is None:
            continue
        if config.get("outputs") or "unknown" not in data:
            raise ConfigError(
                "A background class is for a single output, and for data that can have unknown labels.",
                given=f"{key}.background_class={given}",
                expected="data=table, folder or huggingface, and no outputs",
                override=f"{key}.background_class=null",
            )
        names = _class_names(config)
        background = names[given] if isinstance(given, int) and 0 <= given < len(names) else str(given)
        if background not in names:
            near = nearest(str(given), names)
            raise ConfigError(
                f"{key}.background_class is no class of the data.",
                given=given,
                expected=f"a name out of {listed(names)}, or its position, 0 to {len(names) - 1}",
                nearest=near,
                override=f"{key}.background_class={near or 'null'}",
            )
        data["unknown"] = [*(data["unknown"] or []), background]
        node["loss"]["background_class"] = None
        reasons["data.unknown"] = f"{key}.background_class={given}"


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of the data, those that are unknown left out."""
    index = read_index(config, strict=False)
    return index.target.class_names if index.target is not None else ()
