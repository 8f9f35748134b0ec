"""Hydra's errors in our words: its own hint for a typo is to add the typo to the config with ``+``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from lightning_vision.checks import plain, unknown_key
from lightning_vision.config import groups, options_of
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import quote, split


def translate(error: BaseException, words: Sequence[str]) -> ConfigError | None:
    """Return a ConfigError for an error that Hydra raised while it composed, None if it is none of these.

    Args:
        error: What Hydra raised.
        words: The overrides that were given.
    """
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException

    text = str(error)
    if isinstance(error, MissingConfigException):
        return _no_option(error.missing_cfg_file or "", error.options, text)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if match := re.search(r"Could not (?:override|append to config|delete from config\.?) '?([^'\n]+?)'?[.\s]", text):
        return _no_key(match[1], error, words)
    if match := re.search(r"Ambiguous value for argument '(.+)'\n", text, re.DOTALL):
        return _ambiguous(match[1])
    if match := re.search(r"Multiple values for ([\w/]+)\.", text):
        word = _word_for(match[1], words)
        return ConfigError(
            f"{match[1]} is chosen twice", given=word, expected="one option, without +", override=word.lstrip("+")
        )
    if match := re.search(r"Could not delete '([^'=]+)", text):
        known = groups()
        return ConfigError(
            f"There is nothing named {match[1]!r} to leave out",
            given=f"~{match[1]}",
            expected=listed(known),
            nearest=nearest(match[1], known),
            override=f"~{nearest(match[1], known) or 'logger'}",
        )
    if isinstance(error, ValueError) and text.startswith("Config group override must be"):
        return _number_as_option(words)
    if isinstance(error, ConfigCompositionException | HydraException):
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


def _no_option(missing: str, options: Sequence[str] | None, text: str) -> ConfigError:
    group, _, name = missing.rpartition("/")
    if not group:
        return ConfigError(text.split("\n")[0], given=missing, expected="a config by name", override="--config-name=config")
    valid = list(options or options_of(group))
    word = nearest(name, valid)
    return ConfigError(
        f"{group} has no option {name!r}",
        given=f"{group}={name}",
        expected=listed(valid),
        nearest=word,
        override=f"{group}={word or (valid or ['OPTION'])[0]}",
    )


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
        given=shlex.quote(word),
        expected="quotes around text with spaces, commas, brackets or other signs",
        override=shlex.quote(f"{plus}{key}={quote(value)}"),
    )


def _no_key(key: str, error: BaseException, words: Sequence[str]) -> ConfigError:
    value = _value(_word_for(key, words))
    root = getattr(getattr(error.__cause__, "parent_node", None), "_get_root", lambda: None)()
    tree = plain(root, resolve=False) if root is not None else {}
    if not tree:
        return ConfigError(f"There is no setting {key!r}", given=key, override="python -m lightning_vision --cfg job")
    if key.startswith("hydra."):
        tree = {"hydra": {name: None for name in root.get("hydra", {})}}
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


def _ambiguous(word: str) -> ConfigError:
    plus, key, value = split(word) or ("", word, "")
    many = f"-m {shlex.quote(word)}"
    one = shlex.quote(f"{plus}{key}=[{value}]")
    return ConfigError(
        f"{key} got several values with commas between them",
        given=word,
        expected="one value; several, one run each, after -m",
        override=[many] if key in groups() else [one, many, shlex.quote(f"{plus}{key}={quote(value)}")],
    )


def _number_as_option(words: Sequence[str]) -> ConfigError:
    """Hydra reads ``encoder=50_2`` as the number 502, which cannot be the name of an option."""
    known = groups()
    for word in words:
        parts = split(word)
        if parts is not None and parts[1] in known and parts[2].replace("_", "").replace(".", "").isdigit():
            return _no_option(f"{parts[1]}/{parts[2]}", None, "")
    return ConfigError("An option of a group must be a name", given=" ".join(words), override="encoder=stacked_cnn")
