"""One config: what its scalars allow, composing it in Python, and building what it names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lightning_vision.errors import ConfigError, VisionError
from lightning_vision.overrides import grammar, is_path_key, names_ludwig, quote_path, spread
from lightning_vision.searchpath import (
    PLUGIN_GROUP,
    conf_dir,
    default_of,
    groups,
    options_of,
    plugins,
    register_plugins,
)
from lightning_vision.types import Between

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["ACTIONS", "TRUSTED", "Settings", "compose", "conf_dir", "instantiate", "options_of"]

ACTIONS = ("fit", "test", "predict", "export", "check", "summary", "cache")
# What a config may build. Code from elsewhere comes in as a plugin, which its user has installed.
TRUSTED = ("lightning_vision.", "torch.nn.", "torch.optim.", "lightning.pytorch.", "timm.optim.")


@dataclass(frozen=True)
class Settings:
    """The scalars at the root: conf/config.yaml says what each means, these annotations what it allows."""

    action: Literal["fit", "test", "predict", "export", "check", "summary", "cache"] = "fit"
    task: Literal["auto", "classification", "multilabel", "open_set", "segmentation", "embedding", "anomaly"] = "auto"
    outputs: dict[str, dict[str, Any]] | None = None
    image_size: Annotated[int, Between(1)] | tuple[Annotated[int, Between(1)], Annotated[int, Between(1)]] | None = None
    batch_size: Annotated[int, Between(1)] = 16
    epochs: Annotated[int, Between(1)] = 10
    repeats: Annotated[int, Between(1)] = 1
    num_items_per_epoch: Annotated[int, Between(1)] | None = None
    lr: Annotated[float, Between(0, low_open=True)] = 1.0e-3
    encoder_lr_factor: Annotated[float, Between(0)] | Literal["auto"] = "auto"
    encoder_layer_decay: Annotated[float, Between(0, 1, low_open=True)] | None = None
    encoder_freeze_epochs: Annotated[int, Between(0)] = 0
    average_horizontal_flips: bool = False
    tied: str | None = None
    images_per_class: Annotated[int, Between(1)] | None = None
    seed: Annotated[int, Between(0, 4294967295)] = 0
    monitor: str = "auto"
    calibrate: Literal["temperature", "thresholds", "all"] | None = None
    checkpoint: str | None = None
    source: str | None = None
    save: (
        Literal["probabilities", "embeddings", "overlays"]
        | list[Literal["probabilities", "embeddings", "overlays"]]
        | None
    ) = None
    table: Literal["csv", "parquet"] = "csv"
    frame_step: Annotated[int, Between(1)] = 1
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    tile: Annotated[int, Between(1)] | tuple[Annotated[int, Between(1)], Annotated[int, Between(1)]] | None = None
    overlap: Annotated[float, Between(0, 1, high_open=True)] = 0.25
    tta: (
        Literal["flips", "scales"]
        | list[Literal["horizontal_flip", "vertical_flip"] | Annotated[float, Between(0.25, 4)]]
        | None
    ) = None
    format: Literal["onnx", "torch", "hub", "all"] | list[Literal["onnx", "torch", "hub", "all"]] = "onnx"
    push: str | None = None
    quick: bool = False
    report: str | None = None
    plots: (
        Literal["augmentation", "classes", "architecture"]
        | list[Literal["augmentation", "classes", "architecture"]]
        | None
    ) = None
    cache: Literal["build", "list", "clear"] = "build"
    output_dir: str = "${hydra:runtime.output_dir}"


def compose(
    words: Sequence[str] | Mapping[str, Any] = (),
    /,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    **choices: Any,
) -> DictConfig:
    """Compose and check a config in Python, as the command line does.

    Args:
        words: Words as on the command line (``["encoder=resnet", "epochs=3"]``), or values by dotted key
            (``{"data.path": "my, photos.csv"}``), which are taken as they are, without Hydra's grammar.
        overrides: More of either kind.
        **choices: Options of groups (``encoder="resnet"``), with settings
            (``encoder={"type": "resnet", "trainable": False}``), and scalars (``epochs=3``); ``ludwig="config.yaml"``
            is a config of Ludwig, translated, printed, and overridden by all else.

    Returns:
        The config, without Hydra's own node. ``output_dir`` is ``outputs/<date>/<time>`` unless it was given.

    Raises:
        ConfigError: A name or a value is wrong; the message ends with an override that works.
    """
    typed: list[str] = []
    values: dict[str, Any] = {}
    for given in (words, overrides, choices):
        if isinstance(given, Mapping):
            values.update(parts_by_key(given))
        else:
            typed += [given] if isinstance(given, str) else map(str, given)
    if "ludwig" in values or names_ludwig(typed):
        typed, blamed = with_ludwig(typed, values)
        with blamed:
            return _composed(typed, {key: value for key, value in values.items() if key != "ludwig"})
    return _composed(typed, values)


def parts_by_key(values: Mapping[str, Any]) -> dict[str, Any]:
    """Take parts with settings apart: ``encoder={"type": "resnet", "trainable": False}`` is the option and its keys."""
    known, apart = groups(), {}
    for key, value in values.items():
        # One transform keeps its type: an augmentation is a list of them.
        if key in known and key != "augmentation" and isinstance(value, Mapping) and "type" in value:
            apart[key] = value["type"]
            apart |= {f"{key}.{name}": inner for name, inner in value.items() if name != "type"}
        else:
            apart[key] = value
    return apart


def with_ludwig(
    words: Sequence[str], values: Mapping[str, Any], unread: Collection[str] = ()
) -> tuple[list[str], AbstractContextManager[None]]:
    """Put the words of a Ludwig config in the place of its name, and print them.

    Args:
        words: Words, which may name it.
        values: Values by dotted key, which may name it.
        unread: Keys that it has no say in.

    Returns:
        The words, and a context in which errors name the place in the file.
    """
    from lightning_vision.ludwig.words import replace

    file = values.get("ludwig")
    named = [] if file is None else [f"ludwig={os.fspath(file)}"]
    replaced = replace([*named, *words], {k: v for k, v in values.items() if k != "ludwig"}, unread)
    replaced.show()
    return replaced.words, replaced.blamed()


def _composed(typed: list[str], values: Mapping[str, Any]) -> DictConfig:
    known = groups()

    def is_word(key: str, value: Any) -> bool:
        one_transform = key == "augmentation" and isinstance(value, Mapping) and "type" in value
        return key in known and (one_transform or not isinstance(value, Mapping))

    typed = typed + [f"{k}={grammar(v)}" for k, v in values.items() if is_word(k, v)]
    return composed(typed, {k: v for k, v in values.items() if not is_word(k, v)})


def composed(words: Sequence[str], values: Mapping[str, Any] | None = None, name: str = "config") -> DictConfig:
    """Compose and check words of the command line, then values by dotted key; ``name`` is the primary config."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from yaml import YAMLError

    from lightning_vision.checks import check
    from lightning_vision.recipes import register_resolvers, settle
    from lightning_vision.translate import translate

    register_resolvers()
    words = [meant for word in words for meant in spread(quote_path(word))]
    with fresh_hydra():
        try:
            register_plugins()
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                full = hydra_compose(name, list(words), return_hydra_config=True)
                choices = dict(full.hydra.runtime.choices)
                settle(full, choices, words, name)
        except (HydraException, ValueError, YAMLError) as error:
            if (ours := translate(error, words)) is None:
                raise
            raise ours from error
        cfg = _without_hydra(full)
    for key, value in (values or {}).items():
        _set(cfg, key, value)
    check(cfg, choices, [*words, *(values or {})])
    return cfg


