"""The words of a sweep in Hydra's grammar: what all trials share, and what is swept over."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_vision.errors import ConfigError
from lightning_vision.overrides import for_shell

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# An interval that spans so many times its lower end is hardly meant to be drawn from evenly.
WIDE = 100


@dataclass
class Swept:
    """One key that is swept over.

    Args:
        key: As typed, with a plus sign where there was one.
        typed: The word.
        values: All values as text; None of an interval.
        numbers: The values of a range, in order.
        low: Lower end of an interval.
        high: Upper end of it, which may be drawn.
        log: Drawn evenly by order of magnitude.
        whole: Whole numbers alone.
        twice: Values that were there already, and are left out.
    """

    key: str
    typed: str
    values: list[str] | None = None
    numbers: list[float] | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    twice: int = 0

    @property
    def name(self) -> str:
        """The key without plus signs."""
        return self.key.lstrip("+")

    def corners(self) -> list[str]:
        """Values as text with which a mistake shows: all of them, or the ends of an interval."""
        return self.values if self.values is not None else [number(self.low), number(self.high)]


@dataclass
class Words:
    """The words of a sweep, in their order.

    Args:
        fixed: A word that all trials share, or None where ``swept`` has the key.
        swept: What is swept over, by its key as typed.
    """

    fixed: dict[str, str | None]
    swept: dict[str, Swept]

    def trial(self, values: Mapping[str, str]) -> list[str]:
        """The words of a trial; ``values``: those of all keys that are swept over, as text."""
        return [f"{key}={values[key]}" if word is None else word for key, word in self.fixed.items()]

    def grid(self) -> Iterator[dict[str, str]]:
        """Every combination.

        Raises:
            ConfigError: There is an interval, which has no end of values.
        """
        for swept in self.swept.values():
            if swept.values is None:
                raise ConfigError(
                    f"{swept.name} is swept over an interval, of which no list of trials can be made",
                    given=for_shell(swept.typed),
                    expected="how many trials may be drawn from it, or single values",
                    override=[
                        f"-m sweep.trials=20 {for_shell(swept.typed)}",
                        f"-m {swept.key}={','.join(swept.corners())}",
                    ],
                )
        lists = [swept.values or [] for swept in self.swept.values()]
        for values in itertools.product(*lists):
            yield dict(zip(self.swept, values, strict=True))

    def corners(self) -> Iterator[dict[str, str]]:
        """Combinations in which every value (of an interval both ends) occurs at least once."""
        lists = {key: swept.corners() for key, swept in self.swept.items()}
        first = {key: values[0] for key, values in lists.items()}
        yield first
        for key, values in lists.items():
            for value in values[1:]:
                yield first | {key: value}

    def hints(self) -> list[str]:
        """Intervals that are likely to be meant in another way, and values that are said twice."""
        twice = [
            f"hint: {s.name} has values that are said more than once, which are tried once: {for_shell(s.typed)}"
            for s in self.swept.values()
            if s.twice
        ]
        return twice + [
            f"hint: {s.name} is drawn evenly between {number(s.low)} and {number(s.high)}; by order of magnitude: "
            + for_shell(f"{s.key}=tag(log, interval({number(s.low)}, {number(s.high)}))")
            for s in self.swept.values()
            if s.values is None and not s.log and s.low > 0 and s.high >= WIDE * s.low
        ]


def read(arguments: Sequence[str], params: Mapping[str, Any] | None, config_loader: Any = None) -> Words:
    """Sort the words of a sweep; those of the sweep itself (``sweep.jobs=2``) go to no trial.

    Args:
        arguments: The overrides that were typed.
        params: ``hydra.sweeper.params``: more of them by key, that typed ones override.
        config_loader: Hydra's, which knows the options that ``glob(*)`` stands for.

    Raises:
        ConfigError: Nothing can be drawn from an interval or a list.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=config_loader)
    words = Words({}, {})
    for override in parser.parse_overrides([*(f"{k}={v}" for k, v in (params or {}).items()), *arguments]):
        if str(override.key_or_group).partition(".")[0] == "sweep":
            continue
        key = override.get_key_element()
        words.swept.pop(key, None)
        if override.is_sweep_override():
            words.fixed[key], words.swept[key] = None, _swept(key, override)
        else:
            words.fixed[key] = override.input_line or f"{key}={override.get_value_element_as_str()}"
    return words


def _swept(key: str, override: Override) -> Swept:
    typed = override.input_line or key
    value: Any = override.value()
    if override.is_interval_sweep():
        low, high, log = value.start, value.end, "log" in value.tags
        if not low < high or (log and low <= 0):
            raise ConfigError(
                f"{key.lstrip('+')} cannot be drawn from this interval",
                given=for_shell(typed),
                expected="a lower end, then a higher one" + (", both above 0" if log else ""),
            )
        return Swept(key, typed, low=low, high=high, log=log, whole=isinstance(low, int) and isinstance(high, int))
    try:
        all_values = list(override.sweep_string_iterator())
    except ValueError as error:  # a range whose step is 0
        raise ConfigError(f"{key.lstrip('+')} cannot be swept over: {error}", given=for_shell(typed)) from error
    values = list(dict.fromkeys(all_values))
    if not values:
        raise ConfigError(f"There is nothing to sweep {key.lstrip('+')} over", given=for_shell(typed))
    found = Swept(key, typed, values=values, twice=len(all_values) - len(values))
    if override.is_range_sweep() and len(values) > 1:
        found.numbers = sorted(float(text) for text in values)
        found.whole = all(n.is_integer() for n in found.numbers)
    return found


def number(value: float) -> str:
    """A number as text, of six digits that count."""
    return repr(value) if isinstance(value, int) else f"{value:.6g}"
