"""Hydra's errors in our words: its own hint for a typo is to add the typo to the config with ``+``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from lightning_vision.annotations import ANY, SAID, Kind, kind_of
from lightning_vision.checks import NEEDED, plain
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.options import load_option, unreadable_option
from lightning_vision.overrides import for_shell, override, quote, split
from lightning_vision.searchpath import default_of, groups, options_of
from lightning_vision.unknown import parameter_of, unknown_key


def translate(error: BaseException, words: Sequence[str]) -> ConfigError | None:
    """Return a ConfigError for an error that Hydra raised while it composed, None if it is none of these.

    Args:
        error: What Hydra raised.
        words: The overrides that were given.
    """
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError

    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return unreadable_option(error.problem_mark.name, error)
    if isinstance(error, UnicodeDecodeError):
        return _no_text(error, words)
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        return None
    text = str(error)
    if isinstance(error, MissingConfigException):
        return _no_option(error.missing_cfg_file or "", error.options, text, words)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.search(r"Could not override '([^'\n]+)'", text):
        return _no_key(match[1], error, words)
    if match := re.search(r"Could not append to config\. An item is already at '([^'\n]+)'", text):
        word = _word_for(match[1], words)
        return ConfigError(f"{match[1]} exists already", given=word, expected="no +", override=word.lstrip("+"))
    if match := re.search(r"Could not delete (?:from config\. )?'([^'=\n]+)", text):
        return _nothing_to_delete(match[1])
    if match := re.search(r"Ambiguous value for argument '(.+?)'\n|Sweep parameters '(.+)' requires", text, re.DOTALL):
        return _ambiguous(match[1] or match[2], words)
    if match := re.search(r"Multiple values for ([\w/]+)\.", text):
        word = _word_for(match[1], words)
        return ConfigError(
            f"{match[1]} is chosen twice", given=word, expected="one option, without +", override=word.lstrip("+")
        )
    if text.startswith("Config group override must be"):
        return _no_name_as_option(words)
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = str(error.__cause__ or "").strip().split("\n")[0]
        summary = text.strip().split("\n")[0] or cause or "The config cannot be composed"
        return ConfigError(
            summary,
            given=" ".join(words) or None,
            expected=cause if cause != summary and cause else None,
            override="python -m lightning_vision --cfg job",
        )
    return None


def _word_for(key: str, words: Sequence[str]) -> str:
    return next((w for w in reversed(words) if (s := split(w)) and s[1] == key), key)


def _no_option(missing: str, options: Sequence[str] | None, text: str, words: Sequence[str] = ()) -> ConfigError:
    group, _, name = missing.rpartition("/")
    if (first := missing.partition("/")[0]) in groups():
        group, name = first, missing.removeprefix(f"{first}/")  # a path where an option belongs
    if not group:
        return ConfigError(
            text.split("\n")[0], given=missing, expected="a config by name", override="--config-name=config"
        )
    valid = list(options or options_of(group))
    word = nearest(name, valid)
    if group == "augmentation" and name.lower() in SAID:
        word = str(SAID[name.lower()]).lower()
    option = f"{group}={word or default_of(group)}"
    if group == "callbacks" and word not in (None, default_of(group)):
        option = f"{group}=[{default_of(group)},{word}]"  # nothing would keep a checkpoint otherwise
    given = f"{group}={name}"
    typed = _word_for(group, words)
    if (parts := split(typed)) and parts[2].startswith("["):
        given = typed
        option = f"{group}=[{','.join(_mended(parts[2], name, word))}]"
    return ConfigError(
        f"{group} has no option {name!r}",
        given=given,
        expected=listed(valid),
        nearest=word,
        override=_own_data(name) or option if group == "data" else for_shell(option),
    )


def _mended(names: str, wrong: str, better: str | None) -> list[str]:
    """The names of a list with a wrong one replaced, or left out where nothing is like it."""
    given = [name.strip() for name in names.strip("[]").split(",")]
    mended = [better if name == wrong else name for name in given]
    return list(dict.fromkeys(name for name in mended if name))


def _own_data(path: str) -> str | None:
    """The words for data that were named by their path alone."""
    table = path.lower().endswith((".csv", ".tsv", ".parquet"))
    if not table and not os.path.isdir(os.path.expanduser(path)):
        return None
    return f"data={'table' if table else 'folder'} {override('data.path', path)}"


def _unreadable(word: str) -> ConfigError:
    parts = split(word)
    if parts is None:
        return ConfigError(
            f"{word!r} is neither an action nor key=value",
            given=word,
            expected="key=value, with the key in letters, digits, dots and underscores",
            override="epochs=3",
        )
    plus, key, value = parts
    return ConfigError(
        f"The value of {key} cannot be read",
        given=for_shell(word),
        expected="quotes around text with spaces, commas, brackets or other signs",
        override=for_shell(f"{plus}{key}={quote(value)}"),
    )


def _no_key(key: str, error: BaseException, words: Sequence[str]) -> ConfigError:
    value = _value(_word_for(key, words))
    root = getattr(getattr(error.__cause__, "parent_node", None), "_get_root", lambda: None)()
    tree = plain(root, resolve=False) if root is not None else {}
    if not tree:
        return ConfigError(f"There is no setting {key!r}", given=key, override="python -m lightning_vision --cfg job")
    if key.startswith("hydra.") and root is not None:
        tree = {"hydra": plain(root["hydra"], resolve=False)}
    return unknown_key(key, value, tree)


def _value(word: str) -> Any:
    """Read the value of an override as Hydra does."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        return None
    return None if parsed.is_sweep_override() else parsed.value()