@contextmanager
def fresh_hydra() -> Iterator[None]:
    """Let Hydra be initialised here although it may be in use already (a notebook, a running job)."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    running, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running
        HydraConfig.instance().cfg = config


def _without_hydra(full: DictConfig) -> DictConfig:
    """Take Hydra's node out, after what refers to it got its value: outside ``hydra.main`` there is none to ask."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict, read_write

    with read_write(full.hydra), open_dict(full.hydra):
        now = datetime.now()
        folder = f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S-%f}"
        full.hydra.runtime.output_dir = os.path.abspath(folder)
    HydraConfig.instance().set_config(full)
    raw = OmegaConf.to_container(full, resolve=False)
    assert isinstance(raw, dict)
    for key in [k for k in _keys_with(raw, "${hydra:") if not k.startswith("hydra.")]:
        OmegaConf.update(full, key, OmegaConf.select(full, key))
    with open_dict(full):
        del full["hydra"]
    return full


def _keys_with(node: Any, text: str, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _keys_with(value, text, f"{key}.{name}" if key else str(name))
    elif isinstance(node, str) and text in node:
        yield key


def _set(cfg: DictConfig, key: str, value: Any) -> None:
    """Set a value by its dotted key; the key must exist."""
    from omegaconf import OmegaConf, open_dict

    from lightning_vision.checks import plain
    from lightning_vision.unknown import unknown_key

    parent_key, _, last = key.rpartition(".")
    parent = OmegaConf.select(cfg, parent_key) if parent_key else cfg
    if not OmegaConf.is_dict(parent) or last not in parent.keys():  # noqa: SIM118 - `in` denies what is still ???
        raise unknown_key(key, value, plain(cfg, resolve=False))
    missing = OmegaConf.is_missing(parent, last)
    if isinstance(value, Mapping) and not missing and OmegaConf.is_dict(parent[last]) and "_target_" in parent[last]:
        for name, inner in value.items():  # settings of a part, by name: its other settings stay
            _set(cfg, f"{key}.{name}", inner)
        return
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and is_path_key(key):
        value = os.path.expanduser(value)
    with open_dict(cfg):
        parent[last] = dict(value) if isinstance(value, Mapping) else value


def instantiate(node: Any, kind: type = object, /, **injected: Any) -> Any:
    """Build what a config node names. The one place where a config becomes an object.

    Nested nodes are not built, and the constructor gets plain lists and dicts. ``_partial_: true`` gives a
    ``functools.partial``.

    Args:
        node: A node with ``_target_``, a DictConfig or a plain dict.
        kind: The class that the target must be, or derive from.
        **injected: Arguments that code supplies, handed over as they are.

    Raises:
        ConfigError: The target is not one that a config may build, or its constructor refused the settings.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as hydra_instantiate
    from omegaconf import DictConfig, OmegaConf

    name = (node._get_full_key(None) or "") if isinstance(node, DictConfig) else ""
    content = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    assert isinstance(content, dict)
    target = str(content.get("_target_"))
    refuse_untrusted(target, name or "_target_")
    try:
        # A partial first: Hydra would turn injected dataclasses into configs.
        part = hydra_instantiate(content, _partial_=True, _recursive_=False, _convert_="all")
        _refuse_unfit(part.func, target, name or "_target_", kind)
        if content.get("_partial_"):
            from functools import partial

            return partial(part, **injected) if injected else part
        return part(**injected)
    except InstantiationException as error:
        raise refused(name, target, error.__cause__ or error) from error
    except (TypeError, ValueError) as error:
        raise refused(name, target, error) from error


def refused(name: str, target: str, cause: BaseException) -> VisionError:
    """Word what a constructor said against the settings of a part; ``name`` is its key, as far as it is known."""
    if isinstance(cause, VisionError):
        return cause
    from lightning_vision.unknown import chosen

    group = name.split(".")[0]
    option = chosen().get(group)
    where = f" (conf/{group}/{option}.yaml)" if option else ""
    return ConfigError(
        f"{name or target} cannot be built{where}: {cause}",
        given=f"_target_: {target}",
        override=f"python -m lightning_vision --cfg job --package {name}" if name else None,
    )


def refuse_untrusted(target: str, key: str) -> None:
    """Raise ConfigError for a target that a config may not build: a config that one was sent must not run any code."""
    if target.startswith(allowed := _allowed()):
        return
    group, _, setting = key.partition(".")
    package = target.partition(".")[0]
    raise ConfigError(
        f"{key} names a target that a config may not build",
        given=target,
        expected=f"a name that begins with {', '.join(allowed)}; code of other packages comes as a plugin, by a line "
        f'in their pyproject.toml: [project.entry-points."{PLUGIN_GROUP}"] {package} = "{package}"',
        # Another option is no answer to who has a network of their own.
        override=f"{group}={default_of(group)}" if group in groups() and setting != "module" else None,
    )


def _allowed() -> tuple[str, ...]:
    return (*TRUSTED, *_of_plugins())


def _of_plugins() -> tuple[str, ...]:
    return tuple(f"{package.split('.')[0]}." for package in plugins())


def is_part(target: str) -> bool:
    """Whether a target is a part of this project or of a plugin, whose annotations say which values it takes."""
    return target.startswith(("lightning_vision.", *_of_plugins()))


def plugin_of(target: str) -> str | None:
    """The installed plugin's package that a target belongs to."""
    return next((package for package in plugins() if target.startswith(f"{package.split('.')[0]}.")), None)


def _refuse_unfit(found: Any, target: str, key: str, kind: type) -> None:
    """Raise ConfigError unless the target is a class of the kind that is needed, at home where its name says.

    A name that begins well may lead out of its package (``package.module.os.system``), and a function would act at
    once, where a class is only built.
    """
    if isinstance(found, type) and f"{found.__module__}.".startswith((*_allowed(), "lightning.fabric.")):
        if issubclass(found, kind):
            return
        raise ConfigError(f"{key} names the wrong kind of part", given=target, expected=f"a class of {kind.__name__}")
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', found)}"
    raise ConfigError(
        f"{key} names a target that a config may not build",
        given=target if home == target else f"{target}, which is {home}",
        expected=f"a class of {', '.join(_allowed())}",
    )
