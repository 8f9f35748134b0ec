"""The hyperparameters of a template: their bounds, the words that they know, and what they set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override, split

# In a template, beside its hyperparameters: their bounds, and what their words stand for.
RANGES, CHOICES = "ranges", "choices"
_REFERENCE = re.compile(r"\b(?:template\.|lv\.meaning:)(\w+)")
_MEANING = re.compile(r"\$\{lv\.meaning:(\w+)((?:,\w+)*)\}")


def check_template(root: Any, pristine: Mapping[str, Any], typed: Sequence[str] = ()) -> None:
    """Hold the hyperparameters of a template against the bounds and words that its file gives.

    Args:
        root: The composed config.
        pristine: That of the template alone, not resolved.
        typed: The keys that were typed.

    Raises:
        ConfigError: One is out of its bounds, off its step, no word that the template knows, or no hyperparameter.
    """
    from omegaconf import OmegaConf

    node: Any = root.get("template")
    if node is None:
        return
    template: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    default = pristine.get("template") or template
    _check_names(template, default)
    for name, words in template[CHOICES].items():
        _check_word(name, template[name], list(words))
    for name, bounds in template[RANGES].items():
        if bounds is None or (template[name] is None and default[name] is None):
            continue
        _check_bounds(f"template.{name}", template[name], bounds, default[name])
        if name in typed:  # a setting of the run with the same name, in its place
            _check_bounds(name, root[name], bounds, default[name])


def _check_names(template: Mapping[str, Any], default: Mapping[str, Any]) -> None:
    missing = [name for name in default if name not in template]
    if missing:
        raise ConfigError(
            f"template.{missing[0]} cannot be left out",
            given=f"~template.{missing[0]}",
            override=f"leave ~template.{missing[0]} out",
        )
    unknown = [name for name in template if name not in default]
    if unknown:
        names = [name for name in default if name not in (RANGES, CHOICES)]
        near = nearest(unknown[0], names)
        raise ConfigError(
            f"The template has no hyperparameter {unknown[0]!r}",
            given=override(f"template.{unknown[0]}", template[unknown[0]]),
            expected=listed(names, 40),
            nearest=near,
            override=None if near is None else override(f"template.{near}", template[unknown[0]]),
        )
    for name, bounds in (template[RANGES] if isinstance(template[RANGES], Mapping) else {RANGES: 0}).items():
        numbers: list[Any] = bounds if isinstance(bounds, list) and len(bounds) == 3 else ["none"]
        right = all(b is None or (isinstance(b, int | float) and not isinstance(b, bool)) for b in numbers)
        if bounds is not None and not (right and name in default and (numbers[2] is None or numbers[2] > 0)):
            raise ConfigError(
                "The range of a hyperparameter is its minimum, maximum and step, each of which may be null.",
                given=f"template.{RANGES}.{name}={bounds}",
                override=f"template.{RANGES}.{name}=null",
            )
    if template[CHOICES] != default[CHOICES]:
        raise ConfigError(
            "What the words of a template stand for is not a setting.",
            given=f"template.{CHOICES}",
            override="--config-dir FOLDER, with a template of your own in FOLDER/template/",
        )


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


def _check_bounds(key: str, value: Any, bounds: Sequence[Any], default: Any) -> None:
    low, high, step = bounds
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    if all(_fits(number, low, high, step) for number in values):
        return
    words = [f"of at least {low}" if low is not None else "", f"of at most {high}" if high is not None else ""]
    text = " and ".join(word for word in words if word)
    proposal = _nearest_fit(values[0] if values else None, low, high, step, default)
    raise ConfigError(
        f"{key} is not in the template's range",
        given=override(key, value),
        expected=f"a number {text}{f', in steps of {step} from {low or 0}' if step else ''}",
        override=[override(key, proposal), f"template.{RANGES}.{key.split('.')[-1]}=null"],
    )


def _fits(value: Any, low: float | None, high: float | None, step: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    inside = (low is None or value >= low) and (high is None or value <= high)
    steps = 0.0 if step is None else (value - (low or 0)) / step
    return inside and math.isclose(steps, round(steps), abs_tol=1e-9)


def _nearest_fit(value: Any, low: float | None, high: float | None, step: float | None, default: Any) -> Any:
    """The valid number nearest to what was meant; below a minimum of 0, or where none was meant, the default."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    if not math.isfinite(number) or (number < (low or 0) and low == 0) or isinstance(value, bool):
        return default
    within = min(max(number, -math.inf if low is None else low), math.inf if high is None else high)
    if step is not None:
        within = round((low or 0) + round((within - (low or 0)) / step) * step, 12)
    return int(within) if within == int(within) and isinstance(default, int | None) else within


