"""What test and predict take from the command line, and what from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.types import TargetSpec

# All else is in the checkpoint.
OWN = ("action", "checkpoint", "source", "output_dir", "data", "batch_size", "seed", "trainer", "callbacks", "logger")
OWN_PREPROCESSING = ("mode", "prefetch_size", "lazy_cache_dir", "decode_threads", "bad_image")


def override_keys(overrides: Sequence[str]) -> list[str]:
    """The dotted keys of override words: ``+data.path='x'`` names ``data.path``."""
    return [word.split("=", 1)[0].lstrip("+~").split("@")[0] for word in overrides]


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
    for key in ("action", "checkpoint", "source", "output_dir", "trainer", "callbacks", "logger"):
        merged[key] = given[key]
    whole_groups = {key for key in keys if "." not in key}
    for key in keys:
        group, _, name = key.partition(".")
        if group in ("hydra", "experiment"):
            continue
        if group == "preprocessing" and name in OWN_PREPROCESSING:
            merged[group][name] = given[group][name]
        elif group not in OWN:
            raise ConfigError(
                f"{key} is decided by the checkpoint.",
                given=key,
                expected=f"only {listed(OWN)} and preprocessing.{{{listed(OWN_PREPROCESSING)}}} beside a checkpoint",
                override=f"leave {key} out",
            )
        elif not name or group in whole_groups:
            merged[group] = given[group]
        else:
            _set(merged[group], name.split("."), given[group])
    return merged


def with_trained_classes(node: Mapping[str, Any], trained: TargetSpec, typed: Sequence[str]) -> dict[str, Any]:
    """Tell a data source the classes of the checkpoint, unless the user typed others.

    New data often show only some of the classes; inferring the classes from them would give other class ids.
    """
    node = dict(node)
    for name, value in (
        ("class_names", list(trained.class_names)),
        ("num_classes", None),
        ("ignore_index", trained.ignore_index),
        ("mask_values", trained.mask_values),
    ):
        if name in node and f"data.{name}" not in typed:
            node[name] = value
    return node


def _set(node: dict[str, Any], names: Sequence[str], given: Any) -> None:
    for name in names[:-1]:
        node, given = node[name], given[name]
    node[names[-1]] = given[names[-1]]
