"""What a config of Ludwig becomes: settings of ours, where each came from, and what has no counterpart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_vision.errors import ConfigError, nearest
from lightning_vision.options import load_option
from lightning_vision.overrides import grammar
from lightning_vision.searchpath import options_of
from lightning_vision.signatures import describe

# Keys with their values and with their place in the file.
Layer = dict[str, tuple[Any, str]]
FEATURES = ("input_features", "output_features")


@dataclass
class Translation:
    """The settings that stand for a config of Ludwig.

    Args:
        typed: The keys that the user gave beside it: what they decide is no contradiction within the file.
        settings: Values by our key, with a plus where it must be added.
        origins: Where in the file each came from.
        notes: Why a key of the file has no counterpart, by its place in the file.
        used: The places that became a setting, or a part of one.
    """

    typed: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def set(self, key: str, value: Any, origin: str) -> None:
        """Say a setting of ours; what is said twice in different ways is noted, and the first stands."""
        self.used.add(origin)
        if key not in self.settings:
            self.settings[key], self.origins[key] = value, origin
        elif self.settings[key] != value:
            self.note(origin, f"{key} is one for all, and {self.origins[key]} says {grammar(self.settings[key])}")

    def note(self, origin: str, reason: str) -> None:
        """Say why a key of the file has no counterpart."""
        self.notes.setdefault(origin, reason)

    def notes_of(self, layer: Layer, reason: str) -> None:
        """Say of all keys of a section that they have no counterpart, for one reason."""
        for _, origin in layer.values():
            self.note(origin, reason)


def places(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Place and value of each key that has no keys below it; features are told by their names."""
    if isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from places(value, below(place, str(key)))
    elif isinstance(content, list) and place in FEATURES and all(isinstance(feature, Mapping) for feature in content):
        for i, feature in enumerate(content):
            yield from places(feature, feature_place(place, i, feature))
    else:
        yield place, content


def feature_place(section: str, i: int, feature: Mapping[str, Any]) -> str:
    """The place of a feature: its name, or its number where it has none."""
    name = feature.get("name", feature.get("column"))
    return f"{section}.{i if name is None else name}"


def layer(content: Any, place: str) -> Layer:
    """The keys of a section with their places; none of a section without content.

    Raises:
        ConfigError: It is no mapping.
    """
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{place} is a mapping", given=f"{place}: {content}", expected=f"{place}: and keys below it")
    return {str(key): (value, below(place, str(key))) for key, value in content.items()}


def below(place: str, key: str) -> str:
    """The place of a key in a section; of one in no section its own name."""
    return f"{place}.{key}" if place else key


def part(content: Any, place: str) -> Layer:
    """The keys of an encoder, a decoder or a loss, which may also be named alone."""
    return {"type": (content, place)} if isinstance(content, str) else layer(content, place)


def over(defaults: Layer, own: Layer, t: Translation) -> Layer:
    """Lay a feature's own section over the defaults of its type; those of another type of part do not count."""
    if "type" in defaults and "type" in own and defaults["type"][0] != own["type"][0]:
        t.notes_of(defaults, f"{own['type'][1]} is another")
        return own
    return defaults | own


def accepted(t: Translation, group: str, option: str, given: Layer, reasons: Mapping[str, str]) -> Layer:
    """Of the settings of a part, those that our option has, under the name that it has them under.

    Args:
        t: Gets a note for each other one.
        group: The config group.
        option: Our option in it.
        given: The section, without its type.
        reasons: Why some settings have no counterpart.

    Returns:
        The settings; arguments that the option's file does not list have a plus in front.
    """
    node = load_option(group, option)
    signature = describe(str(node["_target_"])) if "_target_" in node else None
    injected = signature.injected if signature else ()
    addable = [p for p in (signature.parameters if signature else {}) if p not in node and p not in injected]
    found: Layer = {}
    for key, (value, place) in given.items():
        if key in reasons:
            t.note(place, reasons[key])
        elif key in node and not key.startswith("_"):
            found[key] = (plain(value), place)
        elif key in addable:
            found[f"+{key}"] = (plain(value), place)
        else:
            near = nearest(key, [k for k in node if not k.startswith("_")])
            t.note(place, f"{group}={option} has no such setting" + (f"; {near}, perhaps" if near else ""))
    return found


def option_of(group: str, value: Any, place: str, others: Mapping[str, str]) -> str:
    """Our option of a group for a type of Ludwig.

    Raises:
        ConfigError: There is none.
    """
    name = others.get(str(value), str(value))
    if name not in options_of(group):
        load_option(group, name, place)  # says what there is
    return name


def plain(value: Any) -> Any:
    """A value as our config can hold it: keys are text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, set):
        return sorted(value, key=str)
    return value