def refuse_idle(raw: Mapping[str, Any], pristine: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise ConfigError for a typed hyperparameter of a template that nothing takes any more.

    Args:
        raw: The config, not resolved.
        pristine: That of the template alone.
        keys: The keys that were typed.
    """
    template = pristine.get("template") or {}  # other names, and choices that were changed, are refused later
    choices = template.get(CHOICES) or {}
    # The learning rate at the root is there for the parts that refer to it.
    parts = {key: node for key, node in raw.items() if key not in ("template", "hydra", "lr")}
    parts |= {"lr": raw["lr"]} if any("${lr}" in text for text in texts(parts)) else {}
    used = set(_references(parts))
    for name in list(used):  # what a choice stands for may refer to others
        used |= set(_references(choices.get(name)))
    for key in keys:
        head, _, name = key.partition(".")
        if head != "template" or name not in template or name in used or name in (RANGES, CHOICES):
            continue
        # Through a choice, the one may set what the other one does.
        through = [n for n, node in choices.items() if name in _references(node)]
        set_by_it = [k for k, text in _leaves(pristine) if {name, *through} & set(_references(text))]
        instead = [k for k in keys if any(place == k or place.startswith(f"{k}.") for place in set_by_it)]
        raise ConfigError(
            f"{key} has no effect here.",
            given=f"{key}, which sets {listed(set_by_it)}, and {listed(instead) or 'other parts'}",
            expected="the one or the other",
            override=f"leave {key} out",
        )


def point_to_template(error: ConfigError, raw: Mapping[str, Any], pristine: Mapping[str, Any]) -> None:
    """Let the overrides of an error name the hyperparameters that a wrong setting was worked out from."""
    default, template = pristine.get("template") or {}, raw.get("template") or {}
    pointed: list[str] = []
    for text in error.overrides:
        parts = split(text.strip("'\""))
        written = None if parts is None else _at(raw, parts[1])
        words = _word_for(written, parts[2], template) if parts else None
        names = sorted({name for t in texts(written) for name in _references(t)} & set(default))
        changed = [override(f"template.{n}", default[n]) for n in names if default[n] != template.get(n)]
        pointed += [words] if words else changed or [text]
    error.overrides[:] = list(dict.fromkeys(pointed))


def _word_for(written: Any, value: str, template: Mapping[str, Any]) -> str | None:
    """The word of a choice that stands for a value."""
    match = _MEANING.fullmatch(written) if isinstance(written, str) else None
    if match is None:
        return None
    name, keys = match[1], [key for key in match[2].split(",") if key]
    for word, node in template[CHOICES][name].items():
        for key in keys:
            node = node[key]
        if str(node) == value:
            return f"template.{name}={word}"
    return None


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and text of every setting outside of the template."""
    for name, inner in node.items():
        full = f"{key}.{name}" if key else str(name)
        if isinstance(inner, Mapping) and full not in ("template", "hydra"):
            yield from _leaves(inner, full)
        elif isinstance(inner, str):
            yield full, inner


def _references(node: Any) -> list[str]:
    return [name for text in texts(node) for name in _REFERENCE.findall(text)]


def texts(node: Any) -> Iterator[str]:
    """All texts below a node of a plain config."""
    if isinstance(node, str):
        yield node
    for inner in node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ():
        yield from texts(inner)
