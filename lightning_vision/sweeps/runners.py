"""How trials are run in this process: one after the other, each as clean as alone; or by another launcher of Hydra."""

from __future__ import annotations

import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightning_vision import full_error
from lightning_vision.errors import ConfigError, VisionError
from lightning_vision.sweeps.clean import free_memory
from lightning_vision.sweeps.processes import LOG
from lightning_vision.sweeps.trial import Trial


class Runner(Protocol):
    """Runs trials: ``start`` as long as there is ``room``, then ``wait`` for one that has ended."""

    @property
    def room(self) -> bool:
        """Whether another trial can be started now."""

    def start(self, trial: Trial) -> None:
        """Begin a trial."""

    def wait(self) -> Trial:
        """Return a trial that has ended, with what became of it."""

    def stop(self) -> None:
        """End what runs."""


@dataclass
class Hydra:
    """What Hydra gave to the sweeper.

    Args:
        context: Its context, with the loader of configs.
        task: The function that carries out a run.
        config: The composed config of the sweep.
    """

    context: Any
    task: Any
    config: Any
    _last: tuple[Any, Any] = (None, None)

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return Path(str(self.config.hydra.sweep.dir))

    def composed(self, words: list[str], number: int = 0) -> Any:
        """Compose the config of a trial, with Hydra's node.

        Raises:
            ConfigError: A word names nothing, or cannot be read.
        """
        from omegaconf import open_dict

        from lightning_vision.translate import translate

        key, last = self._last
        if key == (words, number):  # of the trial whose folder was just asked for
            self._last = (None, None)
            return last
        try:
            config = self.context.config_loader.load_sweep_config(self.config, words)
        except Exception as error:
            if (ours := translate(error, words)) is None:
                raise
            raise ours from error
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        self._last = ((words, number), config)
        return config

    @contextmanager
    def inside(self, config: Any) -> Iterator[None]:
        """Let what a config says of its own run folder be found, as in a run of it."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import open_dict, read_write

        before = HydraConfig.instance().cfg
        runtime = config.hydra.runtime
        with read_write(runtime), open_dict(runtime):
            runtime.output_dir = str(self.folder.absolute())
        HydraConfig.instance().set_config(config)
        try:
            yield
        finally:
            HydraConfig.instance().cfg = before

    def to_run(self, trial: Trial) -> Any:
        """The config of a trial that goes into its folder, also where the words of a checkpoint are added."""
        from omegaconf import open_dict

        config = self.composed(trial.run_words, trial.number)
        with open_dict(config):
            config.hydra.sweep.subdir = trial.folder
        return config

    def place(self, trial: Trial) -> str:
        """The folder of a trial below that of the sweep."""
        try:
            return str(self.composed(trial.words, trial.number).hydra.sweep.subdir)
        except ConfigError:  # said when it is started
            return str(trial.number)


class InProcess:
    """One trial at a time, in the process of the sweep.

    Args:
        hydra: What Hydra gave to the sweeper.
    """

    def __init__(self, hydra: Hydra) -> None:
        self.hydra = hydra
        self._ended: Trial | None = None

    @property
    def room(self) -> bool:
        """Whether another trial can be started now."""
        return self._ended is None

    def start(self, trial: Trial) -> None:
        """Run a trial to its end."""
        from hydra.core.utils import run_job

        began = time.monotonic()
        self._ended = trial
        job: Any
        returned: Any
        try:
            job = run_job(
                hydra_context=self.hydra.context,
                task_function=self.hydra.task,
                config=self.hydra.to_run(trial),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
            returned = job._return_value  # its property would print a line about an error
        except VisionError as error:
            returned = error
        finally:
            trial.seconds = time.monotonic() - began
        if isinstance(returned, Exception):
            trial.fail(returned)
            folder = self.hydra.folder / trial.folder
            folder.mkdir(parents=True, exist_ok=True)
            (folder / LOG).write_text(tell(trial, returned), encoding="utf-8")
            job = returned = None  # the error's traceback holds the model
            free_memory()
        else:
            trial.finish(self.hydra.folder / trial.folder, returned)

    def wait(self) -> Trial:
        """Return the trial that has ended."""
        assert self._ended is not None
        ended, self._ended = self._ended, None
        return ended

    def stop(self) -> None:
        """Nothing runs between two calls."""


def tell(trial: Trial, error: Exception) -> str:
    """Print why a trial failed, and return it; with a traceback if that is nothing that a user can mend."""
    if isinstance(error, VisionError) and not full_error.asked():
        print(f"trial {trial.number} failed: {error}", file=sys.stderr, flush=True)
        return f"{error}\n"
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_name != "task":  # the frames before it are Hydra's
        own = own.tb_next
    said = "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    print(said, end="", file=sys.stderr)
    print(f"trial {trial.number} failed: {trial.error}", file=sys.stderr, flush=True)
    return said


class Launched:
    """Trials that another launcher of Hydra runs, such as submitit's, a batch at a time.

    Args:
        hydra: What Hydra gave to the sweeper.
        launcher: The launcher.
        size: Trials of a batch; None = all.
    """

    def __init__(self, hydra: Hydra, launcher: Any, size: int | None) -> None:
        self.hydra, self.launcher, self.size = hydra, launcher, size
        self._waiting: list[Trial] = []
        self._ended: deque[Trial] = deque()

    @property
    def room(self) -> bool:
        """Whether another trial goes into the batch."""
        return not self._ended and (self.size is None or len(self._waiting) < self.size)

    def start(self, trial: Trial) -> None:
        """Put a trial into the batch."""
        self._waiting.append(trial)

    def wait(self) -> Trial:
        """Return a trial of the batch, which is launched now if it was not."""
        if not self._ended:
            batch, self._waiting = self._waiting, []
            began = time.monotonic()
            jobs = self.launcher.launch([trial.words for trial in batch], initial_job_idx=batch[0].number)
            for trial, job in zip(batch, jobs, strict=True):
                trial.seconds = time.monotonic() - began
                returned = job._return_value
                if isinstance(returned, Exception):
                    trial.fail(returned)
                else:
                    trial.finish(self.hydra.folder / trial.folder, returned)
                self._ended.append(trial)
        return self._ended.popleft()

    def stop(self) -> None:
        """The launcher ends what it began."""
