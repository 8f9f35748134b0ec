"""``ludwig=FILE`` among the words of a command line: replaced by the words that the file stands for."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning_vision.errors import ConfigError, VisionError
from lightning_vision.ludwig.config import translate_config
from lightning_vision.ludwig.translation import Translation, plain
from lightning_vision.ludwig.yaml_file import read
from lightning_vision.options import load_option
from lightning_vision.overrides import for_shell, grammar, names_ludwig, override, split
from lightning_vision.searchpath import groups, options_of

# What goes with a choice, and is dropped where another one is typed.
_WITH = {
    "decoder": ("task", "data.num_classes"),
    "outputs": ("decoder", "loss", "neck", "task", "data.target", "data.num_classes"),
    "preprocessing.height": ("image_size",),
    "preprocessing.width": ("image_size",),
}
# Values from Python that a command line can have.
_WRITTEN = (str, int, float, list, tuple, Mapping)


@dataclass
class Replaced:
    """Words in which the file's name was replaced.

    Args:
        words: The words; those of the file stand where its name stood.
        path: The file, None if none was named.
        report: What to print: the words as a command that can be copied, and what has no counterpart.
        origins: Where in the file each of our keys came from.
    """

    words: list[str]
    path: str | None = None
    report: str = ""
    origins: dict[str, str] = field(default_factory=dict)

    def show(self, aside: bool = False) -> None:
        """Print the report, aside to standard error where the output is for a program."""
        if self.report:
            print(self.report, file=sys.stderr if aside else sys.stdout, flush=True)

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Let an error about a key that the file said name its place in the file."""
        try:
            yield
        except VisionError as error:
            text = f"{error.summary} {error.given or ''}"
            about = max((key for key in self.origins if key in text), key=len, default=None)
            if about is None:
                raise
            place = f"{self.origins[about]} in {self.path}"
            told = ConfigError(
                error.summary,
                given=place if error.given is None else f"{error.given} ({place})",
                expected=error.expected,
                nearest=error.nearest,
                override=error.overrides,
            )
            raise told from error


def replace(words: Sequence[str], values: Mapping[str, Any] | None = None, unread: Collection[str] = ()) -> Replaced:
    """Replace ``ludwig=FILE`` by the words that the file stands for.

    What is typed beside it wins, whatever the order: a part that is typed replaces the file's with all its settings.

    Args:
        words: Words as they were typed.
        values: Values by dotted key, from Python.
        unread: Further keys that the file has no say in.

    Raises:
        ConfigError: The file cannot be read, or describes something else than a model of images.
    """
    named = [word for word in words if names_ludwig([word])]
    if not named:
        return Replaced(list(words))
    if len(named) > 1:
        raise ConfigError("One Ludwig config at a time", given=" ".join(map(for_shell, named)), override=named[0])
    path = _unquoted(named[0].partition("=")[2])
    others = [word for word in words if word != named[0]]
    typed = {parts[1]: parts[2] for word in others if (parts := split(word.lstrip("~"))) is not None}
    for key, value in (values or {}).items():
        if key in groups() and isinstance(value, Mapping):  # settings of a part, by name
            typed |= {f"{key}.{name}": "" for name in value}
        else:
            typed[key] = str(value)
    t = Translation(typed=frozenset(typed))
    translate_config(read(path), t)
    if "data" not in typed and ("data.path" in typed or any(key.startswith("data.") for key in t.settings)):
        t.settings = {"data": "table"} | t.settings
    kept, dropped = _kept(t.settings, typed, unread)
    if "checkpoint" in typed and {"test", "predict", "action=test", "action=predict"} & set(others):
        for key in [key for key in kept if key.lstrip("+~").split(".")[0] not in ("data", "batch_size", "trainer")]:
            del kept[key]
            dropped[key] = "it is that of the checkpoint"
    found = [(key, _word(key, value)) for key, value in kept.items()]
    first = list(words).index(named[0])
    result = [*words[:first], *(word for _, word in found), *words[first + 1 :]]
    shell = [override(key, value) if key[0] != "~" else for_shell(key) for key, value in kept.items()]
    more = [override(key, plain(value)) for key, value in (values or {}).items() if isinstance(value, _WRITTEN)]
    report = _report(path, [*shell, *map(for_shell, others), *more], t.notes, dropped)
    return Replaced(result, path, report, {key.lstrip("+~"): place for key, place in t.origins.items()})


def _unquoted(text: str) -> str:
    """A path as it was typed, without the quotes of Hydra's grammar."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and not os.path.exists(text):
        return text[1:-1].replace(f"\\{text[0]}", text[0])
    return text


def _word(key: str, value: Any) -> str:
    return key if key[0] == "~" else f"{key}={grammar(value)}"


def _kept(
    settings: Mapping[str, Any], typed: Mapping[str, str], unread: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that nothing typed decides, and why the others are left out."""
    known = groups()
    # Naming the option that the file names changes nothing.
    changing = {key: name for key, name in typed.items() if key not in known or settings.get(key) != name}
    kept, dropped = {}, {}
    for full, value in settings.items():
        key = full.lstrip("+~")
        by = next((other for other in typed if _decides(other, key, value, changing)), None)
        if by is None and key not in unread:
            kept[full] = value
        elif by != key:
            dropped[full] = f"{by or 'data'} is given"
    return kept, dropped


def _decides(other: str, key: str, value: Any, changing: Mapping[str, str]) -> bool:
    """Whether a typed key decides a key of the file."""
    if other == key or (value is None and other.startswith(f"{key}.")):  # the latter is taken out by the file
        return True
    if other not in changing:
        return False
    if other == "data" and key.startswith("data."):
        # Other sources have columns too.
        name = changing[other]
        return name in options_of("data") and key.partition(".")[2] not in load_option("data", name)
    return bool({key, key.split(".")[0]} & set(_WITH.get(other, ()))) or key.startswith(f"{other}.")


def _report(path: str, command: Sequence[str], notes: Mapping[str, str], dropped: Mapping[str, str]) -> str:
    lines = [f"{path} in words of this package:", "  " + " \\\n    ".join(_wrapped(command))]
    if dropped:
        lines += ["Left out of it:", *(f"  {key}: {reason}" for key, reason in dropped.items())]
    if notes:
        lines += ["Without a counterpart:", *(f"  {key}: {reason}" for key, reason in notes.items())]
    return "\n".join(lines)


def _wrapped(words: Sequence[str], width: int = 112) -> list[str]:
    lines = ["python -m lightning_vision"]
    for word in words:
        if len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
