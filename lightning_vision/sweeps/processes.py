"""Trials in processes of their own: a fresh command line each, with its share of cores and GPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lightning_vision import full_error
from lightning_vision.data.threads import CORES, available_cores, divide
from lightning_vision.overrides import quote
from lightning_vision.sweeps.child import ERROR
from lightning_vision.sweeps.trial import Trial

LOG = "trial.log"
# What torchrun, Lightning or SLURM told this process of its own ranks is not meant for those of a trial.
_OF_RANKS = ("LOCAL_RANK", "RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = 30.0  # seconds that a trial has to end by itself
_LOOK = 0.05  # seconds between two looks at the processes


@dataclass
class _Running:
    trial: Trial
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float


class Processes:
    """So many trials at a time, each in a process of its own.

    Args:
        folder: The folder of the sweep.
        jobs: Trials at a time.
        options: Options of Hydra that each gets, such as ``--config-dir``.
        words: Words for Hydra's own settings that each gets.
    """

    def __init__(self, folder: Path, jobs: int, options: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self.folder, self.options, self.words = folder.absolute(), list(options), list(words)
        self.environments = [_environment(slot, jobs) for slot in range(jobs)]
        self.running: dict[int, _Running] = {}

    @property
    def room(self) -> bool:
        """Whether another trial can be started now."""
        return len(self.running) < len(self.environments)

    def start(self, trial: Trial) -> None:
        """Start the process of a trial; its output goes into ``trial.log`` of its folder."""
        slot = next(i for i in range(len(self.environments)) if i not in self.running)
        folder = self.folder / trial.folder
        folder.mkdir(parents=True, exist_ok=True)
        error = _error_file(folder)
        error.unlink(missing_ok=True)
        words = [*trial.run_words, *self.words]
        words += [f"hydra.run.dir={quote(str(folder))}", f"hydra.job.num={trial.number}"]
        log = (folder / LOG).open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "lightning_vision", *self.options, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**self.environments[slot], ERROR: str(error)},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
        )
        self.running[slot] = _Running(trial, process, log, time.monotonic())

    def wait(self) -> Trial:
        """Return a trial whose process has ended."""
        while True:
            for slot, run in self.running.items():
                if run.process.poll() is not None:
                    return self._ended(slot)
            time.sleep(_LOOK)

    def stop(self) -> None:
        """End all processes: as Ctrl-C does, and those that do not end in half a minute at once."""
        for run in self.running.values():
            _signal(run.process, signal.SIGINT)
        deadline = time.monotonic() + _PATIENCE
        try:
            for run in self.running.values():
                run.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # or Ctrl-C once more
            for run in self.running.values():
                _signal(run.process, signal.SIGKILL)
        for slot in list(self.running):
            run = self.running.pop(slot)
            run.process.wait()
            run.log.close()
            _error_file(self.folder / run.trial.folder).unlink(missing_ok=True)
            run.trial.seconds = time.monotonic() - run.began

    def _ended(self, slot: int) -> Trial:
        run = self.running.pop(slot)
        run.log.close()
        trial, folder, code = run.trial, self.folder / run.trial.folder, run.process.returncode
        trial.seconds = time.monotonic() - run.began
        _signal(run.process, signal.SIGKILL)  # what a crashed trial has started does not outlive it
        error = _error_file(folder)
        if code == 0:
            trial.finish(folder)
        elif code < 0:
            name = signal.Signals(-code).name
            memory = "; the memory of the machine may not suffice for so many trials" if name == "SIGKILL" else ""
            trial.fail(f"its process was ended by {name}{memory}")
        else:
            said = error.read_text(encoding="utf-8").strip() if error.is_file() else ""
            trial.fail(said or f"its process ended with the code {code}, see {folder / LOG}")
        error.unlink(missing_ok=True)
        return trial


def _error_file(folder: Path) -> Path:
    return folder / ".error"


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and to all that it started."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        else:
            process.terminate()
    except (ProcessLookupError, PermissionError):  # all of them have ended
        pass


def _environment(slot: int, jobs: int) -> dict[str, str]:
    """The variables of the processes in one of ``jobs`` places."""
    with full_error.variable(full_error.given):
        environment = {key: value for key, value in os.environ.items() if key not in _OF_RANKS}
    cores = divide(available_cores(), jobs)
    environment[CORES] = str(cores)
    environment.setdefault("OMP_NUM_THREADS", str(cores))
    package = str(Path(__file__).resolve().parents[2])
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    if package not in paths:  # a checkout that is run from its own folder stays the one that runs
        environment["PYTHONPATH"] = os.pathsep.join([*(p for p in paths if p), package])
    if jobs > 1 and (share := gpu_share(gpus(), slot, jobs)) is not None:
        environment["CUDA_VISIBLE_DEVICES"] = share
    return environment


def gpus(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without torch."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    found = [int(file.name[6:]) for file in devices.glob("nvidia[0-9]*") if file.name[6:].isdigit()]
    return [str(number) for number in range(len(found))]  # CUDA counts those that are there, from 0


def gpu_share(names: Sequence[str], slot: int, jobs: int) -> str | None:
    """The GPUs of one of ``jobs`` places: its part, at least one; None if there are not several."""
    if len(names) < 2:
        return None
    if jobs > len(names):
        return names[slot % len(names)]
    return ",".join(names[slot * len(names) // jobs : (slot + 1) * len(names) // jobs])


def several_devices(trainer: Mapping[str, Any]) -> bool:
    """Whether a trainer's settings ask for more than one device or machine."""
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if isinstance(devices, str) and devices.lstrip("-").isdigit():
        devices = int(devices)
    if devices in ("auto", -1):
        on_gpu = str(trainer.get("accelerator", "auto")) in ("auto", "gpu", "cuda")
        devices = len(gpus()) if on_gpu else 1
    count = (
        len(devices) if isinstance(devices, list) else devices.count(",") + 1 if isinstance(devices, str) else devices
    )
    return (isinstance(count, int) and count > 1) or (isinstance(nodes, int) and nodes > 1)
