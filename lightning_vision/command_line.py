"""The words of the command line: the action, Hydra's options, and overrides with their paths quoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_vision.config import ACTIONS
from lightning_vision.errors import ConfigError, nearest
from lightning_vision.listing import LISTINGS
from lightning_vision.overrides import names_ludwig, quote_path, spread

if TYPE_CHECKING:
    from lightning_vision.ludwig.words import Replaced

# Hydra's options that take the next word as their value.
_VALUED = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
_VALUED |= {"--experimental-rerun"}
_INFO = ("--info", "-i")
_INFO_VALUES = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
_RESUME = "sweep.resume="
_LONG = {"--help": "-h", "--multirun": "-m", "--config-name": "-cn", "--config-dir": "-cd", "--config-path": "-cp"}


@dataclass
class CommandLine:
    """What was typed, sorted.

    Args:
        words: The words for Hydra: options, and overrides with paths quoted and ``action=...`` at the end. Reading
            them again gives the same words, which the processes that DDP starts rely on.
        overrides: The overrides alone.
        action: The action that was typed as a bare word, or None.
        options: Hydra's options by short name, with their values ("" for those without).
        ludwig: What stands in the place of ``ludwig=FILE``; the words have it already. None: no such file was named.
    """

    words: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    action: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    ludwig: Replaced | None = None

    @property
    def multirun(self) -> bool:
        """Whether a sweep was asked for."""
        return "-m" in self.options or any(w.replace("'", "") == "hydra.mode=MULTIRUN" for w in self.overrides)

    @property
    def config_dirs(self) -> list[Path]:
        """Folders of configs that ``--config-dir`` adds."""
        return [Path(self.options["-cd"]).absolute()] if "-cd" in self.options else []


def read(argv: Sequence[str]) -> CommandLine:
    """Sort the words after the program's name.

    The first bare word that is not the value of an option is the action; ``cache=...`` stands for the action ``cache``.

    Raises:
        ConfigError: A bare word is no action, or a second one follows, or a config of Ludwig cannot be translated.
    """
    line = CommandLine()
    if any(w in ("-sc", "--shell-completion") for w in argv):  # words of an unfinished line: leave them alone
        return CommandLine(words=list(argv), options={"-sc": ""})
    if names_ludwig(argv):
        from lightning_vision.ludwig.words import replace

        line.ludwig = replace(argv)
        argv = line.ludwig.words
    multirun = any(w in ("-m", "--multirun") for w in argv)
    if any(word.startswith(_RESUME) for word in argv):
        from lightning_vision.sweeps.resume import resumed

        argv = resumed(argv, _RESUME)
    rest = iter(range(len(argv)))
    for i in rest:
        word = argv[i]
        following = argv[i + 1] if i + 1 < len(argv) else None
        if word.startswith("-") and len(word) > 1:
            name, has_value, value = word.partition("=")
            line.words.append(word)
            takes = name in _VALUED or (name in _INFO and following in _INFO_VALUES)
            if takes and not has_value and following is not None:
                value = following
                line.words.append(value)
                next(rest)
            line.options[_LONG.get(name, name)] = value
        elif "=" in word or word.startswith("~"):
            for meant in spread(quote_path(word, multirun)):
                line.overrides.append(meant)
                line.words.append(meant)
        elif line.action is None:
            line.action = _action(word)
        else:
            raise ConfigError(
                f"There is more than one action: {line.action} and {word}",
                given=word,
                expected="one action, and overrides of the form key=value",
                override=f"python -m lightning_vision {line.action}",
            )
    _force_hyperparameters(line)
    keys = {word.partition("=")[0] for word in line.overrides}
    if line.action is None and "cache" in keys and "action" not in keys:
        line.action = "cache"  # cache=list: nothing else is meant
    if line.action in ACTIONS:
        line.overrides.append(f"action={line.action}")
        line.words.append(line.overrides[-1])
    return line


def _force_hyperparameters(line: CommandLine) -> None:
    """Where templates are swept over, Hydra first composes without any of them: their settings must be forced in."""
    swept = any(word.startswith("template=") and "," in word for word in line.overrides)
    if not (line.multirun and swept):
        return
    for words in (line.words, line.overrides):
        words[:] = [f"++{word}" if word.startswith("template.") else word for word in words]


def _action(word: str) -> str:
    valid = (*ACTIONS, *LISTINGS)
    if word in valid:
        return word
    close = nearest(word, valid)
    raise ConfigError(
        f"There is no action {word!r}",
        given=word,
        expected=f"{', '.join(valid)}, and overrides of the form key=value",
        nearest=close,
        override=f"python -m lightning_vision {close or 'fit'}",
    )
