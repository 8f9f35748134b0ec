"""Every combination of the values that are swept over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lightning_vision.sweeps.trial import Trial
from lightning_vision.sweeps.words import Words


class Source(Protocol):
    """Where trials come from."""

    def ask(self) -> Trial | None:
        """Return the next trial, None if there is none left."""

    def tell(self, trial: Trial) -> None:
        """Hand over what became of a trial."""

    def close(self) -> None:
        """Let go of what it holds."""


class Grid:
    """Every combination, but those of ``kept`` trials that are there already.

    Args:
        words: The words of the sweep.
        kept: Trials of a sweep that goes on.
        first: The number of the next trial.
        stopped: Trials that go on from their checkpoints, under their numbers.

    Raises:
        ConfigError: There is an interval among the words.
    """

    def __init__(self, words: Words, kept: Sequence[Trial] = (), first: int = 0, stopped: Sequence[Trial] = ()) -> None:
        combinations = [(words.trial(values), values) for values in words.grid()]
        wanted = [typed for typed, _ in combinations]
        stopped = [trial for trial in stopped if trial.words in wanted]
        there = [trial.words for trial in (*kept, *stopped)]
        left = [(typed, values) for typed, values in combinations if typed not in there]
        names = {key: swept.name for key, swept in words.swept.items()}
        self.trials = [
            *stopped,
            *(
                Trial(number, typed, {names[key]: value for key, value in values.items()})
                for number, (typed, values) in enumerate(left, first)
            ),
        ]
        self.left = len(self.trials)

    def ask(self) -> Trial | None:
        """Return the next trial, None if there is none left."""
        if self.left == 0:
            return None
        self.left -= 1
        return self.trials[len(self.trials) - self.left - 1]

    def tell(self, trial: Trial) -> None:
        """A grid learns nothing from its trials."""

    def close(self) -> None:
        """It holds nothing."""
