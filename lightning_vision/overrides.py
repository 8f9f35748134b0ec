"""Words of the command line in Hydra's grammar: what must be quoted, and how a value is written."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PATH_ENDINGS = (
    "path",
    "source",
    "report",
    "checkpoint",
    "weights",
    "dir",
    "folder",
    "class_names",
    "fill_value",
    "label_map",
    "ludwig",
)
_NUMBERS = re.compile(r"[+-]?\d+(\.\d*)?(,[+-]?\d+(\.\d*)?)*")
_OVERRIDE = re.compile(r"(?P<plus>\+{0,2})(?P<key>[A-Za-z_][\w.@/\-]*)=(?P<value>.*)", re.DOTALL)
# What Hydra's grammar reads as one plain word.
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.\-]*")
_COLOR = re.compile(r"(?<![\w'\"#])#?([0-9a-fA-F]{6})(?![\w'\"])")
_NOT_TEXT = {"true", "false", "null", "inf", "nan"}


def split(word: str) -> tuple[str, str, str] | None:
    """Split ``+key=value`` into ``+``, key and value; None if the word is no override."""
    match = _OVERRIDE.fullmatch(word)
    return (match["plus"], match["key"], match["value"]) if match else None


def override_keys(overrides: Sequence[str]) -> list[str]:
    """The dotted keys of override words: ``+data.path='x'`` names ``data.path``."""
    return [word.split("=", 1)[0].lstrip("+~").split("@")[0] for word in overrides]


def is_path_key(key: str) -> bool:
    """Tell whether the values of a key are files or folders (``data.path``, ``encoder.weights``, ``source`` ...)."""
    last = key.rpartition(".")[2]
    if last == "drop_path":  # the rate of stochastic depth
        return False
    # A loss's weights are numbers.
    return (last.endswith(_PATH_ENDINGS) or last == "pretrained_model_name_or_path") and not key.startswith("loss.")


def quote(text: str) -> str:
    """Quote text for Hydra's grammar, where it would not be read back as it is."""
    if is_plain(text):
        return text
    # Hydra unescapes only backslashes that stand before a quote.
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


def is_plain(text: str) -> bool:
    """Tell whether Hydra reads the text back as the same text."""
    if not _PLAIN.fullmatch(text) or text.lower() in _NOT_TEXT:
        return False
    try:
        float(text.replace("_", ""))
    except ValueError:
        return True
    return False


def quote_path(word: str, multirun: bool = False) -> str:
    """Quote the value of a path-like key, so that any path that a shell can pass arrives as it is.

    ``~`` is expanded. Left alone: values in quotes, ``null``, ``true``, ``false``, interpolations (``${...}``), and
    lists and mappings in brackets unless a file of that name exists. In a multirun a comma is part of the path if there
    is such a file, or if none of the pieces between the commas exists (or is ``null``): else they are swept over, also
    a missing one; ``choice(a,b)`` always sweeps.
    Doing it twice changes nothing: the processes that DDP starts do it again.

    Colours are quoted as well, ``data.colors=[#ff0000,00ff00]``: a number sign ends a word of the grammar, and
    ``001e10`` would be a number.
    """
    parts = split(word)
    if parts is not None and parts[1].rpartition(".")[2] == "colors":
        return f"{parts[0]}{parts[1]}={_COLOR.sub(_quoted_color, parts[2])}"
    if parts is None or not is_path_key(parts[1]):
        return word
    plus, key, value = parts
    # No file is meant by a truth value: encoder.saved_weights_in_checkpoint ends like a path and is none.
    if value in ("", "null", "???", "true", "false") or "${" in value or _is_quoted(value, multirun):
        return word
    if multirun and value.startswith("choice(") and value.endswith(")"):
        return word
    if key.endswith("fill_value") and _NUMBERS.fullmatch(value):
        return word  # a grey value, or several to sweep over
    path = os.path.expanduser(value)
    if (value[0] + value[-1]) in ("[]", "{}") and not os.path.exists(path):
        return word
    pieces = [os.path.expanduser(p) for p in value.split(",")]
    sweep = multirun and len(pieces) > 1 and not os.path.exists(path)
    if sweep and any(p == "null" or os.path.exists(p) for p in pieces):
        return f"{plus}{key}=" + ",".join(p if p == "null" else quote(p) for p in pieces)
    return f"{plus}{key}={quote(path)}"


