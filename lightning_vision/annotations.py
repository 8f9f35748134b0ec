"""A value of the config against the annotation of the argument that it goes to, without importing the class."""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override
from lightning_vision.signatures import COMPUTED, REQUIRED, Module, Parameter, dotted, find, literal
from lightning_vision.types import Below, Between

# What people type for a truth value, which YAML no longer takes for one.
SAID = {"yes": True, "y": True, "on": True, "no": False, "n": False, "off": False}
_LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "set", "frozenset"}
_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping"}


@dataclass(frozen=True)
class Kind:
    """The values that an annotation allows.

    Args:
        text: How a message names them, such as ``a number from 0 to 1``.
        allows: Whether a value is one of them.
        example: One of them, or None if there is no telling.
        options: The valid words, where they can be listed.
    """

    text: str
    allows: Callable[[Any], bool]
    example: Any = None
    options: tuple[Any, ...] = ()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


ANY = Kind("any value", lambda _: True)
NULL = Kind("null", lambda v: v is None)
_SIMPLE: dict[str, Kind] = {
    "int": Kind("an integer", lambda v: isinstance(v, int) and not isinstance(v, bool), 1),
    "float": Kind("a number", _number, 1.0),
    "bool": Kind("true or false", lambda v: isinstance(v, bool), True),
    # Hydra reads 50_2 as the integer 502, so that numbers must do where text is wanted.
    "str": Kind("text", lambda v: isinstance(v, str) or _number(v), "TEXT"),
    "Path": Kind("a path", lambda v: isinstance(v, str) or _number(v), "PATH"),
    "None": NULL,
} | {name: Kind("a list", lambda v: isinstance(v, list | tuple), []) for name in (*_LISTS, "tuple", "Tuple")}
_SIMPLE |= {name: Kind("a mapping", lambda v: isinstance(v, Mapping), {}) for name in _MAPPINGS}


def kind_of(parameter: Parameter, node: Mapping[str, Any]) -> Kind:
    """Return what an argument allows; ``node`` is its whole config node, which option functions read."""
    if parameter.annotation is None:
        return ANY
    return _build(parameter.annotation, parameter.module, node, 0)


def _build(expr: ast.expr, module: Module, node: Mapping[str, Any], depth: int) -> Kind:
    if depth > 20:
        return ANY
    if isinstance(expr, ast.Constant):
        if expr.value is None:
            return NULL
        if isinstance(expr.value, str):
            return _build(ast.parse(expr.value, mode="eval").body, module, node, depth + 1)
        return ANY
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, ast.BitOr):
        return _union([_build(e, module, node, depth + 1) for e in _alternatives(expr)])
    if isinstance(expr, ast.Subscript):
        return _subscript(expr, module, node, depth)
    name = dotted(expr).rpartition(".")[2]
    if name in _SIMPLE:
        return _SIMPLE[name]
    alias = _alias(expr, module)
    return _build(alias[1], alias[0], node, depth + 1) if alias else ANY


def _alternatives(expr: ast.expr) -> list[ast.expr]:
    """Return the members of ``a | b | c``, which Python nests."""
    if isinstance(expr, ast.BinOp) and isinstance(expr.op, ast.BitOr):
        return [*_alternatives(expr.left), *_alternatives(expr.right)]
    return [expr]


def _alias(expr: ast.expr, module: Module) -> tuple[Module, ast.expr] | None:
    """Return what ``Name = Literal[...]`` stands for, here or in the module that it is imported from."""
    found = find(module, expr)
    if found is None or not isinstance(found[1], ast.Assign | ast.AnnAssign) or found[1].value is None:
        return None
    return found[0], found[1].value


