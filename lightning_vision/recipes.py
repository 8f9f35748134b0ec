"""Templates and experiments: many settings at once, from one YAML file, that anything typed beside them overrides."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override, split
from lightning_vision.searchpath import groups

if TYPE_CHECKING:
    from omegaconf import DictConfig

RECIPES = ("template", "experiment")
# In a template, beside its hyperparameters: their bounds, and what their words stand for.
RANGES, CHOICES = "ranges", "choices"
_REFERENCE = re.compile(r"\b(?:template\.|meaning:)(\w+)")


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
    from omegaconf import open_dict, read_write

    keys = [_key(word) for word in words]
    typed = (set(keys) & set(groups())) - set(RECIPES)
    if all(choices.get(recipe) for recipe in RECIPES) and "experiment" in keys:
        # The experiment's parts are chosen after the template's, as if they were typed.
        first = compose(name, [w for w, key in zip(words, keys, strict=True) if key == "template"], True)
        own_choices = first.hydra.runtime.choices
        typed |= {group for group in groups() if choices.get(group) != own_choices.get(group)} - set(RECIPES)
    if typed:
        kept = {*typed, "experiment"} if "template" in keys else typed
        own = [word for word, key in zip(words, keys, strict=True) if key.partition(".")[0] in kept]
        alone = compose(name, own)
        with read_write(cfg), open_dict(cfg):
            for group in typed & set(alone):
                cfg[group] = alone[group]
    _refuse_idle(cfg, keys)


def point_to_template(error: ConfigError, cfg: Any, choices: Mapping[str, Any]) -> None:
    """Let the overrides of an error name the hyperparameters that a wrong setting was worked out from."""
    from omegaconf import OmegaConf

    from lightning_vision.config import composed

    template = choices.get("template")
    if not template or not OmegaConf.is_config(cfg):
        return
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    keys = [parts[1] for text in error.overrides if (parts := split(text.strip("'\"")))]
    names = {name for key in keys for text in _texts(_at(raw, key)) for name in _REFERENCE.findall(text)}
    if not names:
        return
    default = composed([f"template={template}"]).template
    changed = [name for name in sorted(names) if name in default and default[name] != raw["template"].get(name)]
    if changed:
        error.overrides[:] = [override(f"template.{name}", default[name]) for name in changed]


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _key(word: str) -> str:
    parts = split(word.lstrip("~"))
    return parts[1] if parts else word.lstrip("~")


def _refuse_idle(cfg: DictConfig, keys: Sequence[str]) -> None:
    """Raise ConfigError for a typed hyperparameter of a template that has no effect."""
    from omegaconf import OmegaConf

    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    template = raw.pop("template", None) or {}
    raw.pop("hydra", None)
    used = {name for text in _texts(raw) for name in _REFERENCE.findall(text)}
    for name in list(used):  # what a choice stands for may refer to others
        used |= {n for text in _texts(template.get(CHOICES, {}).get(name)) for n in _REFERENCE.findall(text)}
    idle = [key for key in keys if key.startswith("template.") and (name := key.split(".")[1]) in template]
    for key in idle:
        name = key.split(".")[1]
        if name not in used and name not in (RANGES, CHOICES):
            raise ConfigError(
                f"{key} has no effect: what it sets was chosen in another way.",
                given=", ".join(sorted({k.partition(".")[0] for k in keys} - {"template", "hydra", "action"})),
                expected="the template's own part or setting, or that of the part alone",
                override=f"leave {key} out",
            )


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _texts(inner)


def check_template(cfg: Any) -> None:
    """Hold the hyperparameters of a template against the bounds and words that its file gives.

    Raises:
        ConfigError: One is out of its bounds, off its step, or no word that the template knows.
    """
    from omegaconf import OmegaConf

    node: Any = cfg.get("template")
    if node is None:
        return
    template: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    for name, words in (template.get(CHOICES) or {}).items():
        _check_word(name, template[name], list(words))
    for name, bounds in (template.get(RANGES) or {}).items():
        if bounds is None:
            continue
        _check_bounds(f"template.{name}", template[name], *bounds)
        if name in cfg:  # a setting of the run with the same name may have been given in its place
            _check_bounds(name, cfg[name], *bounds)


def _check_word(name: str, value: Any, words: list[str]) -> None:
    if str(value) in words:
        return
    near = nearest(str(value), words)
    raise ConfigError(
        f"template.{name} cannot be {value!r}",
        given=override(f"template.{name}", value),
        expected=f"one of {listed(words)}",
        nearest=near,
        override=f"template.{name}={near or words[0]}",
    )


def _check_bounds(key: str, value: Any, low: float | None, high: float | None, step: float | None) -> None:
    if value is None:
        return
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    if all(_fits(number, low, high, step) for number in values):
        return
    origin = low if low is not None else 0
    words = [f"of at least {low}" if low is not None else "", f"of at most {high}" if high is not None else ""]
    text = " and ".join(word for word in words if word)
    raise ConfigError(
        f"{key} is not in the template's range",
        given=override(key, value),
        expected=f"a number {text}{f', in steps of {step} from {origin}' if step else ''}",
        override=[
            override(key, _nearest_fit(values[0], low, high, step)),
            f"template.ranges.{key.split('.')[-1]}=null",
        ],
    )


def _fits(value: Any, low: float | None, high: float | None, step: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    inside = (low is None or value >= low) and (high is None or value <= high)
    steps = 0.0 if step is None else (value - (low or 0)) / step
    return inside and math.isclose(steps, round(steps), abs_tol=1e-9)


def _nearest_fit(value: Any, low: float | None, high: float | None, step: float | None) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return low or 0
    within = min(max(value, -math.inf if low is None else low), math.inf if high is None else high)
    if step is None:
        return within
    fit = (low or 0) + round((within - (low or 0)) / step) * step
    return fit if isinstance(fit, int) else round(fit, 12)