_LIST_OF_NAMES = re.compile(r"\[\s*([\w.]+(?:\s*,\s*[\w.]+)*)\s*\]")
_SAID_OF_AUGMENTATION = {"false": "none", "null": "none", "true": "standard"}


def spread(word: str) -> list[str]:
    """Return the words that a word stands for.

    ``loss=[NAME,NAME]`` is a combined loss with all settings of each. ``augmentation`` may be ``false``, ``true`` or a
    list of names and of mappings with ``type`` and settings. ``outputs.NAME.KEY=VALUE`` may name a setting that was not
    given so far, for which Hydra wants plus signs. ``logger=null`` is the option ``none``.
    """
    parts = split(word)
    if parts is None:
        return [word]
    plus, key, value = parts
    if key.startswith("outputs.") and not plus:
        return [f"++{word}"]
    if key == "augmentation" and not plus:
        return _augmentation(value)
    if word == "logger=null":
        return ["logger=none"]
    names = _LIST_OF_NAMES.fullmatch(value) if key == "loss" else None
    if names is None:
        return [word]
    from lightning_vision.options import load_option

    losses = {}
    for name in (name.strip() for name in names[1].split(",")):
        losses[name] = {k: v for k, v in load_option("loss", name, "loss").items() if k != "_target_"}
    return ["loss=combined", f"+loss.losses={grammar(losses)}"]


def _augmentation(value: str) -> list[str]:
    """The words for an augmentation: its name, a truth value, or a list of transforms, of one without brackets too."""
    value = f"[{value}]" if value.startswith("{") else value
    if not value.startswith("[") and "{" not in value:
        said = [_SAID_OF_AUGMENTATION.get(v.strip("'\"").lower(), v) for v in value.split(",")]
        return [f"augmentation={','.join(said)}"]
    from lightning_vision.options import transforms

    found = transforms(value)
    if found is None:  # several lists, to sweep over
        return [f"augmentation={value}"]
    if isinstance(found, list):
        return [f"augmentation=[{','.join(found)}]"]
    return ["augmentation=none", *(f"+augmentation.{name}={grammar(node)}" for name, node in found.items())]


def _quoted_color(match: re.Match[str]) -> str:
    return f"'#{match[1]}'"


_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ONE_QUOTED = re.compile(_QUOTED, re.DOTALL)
_SWEEP_QUOTED = re.compile(rf"(?=.*['\"])(?:{_QUOTED}|{_PLAIN.pattern})(?:,(?:{_QUOTED}|{_PLAIN.pattern}))+", re.DOTALL)


def _is_quoted(value: str, multirun: bool) -> bool:
    """Tell whether the value is quoted already; in a multirun also several with commas between, one of them quoted."""
    return bool(_ONE_QUOTED.fullmatch(value)) or (multirun and bool(_SWEEP_QUOTED.fullmatch(value)))


def grammar(value: Any) -> str:
    """Write a Python value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_grammar_key(k)}:{grammar(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(grammar(v) for v in value) + "]"
    if getattr(value, "ndim", None) == 0:  # a number of NumPy or torch
        value = value.item()
    return quote(value) if isinstance(value, str) else repr(value)


def _grammar_key(key: Any) -> str:
    """Write the key of a mapping: the grammar has no quotes there, other signs are escaped one by one."""
    return re.sub(r"[\\()\[\]{}:=,\s]", r"\\\g<0>", key) if isinstance(key, str) else grammar(key)


def names_ludwig(words: Iterable[str]) -> bool:
    """Whether a config of Ludwig is named among words: ``ludwig=FILE``, see ludwig/words.py."""
    return any(word.lstrip("+").startswith("ludwig=") for word in words)


def override(key: str, value: Any) -> str:
    """Write ``key=value`` so that it can be typed into a shell and works there."""
    # A path is quoted for Hydra by quote_path; an integer's underscores are dropped where names are compared.
    as_it_is = isinstance(value, str) and value and (is_path_key(key) or re.fullmatch(r"[1-9][\d_]*", value))
    word = f"{key}={value if as_it_is else grammar(value)}"
    return for_shell(word)


def for_shell(word: str) -> str:
    """Quote a word for a shell, in double quotes if it has single ones, because that can be read."""
    return f'"{word}"' if "'" in word and not set('"$`!\\') & set(word) else shlex.quote(word)
