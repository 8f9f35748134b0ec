"""What logs of runs have in common: one run from its settings to its pictures, and training that outlives its log."""

from __future__ import annotations

import logging
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from lightning_vision.errors import ConfigError

Status = Literal["finished", "failed", "interrupted"]

# Failures in a row after which a log is left alone until the run ends, and then until it is given up.
PATIENCE = 3

log = logging.getLogger(__name__)


class RunLog(Logger):
    """A log of a run: its settings, the figures of each epoch, and in the end test figures and pictures.

    A log that cannot be opened stops the run before its first step. One that fails later (a full disk, a network that
    is gone) never does: a warning says what was not written, which is kept and tried again with the next figures; after
    three failures in a row only once more, at the end of the run. What never arrived is named there. metrics.csv, the
    checkpoints and the pictures in the run folder do not depend on it.

    A class below says in ``requires`` which extra it needs, by the extra's name and those of its packages, and what is
    done at each of these times. Only the first process of several writes.

    Args:
        save_dir: Folder of what the log writes on this machine.
        pictures: Whether the pictures of ``plots/`` are logged.
    """

    requires: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = ""  # its name in messages

    def __init__(self, save_dir: str, pictures: bool = True) -> None:
        super().__init__()
        self.folder = Path(save_dir)
        self.pictures = pictures
        self.step = self.epoch = 0
        self.settings: dict[str, Any] = {}
        self.record: dict[str, str] = {}
        self._handle: Any = None
        self._waiting: list[tuple[str, Callable[[], None]]] = []
        self._failures = 0

    # What a log is

    @abstractmethod
    def begin(self, record: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        """Open the log, on going on the one of ``record`` if this log reaches it.

        Returns:
            What writes, and the record by which another process finds this log again.
        """

    @abstractmethod
    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the resolved config."""

    @abstractmethod
    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write figures of a step."""

    @abstractmethod
    def write_picture(self, name: str, file: Path) -> None:
        """Write a PNG file under a name such as ``plots/curves``."""

    @abstractmethod
    def end(self, status: Status) -> None:
        """Close the log."""

    # Its life, in the hands of ``logged``

    def start(
        self, settings: Mapping[str, Any], record: Mapping[str, str], rows: Mapping[int, dict[str, float]]
    ) -> None:
        """Open the log and write the settings.

        Args:
            settings: The resolved config.
            record: The record of the run that goes on, empty for a new one.
            rows: Figures by step of the epochs so far; they are written where the log of those cannot be reached.

        Raises:
            ConfigError: The log cannot be opened.
        """
        self.settings, self.record = dict(settings), dict(record)
        try:
            _ = self.experiment
        except Exception as error:  # of many libraries, and of the network behind them
            raise ConfigError(
                f"The log of {self.kind} cannot be opened: {error}",
                given=f"logger={self.kind}",
                expected="a log that can be written; metrics.csv alone needs nothing",
                override="logger=csv",
            ) from error
        self._write("the settings", partial(self.write_settings, self.settings))
        if not record or self.record != record:
            for step, figures in rows.items():
                self._write(f"the figures of step {step}", partial(self.write_figures, figures, step))
        self.step = max(rows, default=0)

    def finish(self, status: Status, figures: Mapping[str, float], plots: Path) -> None:
        """Write the last figures and all pictures, and close the log; says what never arrived."""
        if figures:
            self._write("the last figures", partial(self.write_figures, figures, self.step))
        for file in sorted(plots.rglob("*.png")) if self.pictures else ():
            name = file.relative_to(plots.parent).with_suffix("").as_posix()
            self._write(f"the picture {name}", partial(self.write_picture, name, file))
        self._deliver(PATIENCE)
        if self._waiting:
            log.warning("%s never got: %s", self.kind, ", ".join(what for what, _ in self._waiting))
        try:
            self.end(status)
        except Exception as error:
            log.warning("%s: the log could not be closed (%s)", self.kind, error)
        self._handle = None

    def _write(self, what: str, write: Callable[[], None]) -> None:
        self._waiting.append((what, write))
        if self._failures < PATIENCE:
            self._deliver(1)

    def _deliver(self, patience: int) -> None:
        """Write what waits, in its order, until so many attempts in a row have failed."""
        failed: list[tuple[str, Callable[[], None]]] = []
        waiting, self._waiting = self._waiting, []
        in_a_row = 0
        while waiting and in_a_row < patience:
            what, write = waiting.pop(0)
            try:
                write()
                in_a_row = 0
            except Exception as error:
                failed.append((what, write))
                in_a_row += 1
                log.warning("%s: %s could not be written, the run goes on (%s)", self.kind, what, error)
        self._waiting = [*failed, *waiting]
        self._failures = self._failures + 1 if failed else 0

    # Lightning's side

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes: the library's own object, opened at its first use."""
        if self._handle is None:
            self._handle, self.record = self.begin(self.record)
        return self._handle

    @property
    def opened(self) -> bool:
        """Whether there is something to close."""
        return self._handle is not None

    @property
    def name(self) -> str:
        """The kind of log."""
        return self.kind

    @property
    def version(self) -> str:
        """No version folder: the run folder is unique."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of what is written on this machine."""
        return str(self.folder)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the resolved config is written when the log is opened."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the figures of an epoch, as metrics.csv has them. Test figures come at the end, with all others."""
        if any(key.startswith("test/") for key in metrics):
            return
        figures = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        # Counted from 1, as in metrics.csv; an epoch comes in two pieces, of its validation and of its training.
        if (epoch := int(metrics.get("epoch", -1)) + 1) > self.epoch:
            figures["epoch"] = self.epoch = epoch
        self.step = self.step if step is None else step
        self._write(f"the figures of step {self.step}", partial(self.write_figures, figures, self.step))

    def __getstate__(self) -> dict[str, Any]:
        """Without what writes: another process opens the log anew, by its record."""
        return {**self.__dict__, "_handle": None}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings by dotted key; lists as they are."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
