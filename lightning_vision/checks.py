"""The composed config against what its parts take: names and values, before torch is imported or data are read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from typing import Any

from lightning_vision.annotations import check_value, kind_of, suggestion
from lightning_vision.config import is_part, refuse_untrusted
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.extras import require
from lightning_vision.inference.choices import check_choices
from lightning_vision.optim.checks import check_kind
from lightning_vision.options import expand, load_option
from lightning_vision.overrides import override, override_keys
from lightning_vision.recipes import pristine
from lightning_vision.searchpath import default_of, groups, options_of
from lightning_vision.signatures import COMPUTED, REQUIRED, Parameter, Signature, classes_in, describe, source_file
from lightning_vision.template import check_template, point_to_template
from lightning_vision.unknown import HYDRA_KEYS, SETTINGS, chosen, no_settings, unknown_key

# Parts that no run can do without.
NEEDED = ("data", "preprocessing", "encoder", "neck", "decoder", "loss", "optimizer", "trainer")


def check(cfg: Any, choices: Mapping[str, Any] | None = None, typed: Sequence[str] = ()) -> None:
    """Hold every key and value of a composed config against the constructor that it goes to.

    Args:
        cfg: The composed config, with or without Hydra's own node.
        choices: The option of each group, for the messages; by default what Hydra composed last.
        typed: What the user typed, words or keys: these parts are looked at first, since each costs the reading of its
            source files, and a mistake is most likely there.

    Raises:
        ConfigError: A name or a value is wrong; the message ends with an override that works.
    """
    choices = chosen() if choices is None else choices
    template = pristine(choices.get("template"))
    keys = override_keys(typed)
    check_template(cfg, template, keys)
    try:
        _check_all(plain(cfg), choices, keys)
    except ConfigError as error:
        if template:
            point_to_template(error, plain(cfg, resolve=False), template)
        raise


def _check_all(root: dict[str, Any], choices: Mapping[str, Any], keys: Sequence[str]) -> None:
    _check_root(root, choices)
    check_choices(root, keys)
    first = {key.partition(".")[0] for key in keys}
    expand(root)
    if root.get("outputs"):
        if root.get("template"):
            raise ConfigError(
                "A template describes a model with one output: its task, decoder and loss would not reach others.",
                given=f"template={choices.get('template')}, and outputs {listed(root['outputs'])}",
                override="outputs=null",
            )
        _check_outputs(root["outputs"], first, choices)
    check_kind(root["optimizer"])
    _refuse_spawned(root["trainer"])
    for key in sorted(root, key=lambda key: key not in first):
        if isinstance(root[key], dict) and key != "template":
            _check_node(key, root[key], root, choices)


def _refuse_spawned(trainer: Mapping[str, Any]) -> None:
    """Refuse strategies whose processes end with the fit: figures and counts of the test would end with them."""
    strategy = str(trainer.get("strategy"))
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise ConfigError(
            "The processes of this strategy end with the training, and what the test counts would be lost with them.",
            given=f"trainer.strategy={strategy}",
            expected="processes that run the command line: ddp, fsdp; from a notebook, one device",
            override=["trainer.strategy=ddp", "trainer.devices=1 trainer.strategy=auto"],
        )


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
    settings = describe(SETTINGS)
    assert settings is not None
    known = groups()
    for key, value in root.items():
        if key in settings.parameters:
            if key == "output_dir" and not isinstance(value, str):
                value = None if value is None else str(value)
            check_value(key, value, settings.parameters[key], root)
        elif key not in known:
            raise unknown_key(key, value, {k: v for k, v in root.items() if k != key}, choices)
        elif value is not None and not isinstance(value, dict):
            raise _no_part(key, value)
    for key in NEEDED:
        if root.get(key) is None:
            raise _no_part(key, None)


def _no_part(group: str, value: Any) -> ConfigError:
    options = options_of(group)
    word = (nearest(value, options) if isinstance(value, str) else None) or default_of(group)
    return ConfigError(
        f"{group} is not a part that can be built",
        given=override(group, value),
        expected=listed(options),
        override=f"{group}={word}" if word else None,
    )


def _check_node(key: str, node: dict[str, Any], root: Mapping[str, Any], choices: Mapping[str, Any]) -> None:
    """Check a part, a dict of parts by name, or ``auto: true``."""
    if "_target_" in node:
        check_part(key, node, choices)
        return
    if node.get("auto") is True:
        extra = [k for k in node if k != "auto"]
        if extra:
            raise no_settings(key, extra[0], node[extra[0]])
        return
    for name, part in node.items():
        if isinstance(part, dict) and "_target_" in part:
            check_part(f"{key}.{name}", part, choices)
        elif part is not None:
            others = [n for n, p in node.items() if isinstance(p, dict) and "_target_" in p]
            raise unknown_key(f"{key}.{name}", part, {key: {n: node[n] for n in others}}, choices)


def _check_outputs(outputs: Mapping[str, dict[str, Any]], typed: Set[str], choices: Mapping[str, Any]) -> None:
    """Check every output, and that nothing is said of a single one."""
    single = sorted(typed & {"decoder", "loss", "neck", "task"})
    if single:
        name = next(iter(outputs))
        raise ConfigError(
            f"With outputs, each has its own {single[0]}.",
            given=f"{single[0]}=, and outputs {listed(outputs)}",
            override=[f"+outputs.{name}.{single[0]}=NAME", "outputs=null"],
        )
    for name, node in outputs.items():
        check_part(f"outputs.{name}", node, choices)


def check_part(key: str, node: dict[str, Any], choices: Mapping[str, Any] | None = None) -> None:
    """Check a part: its target, and the names and values of its settings; ``choices`` as for ``check``."""
    choices = choices or {}
    target = str(node["_target_"])
    refuse_untrusted(target, f"{key}._target_")
    signature = describe(target)
    ours = is_part(target)
    if signature is None:
        if ours:
            raise _no_target(key, target)
        return
    if target.startswith("lightning_vision.") and (extra := signature.constants.get("requires")):
        group = key.split(".")[0]
        option = default_of(group) if group in groups() else None
        instead = [f"{group}={option}"] if option else []
        require(*extra, needs=f"{key} needs", given=f"_target_: {target}", instead=instead)
    if not ours and (left := _left_over(key, node, signature, choices)):
        raise left
    for name in node:
        if name in signature.injected:
            raise ConfigError(
                f"{key}.{name} is worked out from the data and the other parts, it is not a setting",
                given=override(f"{key}.{name}", node[name]),
                override=f"~{key}.{name}",
            )
        if name not in signature.parameters and name not in HYDRA_KEYS and not signature.takes_any:
            if left := _left_over(key, node, signature, choices):
                raise left
            raise _unknown_setting(key, name, node, signature, choices)
    for parameter in signature.parameters.values():
        _check_setting(key, parameter, node, signature, ours)
        value = node.get(parameter.name)
        if isinstance(value, dict) and "_target_" in value:
            check_part(f"{key}.{parameter.name}", value, choices)
        elif isinstance(value, dict) and parameter.name == "losses":
            for name, inner in value.items():
                check_part(f"{key}.losses.{name}", inner, choices)


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
        unknown = {COMPUTED: "FILE", "TEXT": "FILE", "PATH": "FILE", None: "VALUE"}
        path_like = override(full_key, unknown.get(example, example) if isinstance(example, Hashable) else example)
        raise ConfigError(f"{full_key} must be given", expected=kind.text, override=path_like)
    value = node.get(name, REQUIRED)
    if with_values and value is not REQUIRED and not (isinstance(value, dict) and "_target_" in value):
        check_value(full_key, value, parameter, node)


def _no_target(key: str, target: str) -> ConfigError:
    module, _, name = target.rpartition(".")
    names = classes_in(module) if source_file(module) else ()
    word = nearest(name, names)
    better = f"{module}.{word}" if word else None
    reason = f"{module} has no {name}" if names else f"there is no module {module}"
    group = key.split(".")[0]
    option = default_of(group) if group in groups() else None
    return ConfigError(
        f"{key}._target_ cannot be found: {reason}",
        given=target,
        expected=f"one of {listed(names)}" if names else None,
        nearest=better,
        override=f"{key}._target_={better}" if better else f"{group}={option}" if option else None,
    )


def _left_over(
    key: str, node: Mapping[str, Any], signature: Signature, choices: Mapping[str, Any]
) -> ConfigError | None:
    """Another class in the place of an option's: settings and values of the option that the class does not take."""
    options = options_of(key) if key in groups() else {}
    option = str(choices.get(key))
    file = load_option(key, option) if option in options else {}
    target = str(node["_target_"])
    if file.get("_target_") in (None, target):
        return None
    taken = {name: p for name, p in signature.parameters.items() if name not in ("params", *signature.injected)}
    unknown = [n for n in node if n in file and n not in HYDRA_KEYS and not signature.takes_any and n not in taken]
    # Values that were typed beside the class are judged by themselves.
    brought = [n for n in taken if n in node and n in file and node[n] == file[n]]
    other = [n for n in brought if not kind_of(taken[n], node).allows(node[n])]
    unfit = [*unknown, *other]
    if not unfit:
        return None
    own = next((name for name in options if load_option(key, name).get("_target_") == target), None)
    # Hydra takes nothing out that is null.
    removable = all(node[name] is not None for name in unfit)
    without = " ".join([f"{key}._target_={target}", *(f"~{key}.{name}" for name in unfit)]) if removable else None
    said = [f"has no setting {listed(unknown, 8)}"] if unknown else []
    said += [f"takes another kind of {listed(other, 8)}"] if other else []
    return ConfigError(
        f"{target} {' and '.join(said)}, which conf/{key}/{option}.yaml brings along",
        given=f"{key}._target_={target}",
        expected=f"settings of {listed(taken, 20)}",
        override=f"{key}={own}" if own else without,
    )


def _unknown_setting(
    key: str, name: str, node: Mapping[str, Any], signature: Signature, choices: Mapping[str, Any]
) -> ConfigError:
    # Arguments that the part does not have must be added, with a +.
    names = [p.name for p in signature.parameters.values() if p.name not in signature.injected and p.name in node]
    tree: dict[str, Any] = {"_target_": signature.target, **{p: node[p] for p in names}}
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return unknown_key(f"{key}.{name}", node[name], tree, choices)
