"""Templates and experiments: many settings at once, from one YAML file, that anything typed beside them overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from lightning_vision.overrides import override_keys
from lightning_vision.searchpath import groups
from lightning_vision.template import CHOICES, refuse_idle

if TYPE_CHECKING:
    from omegaconf import DictConfig

RECIPES = ("template", "experiment")


def register_resolvers() -> None:
    """Let YAML calculate: ``${lv.product:${batch_size},1e-4}``, ``${lv.ratio:1e-6,5e-3}``, ``${lv.scaled:64,1.25}``.

    ``scaled`` gives whole pixels, of one side or of both. ``${lv.meaning:logreg,task}`` is what the word that is chosen
    for a template's hyperparameter stands for.
    """
    from omegaconf import OmegaConf

    def scaled(size: Any, factor: float) -> Any:
        return round(size * factor) if isinstance(size, int | float) else [round(side * factor) for side in size]

    def meaning(name: str, *keys: str, _root_: Any) -> Any:
        found = _root_.template[CHOICES][name][str(_root_.template[name])]
        for key in keys:
            found = found[key]
        return found

    OmegaConf.register_new_resolver("lv.meaning", meaning, replace=True)
    OmegaConf.register_new_resolver("lv.scaled", scaled, replace=True)
    OmegaConf.register_new_resolver("lv.product", lambda *factors: math.prod(factors), replace=True)
    OmegaConf.register_new_resolver("lv.ratio", lambda a, b: a / b if b else 0.0, replace=True)


def settle(cfg: DictConfig, choices: Mapping[str, Any], words: Sequence[str], name: str = "config") -> None:
    """Let a part that was chosen by name be just that part, without what the recipe says of the part it had chosen.

    Hydra merges a recipe's settings into whatever part there is: ``template=clarifai_resnext encoder=dinov2`` would
    leave a ``model_variant`` in the node of DINOv2.

    Args:
        cfg: The composed config, which is changed.
        choices: The option of each group.
        words: The overrides that were typed.
        name: The primary config.

    Raises:
        ConfigError: A hyperparameter of the template was typed that nothing takes any more.
    """
    if not any(choices.get(recipe) for recipe in RECIPES):
        return
    from hydra import compose

    from lightning_vision.checks import plain

    keys = override_keys(words)
    typed = (set(keys) & set(groups())) - set(RECIPES)
    _take(cfg, typed, typed, words, keys, name)
    if all(choices.get(recipe) for recipe in RECIPES) and "experiment" in keys:
        # The experiment's parts are chosen after the template's, as if they were typed.
        first = compose(name, [w for w, key in zip(words, keys, strict=True) if key == "template"], True)
        own = cast(Any, first).hydra.runtime.choices
        changed = {group for group in groups() if choices.get(group) != own.get(group)} - set(RECIPES) - typed
        _take(cfg, changed, {*changed, "experiment"}, words, keys, name)
    refuse_idle(plain(cfg, resolve=False), pristine(choices.get("template")), keys)


def _take(cfg: DictConfig, parts: set[str], of: set[str], words: Sequence[str], keys: Sequence[str], name: str) -> None:
    """Put parts into a config as they are composed from the words of some groups alone."""
    if not parts:
        return
    from hydra import compose
    from omegaconf import open_dict, read_write

    alone = compose(name, [word for word, key in zip(words, keys, strict=True) if key.partition(".")[0] in of])
    with read_write(cfg), open_dict(cfg):
        for group in parts:
            if group in alone:
                cfg[group] = alone[group]
            else:
                cfg.pop(group, None)


@cache
def pristine(template: str | None) -> dict[str, Any]:
    """Return the config of a template alone, not resolved; of None an empty one."""
    if template is None:
        return {}
    from hydra import compose, initialize_config_dir

    from lightning_vision.checks import plain
    from lightning_vision.config import fresh_hydra
    from lightning_vision.searchpath import conf_dir, register_plugins

    with fresh_hydra():
        register_plugins()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return plain(compose("config", [f"template={template}"]), resolve=False)
