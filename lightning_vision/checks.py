"""The composed config against what its parts take: names and values, before torch is imported or data are read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_vision.annotations import kind_of, spelled, suggestion
from lightning_vision.config import Settings, groups, options_of, refuse_untrusted
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override
from lightning_vision.signatures import COMPUTED, REQUIRED, Parameter, Signature, classes_in, describe, source_file

# Parts that no run can do without.
_NEEDED = ("data", "preprocessing", "encoder", "neck", "decoder", "loss", "optimizer", "trainer")
_HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
_SETTINGS = f"{Settings.__module__}.{Settings.__qualname__}"


def check(cfg: Any, choices: Mapping[str, Any] | None = None) -> None:
    """Hold every key and value of a composed config against the constructor that it goes to.

    Args:
        cfg: The composed config, with or without Hydra's own node.
        choices: The option of each group, for the messages; by default what Hydra composed last.

    Raises:
        ConfigError: A name or a value is wrong; the message ends with an override that works.
    """
    root = plain(cfg)
    choices = chosen() if choices is None else choices
    _check_root(root, choices)
    for key, node in root.items():
        if isinstance(node, dict):
            _check_node(key, node, root, choices)


def chosen() -> dict[str, Any]:
    """Return the option of each group that Hydra composed for the running job, empty outside of one."""
    if "hydra.core.hydra_config" not in sys.modules:
        return {}
    from hydra.core.hydra_config import HydraConfig

    return dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}


def plain(cfg: Any, resolve: bool = True) -> dict[str, Any]:
    """Return a config as plain dicts and lists, without Hydra's own node.

    Raises:
        ConfigError: An interpolation leads nowhere.
    """
    if isinstance(cfg, dict):
        return {k: v for k, v in cfg.items() if k != "hydra"}
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError

    result: dict[str, Any] = {}
    for key in cfg:
        if key == "hydra":
            continue
        node = cfg._get_node(key)
        try:
            if OmegaConf.is_config(node):
                result[key] = OmegaConf.to_container(node, resolve=resolve, throw_on_missing=False)
            elif resolve and node is not None and node._is_interpolation():
                result[key] = OmegaConf.to_container(OmegaConf.create([cfg[key]]))[0]  # type: ignore[index]
            else:
                result[key] = node._value() if node is not None else None
        except InterpolationResolutionError as error:
            raise ConfigError(
                f"{error.full_key or key} refers to something that is not there",
                given=str(error).split("\n")[0],
                expected="${key} of a setting in this config",
                override=f"python -m lightning_vision --cfg job --package {key}",
            ) from error
    return result


def _check_root(root: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    settings = describe(_SETTINGS)
    assert settings is not None
    known = groups()
    for key, value in root.items():
        if key in settings.parameters:
            if key == "output_dir" and not isinstance(value, str):
                value = None if value is None else str(value)
            _check_value(key, value, settings.parameters[key], root)
        elif key not in known:
            raise unknown_key(key, value, {k: v for k, v in root.items() if k != key}, choices)
        elif value is not None and not isinstance(value, dict):
            raise _no_part(key, value)
    for key in _NEEDED:
        if root.get(key) is None:
            raise _no_part(key, None)


def _no_part(group: str, value: Any) -> ConfigError:
    options = options_of(group)
    word = nearest(str(value), options) or next(iter(options), None)
    return ConfigError(
        f"{group} is not a part that can be built",
        given=override(group, value),
        expected=listed(options),
        override=f"{group}={word}" if word else None,
    )


def _check_node(key: str, node: dict[str, Any], root: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    """Check a part, a dict of parts by name, or ``auto: true``."""
    if "_target_" in node:
        _check_part(key, node, choices)
        return
    if node.get("auto") is True:
        extra = [k for k in node if k != "auto"]
        if extra:
            option = next((o for o in options_of(key) if o != "auto"), "auto")
            raise ConfigError(
                f"{key}=auto has no settings: it chooses the {key} by itself",
                given=override(f"{key}.{extra[0]}", node[extra[0]]),
                expected=f"a {key} by name: {listed(options_of(key))}",
                override=f"{key}={option}",
            )
        return
    for name, part in node.items():
        if isinstance(part, dict) and "_target_" in part:
            _check_part(f"{key}.{name}", part, choices)
        elif part is not None:
            others = [n for n, p in node.items() if isinstance(p, dict) and "_target_" in p]
            raise unknown_key(f"{key}.{name}", part, {key: {n: node[n] for n in others}}, choices)


def _check_part(key: str, node: dict[str, Any], choices: Mapping[str, Any]) -> None:
    target = str(node["_target_"])
    refuse_untrusted(target, f"{key}._target_")
    signature = describe(target)
    ours = target.startswith("lightning_vision.")
    if signature is None:
        if ours:
            raise _no_target(key, target)
        return
    for name in node:
        if name in signature.injected:
            raise ConfigError(
                f"{key}.{name} is worked out from the data and the other parts, it is not a setting",
                given=override(f"{key}.{name}", node[name]),
                override=f"~{key}.{name}",
            )
        if name not in signature.parameters and name not in _HYDRA_KEYS and not signature.takes_any:
            raise _unknown_setting(key, name, node, signature, choices)
    for parameter in signature.parameters.values():
        _check_setting(key, parameter, node, signature, ours)
        value = node.get(parameter.name)
        if isinstance(value, dict) and "_target_" in value:
            _check_part(f"{key}.{parameter.name}", value, choices)


def _check_setting(
    key: str, parameter: Parameter, node: dict[str, Any], signature: Signature, with_values: bool
) -> None:
    name = parameter.name
    full_key = f"{key}.{name}"
    if node.get(name, REQUIRED) == "???" or (
        name not in node
        and parameter.default is REQUIRED
        and name not in signature.injected
        and not node.get("_partial_")
        and not node.get("_args_")
        and with_values
    ):
        kind = kind_of(parameter, node)
        example = suggestion(kind, None, parameter.default)
        path_like = override(full_key, "FILE") if example in (COMPUTED, "TEXT", "PATH") else override(full_key, example)
        raise ConfigError(f"{full_key} must be given", expected=kind.text, override=path_like)
    value = node.get(name, REQUIRED)
    if with_values and value is not REQUIRED and not (isinstance(value, dict) and "_target_" in value):
        _check_value(full_key, value, parameter, node)


def _check_value(key: str, value: Any, parameter: Parameter, node: Mapping[str, Any]) -> None:
    kind = kind_of(parameter, node)
    if kind.allows(value):
        return
    better = suggestion(kind, value, parameter.default)
    words = {spelled(o): o for o in kind.options}
    raise ConfigError(
        f"{key} cannot be {_shown(value)}",
        given=override(key, value),
        expected=kind.text,
        nearest=nearest(str(value), words.values()),
        override=f"~{key}" if better is COMPUTED else override(key, better),
    )


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _no_target(key: str, target: str) -> ConfigError:
    module, _, name = target.rpartition(".")
    names = classes_in(module) if source_file(module) else ()
    word = nearest(name, names)
    better = f"{module}.{word}" if word else None
    reason = f"{module} has no {name}" if names else f"there is no module {module}"
    group = key.split(".")[0]
    option = next(iter(options_of(group)), None)
    return ConfigError(
        f"{key}._target_ cannot be found: {reason}",
        given=target,
        expected=f"one of {listed(names)}" if names else None,
        nearest=better,
        override=f"{key}._target_={better}" if better else f"{group}={option}" if option else None,
    )


def _unknown_setting(
    key: str, name: str, node: Mapping[str, Any], signature: Signature, choices: Mapping[str, Any]
) -> ConfigError:
    tree: dict[str, Any] = {
        p.name: node.get(p.name, None if p.default in (REQUIRED, COMPUTED) else p.default)
        for p in signature.parameters.values()
        if p.name not in signature.injected
    }
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return unknown_key(f"{key}.{name}", node[name], tree, choices)


def unknown_key(
    key: str, value: Any, tree: Mapping[str, Any], choices: Mapping[str, Any] | None = None
) -> ConfigError:
    """Word the error for a key that the config does not have.

    Args:
        key: The dotted key as it was given.
        value: The value that was given with it, which the proposal keeps where it fits.
        tree: The config that the key is missing in, as plain dicts.
        choices: The option of each group.
    """
    *above, last = key.split(".")
    level: Mapping[str, Any] = tree
    reached: list[str] = []
    for part in above:
        inner = level.get(part)
        if not isinstance(inner, Mapping):
            break
        level, reached = inner, [*reached, part]
    missing = key.split(".")[len(reached)]
    names = [str(k) for k in level if k not in _HYDRA_KEYS and k != missing]
    word = nearest(missing, names)
    rest = key.split(".")[len(reached) + 1 :]
    elsewhere = [k for k in _leaves(tree) if k.rpartition(".")[2] == last and k != key]
    if word is None or (rest and not _has(level[word], rest)):
        better = elsewhere[0] if elsewhere else ".".join([*reached, word]) if word else None
    else:
        better = ".".join([*reached, word, *rest])
    where = ".".join(reached)
    option = (choices or chosen()).get(reached[0]) if reached else None
    subject = f"{where} has no setting {missing!r}" if where else f"There is no setting {missing!r}"
    return ConfigError(
        subject + (f" (conf/{reached[0]}/{option}.yaml)" if option else ""),
        given=override(key, value),
        expected=listed(names) if names else "no settings at all",
        nearest=better,
        override=_working(better, value, tree) if better else _any_working(where, level),
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


def _working(key: str, value: Any, tree: Mapping[str, Any]) -> str:
    """Write an override of a key that exists, with the value that was given if it is valid there."""
    if "." not in key and isinstance(tree.get(key), Mapping | None) and key in groups():
        options = options_of(key)
        return f"{key}={value if value in options else nearest(str(value), options) or next(iter(options))}"
    parameter, node = _parameter(key, tree)
    if parameter is not None:
        kind = kind_of(parameter, node)
        if not kind.allows(value):
            better = suggestion(kind, value, parameter.default)
            value = node.get(parameter.name) if better is COMPUTED else better
    return override(key, value)


def _any_working(where: str, level: Mapping[str, Any]) -> str:
    for name, value in level.items():
        if name not in _HYDRA_KEYS and not isinstance(value, Mapping) and "${" not in str(value):
            return override(f"{where}.{name}" if where else str(name), value)
    return "python -m lightning_vision --cfg job" + (f" --package {where}" if where else "")


def _parameter(key: str, tree: Mapping[str, Any]) -> tuple[Parameter | None, Mapping[str, Any]]:
    """Find the constructor argument that a key goes to."""
    *above, last = key.split(".")
    node: Any = tree
    for part in above:
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return None, {}
    target = node.get("_target_") if above else _SETTINGS
    signature = describe(str(target)) if target else None
    return (signature.parameters.get(last) if signature else None), node
