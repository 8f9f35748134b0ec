"""What is taken from the command line beside a checkpoint, and what from the checkpoint itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from lightning_vision.data.mask_colors import hex_color
from lightning_vision.errors import ConfigError, listed
from lightning_vision.inference.choices import KEYS
from lightning_vision.overrides import override
from lightning_vision.types import TargetSpec

# Settings of data that say how labels are written.
OF_LABELS = ("unknown", "label_map", "separator")
# All else is in the checkpoint.
# The seed is not among them: it decides which rows are test rows where the data bring no split.
OF_PREDICT = ("save", "table", "frame_step")
OWN = (
    *("action", "checkpoint", "source", "split", "output_dir", "data", "batch_size", "trainer", "callbacks", "logger"),
    *("quick", "report", "plots"),
    *OF_PREDICT,
    *KEYS,
    *("format", "push"),
)
OWN_PREPROCESSING = (
    *("mode", "in_memory", "prefetch_size", "lazy_cache_dir", "decode_threads", "num_processes"),
    *("unseen_color", "on_bad_image"),
)
# Of other data than the checkpoint's: in its own, other rows would be left out, and a random split would be another.
OWN_OF_OTHER_DATA = ("missing_value_strategy", "fill_value")
# The features of a frozen encoder are the same wherever they come from, up to their rounding.
RESUMED_PREPROCESSING = (*OWN_PREPROCESSING, "cache_encoder_embeddings", "embedding_cache_limit")
# What may change when a run goes on; with anything else it would be another run.
OWN_WHEN_RESUMED = ("epochs", "data", "trainer", "callbacks", "logger")
# Settings of the trainer that are measured where they are auto, with the plain value; and those that ask for a search.
MEASURED = {"precision": "32-true", "channels_last": False, "compile": False}
FOUND = ("find_batch_size", "find_lr")
# Settings whose null is a value, and nothing that was decided when the run began.
OFF_WHEN_NULL = ("num_items_per_epoch", "images_per_class", "encoder_layer_decay", "calibrate", "tied")
PLACES = ("action", "checkpoint", "source", "split", "output_dir")


def for_checkpoint(saved: Mapping[str, Any], given: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Merge the config of a checkpoint with what the user typed beside it.

    Args:
        saved: The config in the checkpoint.
        given: The config as composed from the command line.
        keys: The keys that were typed.

    Raises:
        ConfigError: A typed key is decided by the checkpoint already.
    """
    merged = deepcopy(dict(saved))
    whole = (*PLACES, *OF_PREDICT, "trainer", "callbacks", "logger")
    for key in whole:
        merged[key] = given.get(key)  # none of the logs, where ~logger was typed
    whole_groups = {key for key in keys if "." not in key}
    own = (*OWN_PREPROCESSING, *(OWN_OF_OTHER_DATA if {"data.path", "source"} & set(keys) else ()))
    for key in keys:
        group, _, name = key.partition(".")
        if group in ("hydra", "experiment", *whole):
            continue
        if key == "preprocessing.num_channels" and given[group][name] == saved[group][name]:
            continue  # as trained, said on purpose: other images are converted
        if group == "preprocessing" and name in own:
            merged[group][name] = given[group][name]
        elif group not in OWN:
            raise ConfigError(
                f"{key} is decided by the checkpoint.",
                given=key,
                expected=f"only {listed(OWN)} and preprocessing.{{{listed(own)}}} beside a checkpoint",
                override=f"leave {key} out",
            )
        elif not name or group in whole_groups:
            merged[group] = given[group]
            if group == "data":
                # How labels are written is a matter of the trained classes.
                kept = {k: saved["data"].get(k) for k in OF_LABELS if f"data.{k}" not in keys and k in given["data"]}
                merged["data"] = {**given["data"], **{k: v for k, v in kept.items() if v is not None}}
        else:
            _set(merged[group], name.split("."), given[group])
    other_data = not same_data(merged.get("data", {}), saved.get("data", {}))
    if merged["preprocessing"].get("infer_image_num_classes") and (other_data or "data.mask_values" in keys):
        # Other data are told the trained colours, and what their pixels mean may be said in another way.
        merged["preprocessing"]["infer_image_num_classes"] = False
    return merged


