"""A key that the config does not have: the nearest that it has, and an override that works."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lightning_vision.annotations import kind_of, suggestion
from lightning_vision.encoders.torchvision_families import STOCHASTIC
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.options import parts_of
from lightning_vision.overrides import override
from lightning_vision.searchpath import default_of, groups, options_of
from lightning_vision.signatures import COMPUTED, Parameter, describe

_LONGEST = 300
# Settings that many options list for the few of their models that have it: the options that surely have.
ABLE = {"encoder.drop_path": STOCHASTIC}
HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
SETTINGS = "lightning_vision.config.Settings"


def chosen() -> dict[str, Any]:
    """Return the option of each group that Hydra composed for the running job, empty outside of one."""
    if "hydra.core.hydra_config" not in sys.modules:
        return {}
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def unknown_key(key: str, value: Any, tree: Mapping[str, Any], choices: Mapping[str, Any] | None = None) -> ConfigError:
    """Word the error for a key that the config does not have.

    Args:
        key: The dotted key as it was given.
        value: The value that was given with it, which the proposal keeps where it fits.
        tree: The config that the key is missing in, as plain dicts.
        choices: The option of each group.
    """
    given = override(key, value)
    if len(given) > _LONGEST:  # an array from Python
        given, value = f"{given[:_LONGEST]} …", None
    if key.startswith("template.") and not tree.get("template"):
        return ConfigError(
            "No template is chosen here, so there are no hyperparameters of one.",
            given=given,
            expected="template=NAME beside it; beside a checkpoint, plain settings such as epochs",
            override=[f"template={default_of('template')} {given}", "python -m lightning_vision templates"],
        )
    level: Mapping[str, Any] = tree
    reached: list[str] = []
    parts = key.split(".")
    for part in parts[:-1]:
        inner = level.get(part)
        if not isinstance(inner, Mapping):
            break
        level, reached = inner, [*reached, part]
    missing, rest = parts[len(reached)], parts[len(reached) + 1 :]
    where = ".".join(reached)
    if level.get("auto") is True:
        return no_settings(where, missing, value)
    names = [str(k) for k in level if k not in HYDRA_KEYS and k != missing]
    addable = _addable(level, names)
    if missing in addable and not rest:
        # An argument that the file does not list, such as one of Lightning's Trainer.
        return _must_be_added(key, value, where)
    word = nearest(missing, [*names, *addable])
    below = ".".join([*reached, word, *rest]) if word and (not rest or _has(level.get(word), rest)) else None
    elsewhere = next((k for k in _leaves(tree) if k.rpartition(".")[2] == parts[-1] and k != key), None)
    close = word is not None and difflib.SequenceMatcher(None, missing, word).ratio() > 0.75
    order = (below, elsewhere) if close else (elsewhere or below,)
    proposals = list(dict.fromkeys(p for p in order if p is not None))
    option = (choices or chosen()).get(reached[0]) if reached else None
    subject = f"{where} has no setting {missing!r}" if where else f"There is no setting {missing!r}"
    return ConfigError(
        subject + (f" (conf/{reached[0]}/{option}.yaml)" if option else ""),
        given=given,
        expected=listed(names) if names else "no settings at all",
        nearest=proposals[0] if proposals else None,
        override=[_working(p, value, tree, plus=p == below and word in addable) for p in proposals]
        or _options_with(key, value)
        or _any_working(where, level),
    )


def no_settings(group: str, name: str, value: Any) -> ConfigError:
    """Word the error for a setting of a part that is chosen later, such as ``loss=auto``."""
    options = list(parts_of(group))
    return ConfigError(
        f"{group}=auto has no settings: it chooses the {group} by itself",
        given=override(f"{group}.{name}", value),
        expected=f"a {group} by name: {listed(options, 40)}",
        override=_options_with(f"{group}.{name}", value) or f"{group}={options[0] if options else 'auto'}",
    )


def _addable(level: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the arguments of a part that its file does not list."""
    signature = describe(str(level["_target_"])) if "_target_" in level else None
    if signature is None:
        return []
    return [p for p in signature.parameters if p not in names and p not in signature.injected]


def _must_be_added(key: str, value: Any, where: str) -> ConfigError:
    return ConfigError(
        f"{key} is not in the config: it must be added",
        given=override(key, value),
        expected="a + in front of an argument that the file of the part does not list",
        override=override(f"+{key}", value),
    )


def _has(tree: Any, path: Iterable[str]) -> bool:
    for part in path:
        if not isinstance(tree, Mapping) or part not in tree:
            return False
        tree = tree[part]
    return True


def _leaves(tree: Mapping[str, Any], key: str = "") -> Iterator[str]:
    for name, value in tree.items():
        full = f"{key}.{name}" if key else str(name)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, full)
        else:
            yield full


def _working(key: str, value: Any, tree: Mapping[str, Any], plus: bool) -> str:
    """Write an override of a key that exists, with the value that was given if it is valid there."""
    if plus:
        return override(f"+{key}", value)
    if "." not in key and isinstance(tree.get(key), Mapping | None) and key in groups():
        options = options_of(key)
        return f"{key}={nearest(str(value), options) or default_of(key)}"
    parameter, node = parameter_of(key, tree)
    if parameter is not None:
        kind = kind_of(parameter, node)
        if not kind.allows(value):
            better = suggestion(kind, value, parameter.default)
            value = node.get(parameter.name) if better is COMPUTED else better
    return override(key, value)


def _options_with(key: str, value: Any) -> list[str]:
    """Write other options of the group that have the setting, the simplest first."""
    group, _, name = key.partition(".")
    nodes = parts_of(group) if group in groups() else {}
    able = ABLE.get(key, tuple(nodes))
    having = sorted((o for o in nodes if name in nodes[o] and o in able), key=lambda o: len(nodes[o]))
    return [f"{group}={option} {override(key, value)}" for option in having[:3]]


def _any_working(where: str, level: Mapping[str, Any]) -> str:
    for name, value in level.items():
        if name not in HYDRA_KEYS and not isinstance(value, Mapping) and "${" not in str(value):
            return override(f"{where}.{name}" if where else str(name), value)
    return f"{where}={default_of(where)}" if where in groups() else "epochs=10"


def parameter_of(key: str, tree: Mapping[str, Any]) -> tuple[Parameter | None, Mapping[str, Any]]:
    """Find the constructor argument that a key goes to."""
    *above, last = key.split(".")
    node: Any = tree
    for part in above:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return None, {}
    target = node.get("_target_") if above else SETTINGS
    signature = describe(str(target)) if target else None
    return (signature.parameters.get(last) if signature else None), node
