"""A search over ranges: Optuna proposes values and is told what became of them."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_vision.errors import ConfigError, DataError
from lightning_vision.extras import require
from lightning_vision.monitor import better
from lightning_vision.sweeps.settings import SweepSettings
from lightning_vision.sweeps.trial import Trial
from lightning_vision.sweeps.words import Swept, Words, number

FILE = "study.db"
NAME = "lightning_vision"


def require_optuna(given: str) -> None:
    """Raise ConfigError unless Optuna is installed."""
    require("sweep", "optuna", needs="A search (sweep.trials) needs", given=given, instead=["sweep.trials=null"])


class Study:
    """Trials that Optuna proposes. Its numbers are those of the trials.

    Args:
        settings: Of the sweep.
        words: Its words.
        folder: Its folder.
        monitor: The figure to optimise, which every trial must have.
        kept: Trials of a sweep that goes on.

    Raises:
        ConfigError: There is nothing to search over, or a sampler that cannot; the storage is of another search.
    """

    def __init__(
        self, settings: SweepSettings, words: Words, folder: Path, monitor: str, kept: Sequence[Trial]
    ) -> None:
        import optuna

        self.optuna, self.words, self.monitor = optuna, words, monitor
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.distributions = {key: self._distribution(swept) for key, swept in words.swept.items()}
        self.storage = self._storage(settings.storage, folder)
        # In a storage of its own the folder may be moved; in one for many each sweep has its place.
        self.name = NAME if settings.storage is None else str(folder.absolute())
        direction: Literal["minimize", "maximize"] = "minimize" if better(monitor) == "min" else "maximize"
        self.study = optuna.create_study(
            storage=self.storage,
            # Another seed when it goes on: it would draw the first values once more.
            sampler=self._sampler(settings, settings.seed + len(kept)),
            study_name=self.name,
            direction=direction,
            load_if_exists=True,
        )
        if self.study.direction.name.lower() != direction:
            raise ConfigError(
                "The search in the storage goes in the other direction.",
                given=f"monitor={monitor}, and a search that should {self.study.direction.name.lower()}",
                override="sweep.storage=OTHER.db",
            )
        self.asked: dict[int, Any] = {}
        self._go_on({trial.number: trial for trial in kept})
        self.left = settings.trials - len(kept) if settings.trials is not None else 0
        if settings.sampler == "grid":
            self._enqueue_grid(settings.seed)

    def ask(self) -> Trial | None:
        """Return the next trial, None if there are as many as were wanted."""
        if self.left <= 0:
            return None
        self.left -= 1
        proposed = self.study.ask(self.distributions)
        self.asked[proposed.number] = proposed
        values = {key: _text(value) for key, value in proposed.params.items()}
        return Trial(
            proposed.number, self.words.trial(values), {self.words.swept[k].name: v for k, v in values.items()}
        )

    def tell(self, trial: Trial) -> None:
        """Hand over what became of a trial. One that was stopped stays open, to be tried again."""
        proposed = self.asked.pop(trial.number)
        state = self.optuna.trial.TrialState
        if trial.status == "finished" and trial.monitor not in (None, self.monitor):
            trial.fail(f"its monitored figure is {trial.monitor}, and the search is for {self.monitor}")
            self.study.tell(proposed, state=state.FAIL)
        elif trial.status == "finished" and trial.value is not None:
            self.study.tell(proposed, trial.value)
        elif trial.status != "stopped":
            self.study.tell(proposed, state=state.FAIL)

    def close(self) -> None:
        """Close the storage."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def _go_on(self, kept: dict[int, Trial]) -> None:
        """Bring the storage of a killed sweep in line with what is known of its trials; try the open ones again."""
        state = self.optuna.trial.TrialState
        for old in self.study.get_trials(deepcopy=False):
            if old.state != state.RUNNING:
                continue
            if old.number in kept:  # it ended, and the sweep before it could say so
                self.asked[old.number] = old.number
                self.tell(kept[old.number])
                continue
            self.study.tell(old.number, state=state.FAIL)
            if old.params:
                self.study.enqueue_trial(old.params)

    def _distribution(self, swept: Swept) -> Any:
        of = self.optuna.distributions
        if swept.values is None:
            make = of.IntDistribution if swept.whole else of.FloatDistribution
            return make(swept.low, swept.high, log=swept.log)
        numbers = swept.numbers
        if numbers is None or len(numbers) < 2:
            return of.CategoricalDistribution(swept.values)
        step = numbers[1] - numbers[0]
        if swept.whole:
            return of.IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(step))
        return of.FloatDistribution(numbers[0], numbers[0] + step * (len(numbers) - 1), step=step)

    def _sampler(self, settings: SweepSettings, seed: int) -> Any:
        samplers = self.optuna.samplers
        if settings.sampler == "grid":
            endless = next((s for s in self.words.swept.values() if s.values is None), None)
            if endless is not None:
                raise ConfigError(
                    "A grid has no intervals.",
                    given=f"sweep.sampler=grid with {endless.typed}",
                    override=["sweep.sampler=tpe", f"{endless.key}={','.join(endless.corners())}"],
                )
        return samplers.TPESampler(seed=seed) if settings.sampler == "tpe" else samplers.RandomSampler(seed)

    def _enqueue_grid(self, seed: int) -> None:
        """Let every combination be tried once, in random order; Optuna's own sampler ends only its own loop."""
        lists = [[_parsed(swept, text) for text in swept.values or []] for swept in self.words.swept.values()]
        combinations = [dict(zip(self.words.swept, values, strict=True)) for values in itertools.product(*lists)]
        random.Random(seed).shuffle(combinations)
        for combination in combinations:
            self.study.enqueue_trial(combination, skip_if_exists=True)
        waiting = self.study.get_trials(deepcopy=False, states=[self.optuna.trial.TrialState.WAITING])
        self.left = min(self.left, len(waiting))

    def _storage(self, named: str | None, folder: Path) -> Any:
        if named is not None and "://" in named:
            url = named
        else:
            file = folder / FILE if named is None else Path(named).expanduser()
            file.parent.mkdir(parents=True, exist_ok=True)
            url = f"sqlite:///{file.absolute()}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
                return self.optuna.storages.RDBStorage(url)
        except Exception as error:  # of SQLAlchemy, of a driver, of Optuna: whatever the place cannot do
            raise DataError(
                "The storage of the search cannot be opened.",
                given=f"{url}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                expected="an SQLite file that is Optuna's, or a new one",
                override="sweep.storage=search.db",
            ) from error


def _parsed(swept: Swept, text: str) -> Any:
    """A value as the distribution of its key has it."""
    if swept.numbers is None or len(swept.numbers) < 2:
        return text
    return int(float(text)) if swept.whole else float(text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
