"""Parts by name in the middle of a config: those of a combined loss, and those of several outputs.

A group's option is composed by Hydra. Where a setting holds parts itself, their names are looked up here, before the
config is checked: after ``expand`` every part is a node with ``_target_``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, cast

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.listing import LISTINGS
from lightning_vision.outputs import OUTPUT, is_name
from lightning_vision.overrides import for_shell
from lightning_vision.searchpath import default_of, options_of, owner_of
from lightning_vision.signatures import describe

# What lists the options of a group.
LISTED = {group: action for action, group in LISTINGS.items()}


def load_option(group: str, name: str, key: str = "", follow: bool = True) -> dict[str, Any]:
    """Return the node of a group's option, of that which it stands for if it is an alias.

    Args:
        group: The config group.
        name: The option.
        key: The setting that names it, for the message.
        follow: Whether an alias is looked up; otherwise its file is returned as it is.

    Raises:
        ConfigError: There is no such option.
    """
    options = options_of(group)
    if name not in options:
        near = nearest(str(name), options)
        raise ConfigError(
            f"There is no {group} {name!r}",
            given=f"{key or group}: {name}",
            expected=listed(options),
            nearest=near,
            override=f"python -m lightning_vision {LISTED[group]}" if group in LISTED and not near else None,
        )
    node = deepcopy(_loaded(str(options[name])))
    alias = node.pop("defaults", None) if follow else None
    if alias:
        return load_option(group, alias[0], key)
    if node.get("losses"):
        _combined(node, name)
    return node


def parts_of(group: str) -> dict[str, dict[str, Any]]:
    """The parts of a group by the names of their options: neither aliases nor ``auto``."""
    nodes = {}
    for name, file in options_of(group).items():
        with suppress(ConfigError):  # a broken file of a plugin, which is answered where its option is chosen
            nodes[name] = _loaded(str(file))
    return {name: load_option(group, name) for name, node in nodes.items() if "_target_" in node}


@cache
def _loaded(file: str) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(file)))
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise unreadable_option(file, error) from error


def unreadable_option(file: str, error: BaseException) -> ConfigError:
    """The error of an option whose file is no YAML; it names the plugin that brings it."""
    path = Path(file)
    package = owner_of(path)
    return ConfigError(
        f"The option {path.parent.name}={path.stem} cannot be read"
        + (f"; it comes from the plugin {package}" if package else ""),
        given=f"{file}: {' '.join(str(error).split())}",
        expected="a YAML file in UTF-8",
        override=f"{path.parent.name}={default_of(path.parent.name)}",
    )


def part(group: str, value: Any, key: str) -> dict[str, Any] | None:
    """Return the node that a value stands for: a name, or a mapping of ``type`` and settings.

    Args:
        group: The config group.
        value: A name, ``{type: NAME, SETTING: VALUE ...}``, a node, or None.
        key: The setting that holds it, for messages.

    Raises:
        ConfigError: There is no such part.
    """
    if value is None:
        return None if group == "neck" else {"auto": True}
    if isinstance(value, str):
        return load_option(group, value, key)
    if isinstance(value, Mapping) and ("_target_" in value or value.get("auto")):
        return dict(value)
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        node = load_option(group, value["type"], f"{key}.type")
        return node | {k: v for k, v in value.items() if k != "type"}
    example = {"decoder": "unet", "loss": "dice_loss", "neck": "auto"}[group]
    raise ConfigError(
        f"{key} is neither the name of a {group} nor its type with settings",
        given=f"{key}={value}",
        expected=f"{key}: {example}, or {key}: {{type: {example}}}",
    )


def transforms(written: str) -> dict[str, dict[str, Any]] | list[str] | None:
    """Read a list of transforms, such as ``[random_blur,{type: random_rotate, degree: 10}]``.

    Args:
        written: In Hydra's grammar.

    Returns:
        The names, where the list holds names alone and none is there twice: Hydra puts them together. Otherwise the
        nodes by name, in the order of the list; a second one of a type is named ``TYPE_2``, and so it is where a name
        stands for several, as a preset does. None: these are several lists of names, with commas between them.

    Raises:
        ConfigError: The list cannot be read, or a name is unknown.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"augmentation={written}")
    except HydraException as error:
        raise _no_transform(written) from error
    if override.is_sweep_override():
        if "{" in written:
            raise ConfigError(
                "A sweep over augmentations holds names, and lists of names.",
                given=f"augmentation={written}",
                override="-m augmentation=none,[random_rotate],[light,mixup] augmentation.random_rotate.degree=10",
            )
        return None
    entries = [dict(e) if isinstance(e, Mapping) else {"type": e} for e in cast(list[Any], override.value())]
    found: dict[str, dict[str, Any]] = {}
    plain = True
    for entry in entries:
        name, settings = entry.get("type"), {k: v for k, v in entry.items() if k != "type"}
        if not isinstance(name, str):
            raise _no_transform(written)
        if name not in (options := options_of("augmentation")):
            near = nearest(name, options)
            raise ConfigError(
                f"There is no augmentation {name!r}",
                given=f"augmentation={written}",
                expected=listed(options, 40),
                nearest=near,
                override=for_shell(f"augmentation={written.replace(name, near)}") if near else "augmentation=light",
            )
        nodes = _transforms_of(name)
        if settings and len(nodes) != 1:
            raise _no_transform(written)
        plain = plain and not settings and not set(nodes) & set(found)
        for kind, node in nodes.items():
            count = sum(key == kind or (key.startswith(f"{kind}_") and key[len(kind) + 1 :].isdigit()) for key in found)
            found[kind if not count else f"{kind}_{count + 1}"] = node | settings
    return [entry["type"] for entry in entries] if plain and entries else found