def _subscript(expr: ast.Subscript, module: Module, node: Mapping[str, Any], depth: int) -> Kind:
    name = dotted(expr.value).rpartition(".")[2]
    inner = list(expr.slice.elts) if isinstance(expr.slice, ast.Tuple) else [expr.slice]
    if name == "Literal":
        return _one_of([literal(e, module) for e in inner])
    if name == "Annotated":
        kind = _build(inner[0], module, node, depth + 1)
        for note in inner[1:]:
            kind = _narrow(kind, note, module, node)
        return kind
    if name in ("Optional", "Union"):
        kinds = [_build(e, module, node, depth + 1) for e in inner]
        return _union([*kinds, NULL] if name == "Optional" else kinds)
    if name in _LISTS:
        return _list_of(_build(inner[0], module, node, depth + 1))
    if name in ("tuple", "Tuple"):
        if len(inner) == 2 and isinstance(inner[1], ast.Constant) and inner[1].value is ...:
            return _list_of(_build(inner[0], module, node, depth + 1))
        return _exactly([_build(e, module, node, depth + 1) for e in inner])
    if name in _MAPPINGS and len(inner) == 2:
        return _mapping(*(_build(e, module, node, depth + 1) for e in inner))
    return ANY


def _union(kinds: list[Kind]) -> Kind:
    if any(k is ANY for k in kinds):
        return ANY
    kinds = sorted(kinds, key=lambda k: k is NULL)  # null last, as one says it
    example = next((k.example for k in kinds if k.example is not None), None)
    options = tuple(o for k in kinds for o in k.options)
    texts = list(dict.fromkeys(k.text for k in kinds))
    text = ", ".join(texts[:-1]) + (", or " if len(texts) > 2 else " or ") + texts[-1] if len(texts) > 1 else texts[0]
    return Kind(text, lambda v: any(k.allows(v) for k in kinds), example, options)


def _list_of(kind: Kind) -> Kind:
    if kind is ANY:
        return _SIMPLE["list"]
    example = [] if kind.example is None else [kind.example]
    return Kind(
        f"a list (each {kind.text})",
        lambda v: isinstance(v, list | tuple) and all(kind.allows(x) for x in v),
        example,
    )


def _exactly(kinds: list[Kind]) -> Kind:
    same = len({k.text for k in kinds}) == 1
    inside = f"each {kinds[0].text}" if same else ", ".join(k.text for k in kinds)

    def allows(value: Any) -> bool:
        right_size = isinstance(value, list | tuple) and len(value) == len(kinds)
        return right_size and all(k.allows(v) for k, v in zip(kinds, value, strict=True))

    return Kind(f"a list of {len(kinds)} ({inside})", allows, [k.example for k in kinds])


def _mapping(keys: Kind, values: Kind) -> Kind:
    def allows(value: Any) -> bool:
        return isinstance(value, Mapping) and all(keys.allows(k) and values.allows(v) for k, v in value.items())

    return Kind("a mapping" if values is ANY else f"a mapping to {values.text}", allows, {})


def spelled(word: object) -> str:
    """Spell a word as it is compared: Hydra drops underscores between digits, and 0_5 may be typed as 0.5."""
    return str(word).replace("_", "").replace(".", "")


def _one_of(options: Sequence[Any]) -> Kind:
    if COMPUTED in options:
        return ANY
    words = {spelled(o) for o in options if isinstance(o, str)}
    exact = [o for o in options if not isinstance(o, str)]

    def allows(value: Any) -> bool:
        if (isinstance(value, str) or _number(value)) and spelled(value) in words:
            return True
        return any(value == o and type(value) is type(o) for o in exact)

    shown = listed("null" if o is None else str(o).lower() if isinstance(o, bool) else o for o in options)
    example = next((o for o in options if o is not None), None)
    return Kind(f"one of {shown}", allows, example, tuple(o for o in options if isinstance(o, str)))


def _narrow(kind: Kind, note: ast.expr, module: Module, node: Mapping[str, Any]) -> Kind:
    """Apply one note of ``Annotated``: a range, another argument, or options from a function."""
    if not isinstance(note, ast.Call):
        alias = _alias(note, module)
        return _narrow(kind, alias[1], alias[0], node) if alias and isinstance(alias[1], ast.Call) else kind
    name = dotted(note.func).rpartition(".")[2]
    arguments = [literal(a, module) for a in note.args]
    named = {k.arg: literal(k.value, module) for k in note.keywords if k.arg}
    if COMPUTED in [*arguments, *named.values()]:
        return kind
    if name == "Between":
        return _ranged(kind, Between(*arguments, **named))
    if name == "Below":
        return _below(kind, Below(*arguments, **named), node)
    if name == "Ordered":
        return _in_order(kind)
    if name == "Odd":
        return _odd(kind)
    if name == "OptionsFrom":
        where, _, function = str([*arguments, *named.values()][0]).rpartition(".")
        options = tuple(getattr(importlib.import_module(where), function)(dict(node)))
        return _one_of(options) if options else kind
    return kind