def _ambiguous(word: str, words: Sequence[str]) -> ConfigError:
    """Several values without ``-m``: one run each, or a list, or text, as far as the setting takes these."""
    plus, key, value = split(word) or ("", word, "")
    many, listing = _value(f"{key}=[{value}]"), for_shell(f"{plus}{key}=[{value}]")
    kind = _kind(key, words)
    tries = [
        (all(map(kind.allows, many or ())), f"-m {for_shell(word)}"),
        (key not in groups() and kind.allows(many), listing),
        (key not in groups() and kind.allows(value), for_shell(f"{plus}{key}={quote(value)}")),
    ]
    return ConfigError(
        f"{key} got several values with commas between them",
        given=word,
        expected="one value; several, one run each, after -m",
        override=[mend for fits, mend in tries if fits] or [tries[0][1]],
    )


def _kind(key: str, words: Sequence[str]) -> Kind:
    """What a setting takes, of the options that words choose; anything where nothing says."""
    group = key.partition(".")[0]
    tree = {}
    if group in groups() and group != key:
        typed = split(_word_for(group, words))
        option = typed[2] if typed else default_of(group)
        tree = {group: load_option(group, option)} if option in options_of(group) else {}
    parameter, node = parameter_of(key, tree)
    return ANY if parameter is None else kind_of(parameter, node)


def _no_text(error: UnicodeDecodeError, words: Sequence[str]) -> ConfigError | None:
    """A chosen file is not in UTF-8; the error does not say which."""
    for _, group, option in filter(None, map(split, words)):
        file = options_of(group).get(option) if group in groups() else None
        if file is not None and error.object[:80] in file.read_bytes():
            return unreadable_option(str(file), error)
    return None


def _nothing_to_delete(key: str) -> ConfigError:
    known = groups()
    word = nearest(key, known)
    return ConfigError(
        f"There is nothing named {key!r} to leave out",
        given=f"~{key}",
        expected=f"a part ({listed(known)}) or one of its settings",
        nearest=word,
        override=f"~{word or 'logger'}",
    )


def _no_name_as_option(words: Sequence[str]) -> ConfigError:
    """Hydra takes only names: ``encoder=50_2`` is the number 502 to it, and ``callbacks=null`` no name at all."""
    known = groups()
    for word in words:
        parts = split(word)
        if parts is None or parts[1] not in known:
            continue
        if parts[2] == "null":
            option = default_of(parts[1])
            return ConfigError(
                f"{parts[1]} cannot be null; a part is left out by ~",
                given=word,
                expected=f"one of {listed(options_of(parts[1]))}",
                override=f"{parts[1]}={option}" if parts[1] in NEEDED else f"~{parts[1]}",
            )
        if parts[2].replace("_", "").replace(".", "").isdigit():
            return _no_option(f"{parts[1]}/{parts[2]}", None, "")
    return ConfigError("An option of a group must be a name", given=" ".join(words), override="encoder=stacked_cnn")