def _transforms_of(name: str) -> dict[str, dict[str, Any]]:
    """The nodes of an option of the augmentation, those of the options that it is made of first."""
    node = load_option("augmentation", name, "augmentation", follow=False)
    found: dict[str, dict[str, Any]] = {}
    for other in node.pop("defaults", []):
        if other != "_self_":
            found |= _transforms_of(other)
    for key, settings in node.items():
        found[key] = found.get(key, {}) | settings
    return found


def _no_transform(given: Any) -> ConfigError:
    return ConfigError(
        "The list of an augmentation holds names of transforms, or their type with settings.",
        given=f"augmentation: {given}",
        expected=listed(options_of("augmentation"), 40),
        override="'augmentation=[random_horizontal_flip,{type: random_rotate, degree: 10}]'",
    )


def expand(config: dict[str, Any]) -> None:
    """Put nodes in the place of names, inside combined losses and outputs of a plain config. Twice changes nothing.

    Raises:
        ConfigError: A name is unknown, or an output's settings are.
    """
    if config.get("outputs"):
        config["outputs"] = {name: _output(str(name), given) for name, given in config["outputs"].items()}
        for name, node in config["outputs"].items():
            _combined(node["loss"], f"outputs.{name}.loss")
    if isinstance(config.get("loss"), dict):
        _combined(config["loss"], "loss")


def _output(name: str, given: Any) -> dict[str, Any]:
    key = f"outputs.{name}"
    if not is_name(name):
        raise ConfigError(
            "The name of an output is a word of letters, digits and underscores.",
            given=key,
            expected="such as mask, or scene_2",
        )
    if not isinstance(given, Mapping) or not given.get("decoder"):
        raise ConfigError(
            f"{key} needs a decoder",
            given=f"{key}={given}",
            expected="its target and decoder, and what else it has of its own: loss, weight, dependencies ...",
            override=f"+{key}.decoder=classifier",
        )
    signature = describe(OUTPUT)
    assert signature is not None
    node: dict[str, Any] = {"_target_": OUTPUT}
    node |= {p.name: deepcopy(given.get(p.name, p.default)) for p in signature.parameters.values()}
    node |= {k: v for k, v in given.items() if k not in node}  # what is unknown is refused with the rest of the config
    node["target"] = given.get("target") or name
    for group in ("decoder", "loss", "neck"):
        node[group] = part(group, node[group], f"{key}.{group}")
    return node


def _combined(node: dict[str, Any], key: str) -> None:
    """Put the nodes of its losses in the place of their names and settings."""
    if not isinstance(node.get("losses"), Mapping):
        return
    parts = {}
    for name, settings in node["losses"].items():
        where = f"{key}.losses.{name}"
        given = dict(settings or {})
        found = given if "_target_" in given else load_option("loss", str(name), where) | given
        if "losses" in found or found.get("auto"):
            raise ConfigError(
                "A combined loss adds up plain losses, not the choice of one or another sum.",
                given=where,
                override=f"~{where}",
            )
        parts[str(name)] = found
    if not parts:
        raise ConfigError(
            "A combined loss needs losses to add up.",
            given=f"{key}.losses={{}}",
            override="loss=[softmax_cross_entropy,dice_loss]",
        )
    node["losses"] = parts
