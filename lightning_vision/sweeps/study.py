"""A search over ranges: Optuna proposes values and is told what became of them."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.extras import require
from lightning_vision.monitor import better
from lightning_vision.overrides import for_shell
from lightning_vision.sweeps.settings import SweepSettings
from lightning_vision.sweeps.trial import Trial
from lightning_vision.sweeps.words import Swept, Words, number

FILE = "study.db"
NAME = "lightning_vision"
SEARCH = "search"  # what the storage remembers of the words
_ELSEWHERE = "hydra.sweep.dir=multirun/OTHER"


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
        before: Trials of a sweep that goes on; those that have ended are kept.
        stopped: Those of them that go on from their checkpoints, under their numbers.

    Raises:
        ConfigError: There is nothing to search over, or a sampler that cannot; the storage is of another search, or
            knows nothing of the trials before.
    """

    def __init__(
        self,
        settings: SweepSettings,
        words: Words,
        folder: Path,
        monitor: str,
        before: Sequence[Trial],
        stopped: Sequence[Trial] = (),
    ) -> None:
        import optuna

        self.optuna, self.words, self.monitor = optuna, words, monitor
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.distributions = {key: self._distribution(swept) for key, swept in words.swept.items()}
        self.storage = self._storage(settings.storage, folder)
        # In a storage of its own the folder may be moved; in one for many each sweep has its place.
        self.name = NAME if settings.storage is None else str(folder.absolute())
        kept = [trial for trial in before if trial.ended]
        direction: Literal["minimize", "maximize"] = "minimize" if better(monitor) == "min" else "maximize"
        self.asked: dict[int, Any] = {}
        self.stopped: list[Trial] = []
        try:
            self.study = optuna.create_study(
                storage=self.storage,
                # Another seed when it goes on: it would draw the first values once more.
                sampler=self._sampler(settings, settings.seed + len(kept)),
                study_name=self.name,
                direction=direction,
                load_if_exists=True,
            )
            self._check_same(direction)
            self._check_known(before)
            self._go_on({trial.number: trial for trial in kept}, {trial.number: trial for trial in stopped})
            self.left = settings.trials - len(kept) if settings.trials is not None else 0
            if settings.sampler == "grid":
                self._enqueue_grid(settings.seed)
        except BaseException:
            self.close()
            raise

    def ask(self) -> Trial | None:
        """Return the next trial, None if there are as many as were wanted."""
        if self.left <= 0:
            return None
        self.left -= 1
        if self.stopped:
            return self.stopped.pop(0)
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

    def _check_same(self, direction: str) -> None:
        """Refuse another search than that of the storage, whose figures could not be compared; note that of a new one.

        Other ends of an interval are none.
        """
        was = self.study.user_attrs.get(SEARCH)
        now: dict[str, Any] = {
            "monitor": self.monitor,
            "fixed": {key: word for key, word in self.words.fixed.items() if key != "action"},
            "swept": {key: swept.typed for key, swept in self.words.swept.items()},
        }
        if was is None:
            if self.study.direction.name.lower() != direction:
                was_to = self.study.direction.name.lower()
                raise _another(f"monitor={self.monitor}", f"a search that should {was_to}")
            self.study.set_user_attr(SEARCH, now)
            return
        fixed_now, fixed_was = now["fixed"], was["fixed"]
        missing = object()
        other = [k for k in {**fixed_was, **fixed_now} if fixed_was.get(k, missing) != fixed_now.get(k, missing)]
        if other:
            again = [w for k in other if (w := fixed_was.get(k) or was["swept"].get(k))]
            raise _another(_said(other, now), _said(other, was), again)
        if was["monitor"] != self.monitor:
            word = f"monitor={was['monitor']}"
            raise _another(f"monitor={self.monitor}", word, [word])
        compatible = self.optuna.distributions.check_distribution_compatibility
        for old in self.study.get_trials(deepcopy=False):
            for key, drawn_from in old.distributions.items():
                try:
                    compatible(drawn_from, self.distributions[key])
                except ValueError as error:
                    raise _another(_said([key], now), _said([key], was), [was["swept"][key]]) from error

    def _check_known(self, before: Sequence[Trial]) -> None:
        """Refuse trials that the storage did not propose: new ones would take their numbers and folders."""
        drawn = [
            {self.words.swept[key].name: _text(value) for key, value in old.params.items()}
            for old in self.study.get_trials(deepcopy=False)
        ]
        foreign = [t.number for t in before if t.number >= len(drawn) or drawn[t.number] != t.values]
        if foreign:
            raise ConfigError(
                "The folder has trials that the storage of the search knows nothing of.",
                given=f"trials {listed(foreign, 12)}: of a sweep without sweep.trials, or of another sweep.storage",
                expected="the storage that the search was begun with, or another folder",
                override=_ELSEWHERE,
            )

    def _go_on(self, kept: dict[int, Trial], stopped: dict[int, Trial]) -> None:
        """Bring the storage of a killed sweep in line with what is known of its trials; try the open ones again."""
        state = self.optuna.trial.TrialState
        for old in self.study.get_trials(deepcopy=False):
            if old.state != state.RUNNING:
                continue
            if old.number in kept:  # it ended, and the sweep before it could say so
                self.asked[old.number] = old.number
                self.tell(kept[old.number])
                continue
            if old.number in stopped:
                self.asked[old.number] = old.number
                self.stopped.append(stopped[old.number])
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
        if settings.sampler == "random":
            return samplers.RandomSampler(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", self.optuna.exceptions.ExperimentalWarning)
            # Those that run count as bad ones, else trials at the same time are neighbours; Optuna 4 has to be told.
            return samplers.TPESampler(seed=seed, constant_liar=True)

    def _enqueue_grid(self, seed: int) -> None:
        """Let every combination be tried once, in random order; Optuna's own sampler ends only its own loop."""
        lists = [[_parsed(swept, text) for text in swept.values or []] for swept in self.words.swept.values()]
        combinations = [dict(zip(self.words.swept, values, strict=True)) for values in itertools.product(*lists)]
        random.Random(seed).shuffle(combinations)
        for combination in combinations:
            self.study.enqueue_trial(combination, skip_if_exists=True)
        waiting = self.study.get_trials(deepcopy=False, states=[self.optuna.trial.TrialState.WAITING])
        self.left = min(self.left, len(waiting) + len(self.stopped))

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


def _said(keys: Sequence[str], search: Mapping[str, Any]) -> str:
    """The words of these keys, as they were typed."""
    return " ".join(search["fixed"].get(key) or search["swept"].get(key) or f"(no {key})" for key in keys)


def _another(now: str, was: str, again: Sequence[str] = ()) -> ConfigError:
    return ConfigError(
        "A search goes on with the words that it was begun with.",
        given=now,
        expected=was,
        override=[*([" ".join(for_shell(word) for word in again)] if again else []), _ELSEWHERE],
    )


def _parsed(swept: Swept, text: str) -> Any:
    """A value as the distribution of its key has it."""
    if swept.numbers is None or len(swept.numbers) < 2:
        return text
    return int(float(text)) if swept.whole else float(text)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