def for_resume(saved: Mapping[str, Any], given: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The config of a run that goes on: that of the checkpoint, in another run folder, with what the user typed.

    Args:
        saved: The config in the checkpoint.
        given: The config as composed from the command line.
        keys: The keys that were typed.

    Raises:
        ConfigError: A typed value is not that of the checkpoint, and cannot change in the middle of a run.
    """
    merged: dict[str, Any] = _moved(deepcopy(dict(saved)), str(saved["output_dir"]), str(given["output_dir"]))
    merged |= {key: given[key] for key in PLACES}
    whole_groups = {key for key in keys if "." not in key}
    for key in keys:
        names = key.split(".")
        group = names[0]
        if group in ("hydra", *PLACES):
            continue
        if group in OWN_WHEN_RESUMED or (group == "preprocessing" and names[-1] in RESUMED_PREPROCESSING):
            if len(names) == 1 or group in whole_groups:
                merged[group] = given[group]
            else:
                _set(merged[group], names[1:], given[group])
            continue
        many = group in ("experiment", "template")
        clash = ["it sets many settings at once"] if many else list(_clashes(key, given, saved))
        if clash:
            raise ConfigError(
                f"{key} cannot change when a run goes on.",
                given=clash[0],
                expected=f"the settings of the checkpoint; {listed(OWN_WHEN_RESUMED)} may change",
                override=[f"leave {key} out", "checkpoint=null, for a new run"],
            )
    if "trainer.max_epochs" not in keys:
        merged["trainer"]["max_epochs"] = merged["epochs"]
    # What a run finds out for itself, it found out when it began.
    for name, value in merged["trainer"].items():
        if value == "auto" and name in MEASURED:
            merged["trainer"][name] = saved["trainer"].get(name, MEASURED[name])
        elif value is True and name in FOUND:
            merged["trainer"][name] = False
    if merged["preprocessing"].get("cache_encoder_embeddings") and "preprocessing.cache_encoder_embeddings" not in keys:
        merged["preprocessing"]["cache_encoder_embeddings"] = None  # whether there is room is asked anew
    if "preprocessing" in whole_groups:
        merged["preprocessing"] |= {name: given["preprocessing"][name] for name in RESUMED_PREPROCESSING}
    return merged


def found_before(given: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """The typed settings that ask to find out what a run that goes on found out when it began.

    Args:
        given: The config as composed from the command line.
        keys: The keys that were typed.
    """
    trainer = given["trainer"]
    asked = [name for name in MEASURED if trainer.get(name) == "auto"] + [n for n in FOUND if trainer.get(n) is True]
    return [f"trainer.{name}" for name in asked if f"trainer.{name}" in keys]


def _clashes(key: str, given: Mapping[str, Any], saved: Mapping[str, Any]) -> Iterator[str]:
    """Settings below ``key`` that differ; ``auto`` and null were decided when the run began."""
    if key.removeprefix("preprocessing.") in RESUMED_PREPROCESSING:
        return
    here: Any = given
    there: Any = saved
    for name in key.split("."):
        here = here.get(name) if isinstance(here, Mapping) else None
        there = there.get(name) if isinstance(there, Mapping) else None
    if key == "augmentation":  # as a whole: what is left out, or in another order, would change it too
        if list((here or {}).items()) != list((there or {}).items()):
            yield f"augmentation={listed(here or ['none'], 40)}, in the checkpoint {listed(there or ['none'], 40)}"
        return
    undecided = here is None and key not in OFF_WHEN_NULL
    if undecided or here == "auto" or (isinstance(here, Mapping) and here.get("auto") is True) or here == there:
        return
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in here:
            yield from _clashes(f"{key}.{name}", given, saved)
    elif not (key == "image_size" and isinstance(here, int) and there == [here, here]):
        yield f"{key}={here}, in the checkpoint {key}={there}"


def _moved(node: Any, old: str, new: str) -> Any:
    """Put another run folder into all paths below the old one."""
    if isinstance(node, dict):
        return {key: _moved(value, old, new) for key, value in node.items()}
    if isinstance(node, str) and (node == old or node.startswith(old + os.sep)):
        return new + node[len(old) :]
    return node


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two data nodes read the same table, folder or dataset, so that a random split of it is the same split."""

    def place(node: Mapping[str, Any]) -> tuple[Any, ...]:
        path = node.get("path")
        where = None if path is None else os.path.abspath(os.path.expanduser(path))
        return node.get("_target_"), where, node.get("name"), node.get("revision")

    return place(one) == place(other)


def to_predict(settings: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Settings of a prediction: what becomes of bad images and empty rows in it is not what was right for training.

    Raises:
        ConfigError: A bad image is to be blank: there is nothing to predict in it.
    """
    preprocessing = settings["preprocessing"] = dict(settings["preprocessing"])
    for name in ("on_bad_image", "missing_value_strategy"):
        if f"preprocessing.{name}" not in typed:
            preprocessing[name] = "error"
    if preprocessing["on_bad_image"] == "blank":
        raise ConfigError(
            "A black image in the place of one that cannot be read has no prediction.",
            given="preprocessing.on_bad_image=blank",
            expected="error, or skip",
            override="preprocessing.on_bad_image=skip",
        )
    return settings


def with_trained_classes(node: Mapping[str, Any], trained: TargetSpec, typed: Sequence[str]) -> dict[str, Any]:
    """Tell a data source the classes of the checkpoint, unless the user typed others.

    New data often show only some of the classes; inferring the classes from them would give other class ids.

    Raises:
        ConfigError: The data are to be read by their colours, and nothing says which class each colour is.
    """
    node = dict(node)
    by_color = trained.mask_values == "color"
    colors = [hex_color(color) for color in trained.palette or ()] if by_color else None
    # What the pixels of other data mean, the user may say in one of two ways.
    as_trained = by_color and node.get("mask_values") == "color"
    ways = {
        "data.mask_values": node.get("mask_values", "auto") != "auto" and not as_trained,
        "data.colors": bool(node.get("colors")),
    }
    said = [key for key, way in ways.items() if way and key in typed]
    if said == ["data.mask_values"] and node["mask_values"] == "color" and "data.class_names" not in typed:
        drawn = [hex_color(color) for color in trained.palette or ()]
        raise ConfigError(
            "which colour is which class of the model is not known",
            given="data.mask_values=color",
            expected=f"the colours of the classes, in this order: {listed(trained.class_names, 20)}",
            override=override("data.colors", drawn or ["#000000", "#ff0000"]),
        )
    typed = [*typed, *ways] if said else [key for key in typed if key not in ways]
    for name, value in (
        ("class_names", list(trained.class_names)),
        ("num_classes", None),
        ("ignore_index", trained.ignore_index),
        ("mask_values", trained.mask_values),
        ("colors", colors),
    ):
        if name in node and f"data.{name}" not in typed:
            node[name] = value
    return node


def _set(node: dict[str, Any], names: Sequence[str], given: Mapping[str, Any]) -> None:
    """Copy the setting of this name; one that was taken out (``~key``) goes."""
    for name in names[:-1]:
        if name not in given:
            return
        node, given = node.setdefault(name, {}), given[name]
    if names[-1] in given:
        node[names[-1]] = given[names[-1]]
    else:
        node.pop(names[-1], None)