def _ranged(kind: Kind, bounds: Between) -> Kind:
    low, high = bounds.low, bounds.high

    def inside(value: Any) -> bool:
        if not _number(value) or not math.isfinite(value):
            return False
        above = low is None or (value > low if bounds.low_open else value >= low)
        return above and (high is None or (value < high if bounds.high_open else value <= high))

    words = []
    if low is not None and high is not None and not bounds.low_open and not bounds.high_open:
        words.append(f"from {low} to {high}")
    else:
        if low is not None:
            words.append(f"greater than {low}" if bounds.low_open else f"of at least {low}")
        if high is not None:
            words.append(f"less than {high}" if bounds.high_open else f"of at most {high}")
    middle = (low or 0) + 1 if high is None else high - 1 if low is None else (low + high) / 2
    example = next((x for x in (low, high, middle) if x is not None and kind.allows(x) and inside(x)), None)

    def allows(value: Any) -> bool:
        return kind.allows(value) and (value is None or isinstance(value, str) or inside(value))

    return Kind(f"{kind.text} {' and '.join(words)}" if words else kind.text, allows, example, kind.options)


def _below(kind: Kind, bound: Below, node: Mapping[str, Any]) -> Kind:
    """A number less than another setting's; what is wrong with the other one is said of itself."""
    limit: Any = node.get(bound.other)
    if not _number(limit):
        return kind

    def allows(value: Any) -> bool:
        return kind.allows(value) and (not _number(value) or value < limit or (bound.or_equal and value == limit))

    example = next((x for x in (kind.example, limit / 2, limit - 1) if x is not None and allows(x)), None)
    if example is None:  # nothing goes with the other one, so that it is wrong
        return kind
    less = "of at most" if bound.or_equal else "less than"
    return Kind(f"{kind.text} and {less} {bound.other} ({limit})", allows, example, kind.options)


def _in_order(kind: Kind) -> Kind:
    """Numbers in rising order."""

    def allows(value: Any) -> bool:
        return kind.allows(value) and all(before <= after for before, after in pairwise(value))

    return Kind(f"{kind.text} in rising order", allows, kind.example, kind.options)


def _odd(kind: Kind) -> Kind:
    def allows(value: Any) -> bool:
        return kind.allows(value) and (not _number(value) or value % 2 == 1)

    text = kind.text.replace("an integer", "an odd integer", 1)
    return Kind(text, allows, kind.example if allows(kind.example) else None, kind.options)


def suggestion(kind: Kind, value: Any, default: Any) -> Any:
    """Return a value that works, as near as possible to what was meant; COMPUTED if there is none to be had."""
    candidates: list[Any] = []
    if isinstance(value, str):
        if value.lower() in SAID:
            candidates.append(SAID[value.lower()])
        with suppress(ValueError, SyntaxError):  # a word, not a number in quotes
            candidates.append(ast.literal_eval(value.capitalize() if value.lower() in ("true", "false") else value))
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        candidates.append(int(value))
    if isinstance(value, list | tuple) and all(_number(v) for v in value):
        candidates.append(sorted(value))
    if isinstance(value, list | tuple) and len(value) == 1:
        candidates.append(value[0])
    elif not isinstance(value, list | tuple | Mapping) and value is not None:
        candidates.append([value])
    if (word := nearest(str(value), map(str, kind.options))) is not None:
        candidates.append(word)
    if default is not REQUIRED and default is not COMPUTED:
        candidates.append(list(default) if isinstance(default, tuple) else default)
    candidates.append(kind.example)
    return next((c for c in candidates if kind.allows(c) and c not in ([], {})), COMPUTED)


def check_value(key: str, value: Any, parameter: Parameter, node: Mapping[str, Any]) -> None:
    """Refuse a value that an argument does not allow.

    Args:
        key: The setting, for the message.
        value: Its value.
        parameter: The argument that it goes to.
        node: The whole config node, which option functions read.

    Raises:
        ConfigError: The message ends with the nearest value that is allowed.
    """
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
