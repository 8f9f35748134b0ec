"""A sweep from its words to its leaderboard."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning_vision.errors import ConfigError, VisionError, listed
from lightning_vision.overrides import override
from lightning_vision.sweeps import leaderboard, picture
from lightning_vision.sweeps.grid import Grid, Source
from lightning_vision.sweeps.processes import LOG, Processes, several_devices
from lightning_vision.sweeps.runners import Hydra, InProcess, Launched, Runner
from lightning_vision.sweeps.settings import SweepSettings
from lightning_vision.sweeps.trial import Trial, load, save
from lightning_vision.sweeps.words import Words, read

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
# Hydra's options that the process of a trial gets as well.
_OPTIONS = {"-cn": "--config-name", "-cd": "--config-dir", "-cp": "--config-path"}
# Hydra's settings that are those of the sweep itself.
_OF_SWEEP = (
    "hydra.mode",
    "hydra.sweep",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
    "hydra.run",
)


class FailedTrials(VisionError):
    """Trials of a sweep failed; the others went on."""


def sweep(hydra: Hydra, arguments: Sequence[str], params: Mapping[str, Any] | None, batch: int | None) -> list[Trial]:
    """Run a sweep; return its trials.

    Args:
        hydra: What Hydra gave to the sweeper.
        arguments: The overrides that were typed.
        params: ``hydra.sweeper.params``.
        batch: ``hydra.sweeper.max_batch_size``, for other launchers than Hydra's own.

    Raises:
        ConfigError: No trial could run; nothing was begun.
        FailedTrials: Some trials failed, after all have run.
    """
    settings = _settings(hydra.config)
    words = read(arguments, params, hydra.context.config_loader)
    if settings.trials is not None:
        _check_search(settings, words, hydra)
    else:
        next(words.grid())
    own = str(hydra.config.hydra.launcher._target_) == _BASIC
    first = _check_trials(hydra, words, settings, own)
    folder = hydra.folder
    before = load(folder)
    kept = [trial for trial in before if trial.ended]
    if settings.trials is None:  # what failed in a grid may have been mended
        kept = [trial for trial in kept if trial.status == "finished"]
    stopped = [trial for trial in before if own and not trial.ended and trial.goes_on(folder)]
    if settings.trials is None:
        # The folder of a trial that was stopped before its first checkpoint stays as it is.
        source: Source = Grid(words, kept, max((trial.number for trial in before), default=-1) + 1, stopped)
    else:
        from lightning_vision.sweeps.study import Study

        source = Study(settings, words, folder, _monitor(hydra, first), before, stopped)
    _start(hydra, folder)
    for hint in words.hints():
        print(hint)
    if kept:
        print(f"{'1 trial' if len(kept) == 1 else f'{len(kept)} trials'} of {folder} kept")
    trials = [*kept, *stopped]
    ended = False
    try:
        _run(source, _runner(hydra, settings, own, batch), hydra, trials, len(kept) + getattr(source, "left", 0))
        ended = True
    finally:
        source.close()
        leaderboard.show(trials, folder)
        if not ended:
            print(f"go on: python -m lightning_vision -m {override('sweep.resume', str(folder))}", flush=True)
    failed = [trial for trial in trials if trial.status == "failed"]
    if failed:
        numbers = listed((trial.number for trial in failed), 12)
        raise FailedTrials(
            f"{len(failed)} of {len(trials)} trials failed: {numbers}",
            override=[failed[0].command(), f"python -m lightning_vision -m {override('sweep.resume', str(folder))}"]
            if settings.trials is None
            else failed[0].command(),
        )
    return trials


def _run(source: Source, runner: Runner, hydra: Hydra, trials: list[Trial], total: int) -> None:
    """Run all trials of a source; the leaderboard is right after each."""
    folder = hydra.folder
    running: list[Trial] = []
    apart = isinstance(runner, Processes)
    try:
        while True:
            while runner.room and (trial := source.ask()) is not None:
                if all(trial is not known for known in trials):
                    trial.folder = hydra.place(trial)
                    trials.append(trial)
                trial.status = "running"
                running.append(trial)
                save(trials, folder)
                begun = sum(t.status != "stopped" for t in trials)
                again = "" if trial.checkpoint is None else f"  goes on from {trial.checkpoint}"
                print(f"trial {trial.number} ({begun} of {total})  {trial.said}{again}", flush=True)
                runner.start(trial)
            if not running:
                return
            trial = runner.wait()
            running.remove(trial)
            save(trials, folder)
            source.tell(trial)
            _keep(trials, folder)
            _say(trial, folder, apart)
    except BaseException:
        runner.stop()
        for trial in running:
            trial.status = "stopped"
        _keep(trials, folder)
        raise


def _keep(trials: Sequence[Trial], folder: Path) -> None:
    save(trials, folder)
    leaderboard.write(trials, folder)
    picture.draw(trials, folder)


def _say(trial: Trial, folder: Path, apart: bool) -> None:
    if not apart:
        return  # it said so itself
    if trial.status == "failed":
        log = folder / trial.folder / LOG
        print(f"trial {trial.number} failed: {trial.error} ({log})", file=sys.stderr, flush=True)
    else:
        value = "" if trial.value is None else f": {trial.monitor or 'figure'} {trial.value:.4g}"
        print(f"trial {trial.number} {trial.status} in {trial.seconds or 0:.0f} s{value}", flush=True)


def _settings(config: Any) -> SweepSettings:
    """The settings of the sweep, checked as those of any part are."""
    from lightning_vision.checks import check_part

    node = config.get("sweep")
    values = {} if node is None else {str(key): node[key] for key in node}
    if node is not None:
        check_part("sweep", {key: _plain(value) for key, value in values.items()})
    return SweepSettings(**{key: value for key, value in values.items() if key != "_target_"})


def _plain(value: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _check_search(settings: SweepSettings, words: Words, hydra: Hydra) -> None:
    from lightning_vision.sweeps.study import require_optuna

    given = f"sweep.trials={settings.trials}"
    if not words.swept:
        raise ConfigError(
            "There is nothing to search over.",
            given=given,
            expected="ranges or choices: lr=interval(1e-5,1e-2), batch_size=range(8,65,8), encoder=resnet,unet",
            override=f"{given} 'lr=tag(log, interval(1e-5, 1e-2))'",
        )
    action = str(hydra.config.get("action", "fit"))
    if action != "fit":
        raise ConfigError(
            f"A search needs a figure to optimise, and {action} has none.",
            given=f"{action}, {given}",
            expected="the action fit; or every combination of single values, without sweep.trials",
            override="sweep.trials=null",
        )
    require_optuna(given)


def _check_trials(hydra: Hydra, words: Words, settings: SweepSettings, own: bool) -> Any:
    """Compose configs in which every value occurs; return the first, and refuse what could not run as a trial.

    Raises:
        ConfigError: A name is wrong, an end of an interval is not valid, or trials would start processes of a sweep.
    """
    from lightning_vision.checks import check

    first = None
    searched = any(swept.values is None for swept in words.swept.values())
    for values in words.corners():
        config = hydra.composed(words.trial(values))
        first = config if first is None else first
        if own:
            _refuse_ddp(config.trainer if "trainer" in config else {}, settings)
        if searched:
            with hydra.inside(config):
                check(config, dict(config.hydra.runtime.choices), words.trial(values))
    return first


def _refuse_ddp(trainer: Mapping[str, Any], settings: SweepSettings) -> None:
    """Refuse strategies that run the command line again for each device: each would run the whole sweep."""
    nodes = trainer.get("num_nodes", 1)
    if not several_devices(trainer):
        return
    given = " ".join(f"trainer.{name}={trainer.get(name)}" for name in ("strategy", "devices", "num_nodes"))
    if nodes != 1:
        raise ConfigError(
            "A trial of a sweep runs on one machine.",
            given=given,
            expected="trainer.num_nodes=1, or a launcher of Hydra's that starts each trial on its machines",
            override=["trainer.num_nodes=1", "hydra/launcher=submitit_slurm"],
        )
    if settings.apart:
        return
    raise ConfigError(
        "In a sweep within one process, each of the processes that this strategy starts would run the whole sweep.",
        given=given,
        expected="trials with processes of their own, or one device",
        override=["sweep.processes=true", "trainer.devices=1"],
    )


def _monitor(hydra: Hydra, config: Any) -> str:
    """The figure that trials are compared by: the data tell where it is ``auto``."""
    if config.get("monitor", "auto") != "auto":
        return str(config.monitor)
    from lightning_vision.resolve import resolve

    with hydra.inside(config):
        return str(resolve(config).config["monitor"])


def _runner(hydra: Hydra, settings: SweepSettings, own: bool, batch: int | None) -> Runner:
    if not own:
        from hydra.core.plugins import Plugins

        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra.context, task_function=hydra.task, config=hydra.config
        )
        return Launched(hydra, launcher, settings.jobs if settings.trials is not None else batch)
    if not settings.apart:
        return InProcess(hydra)
    from omegaconf import OmegaConf

    from lightning_vision.command_line import read as read_line

    options = [
        f"{_OPTIONS[name]}={value}" for name, value in read_line(sys.argv[1:]).options.items() if name in _OPTIONS
    ]
    typed = cast("list[str]", OmegaConf.to_container(hydra.config.hydra.overrides.hydra, resolve=False))
    words = [word for word in typed if not word.lstrip("+~").startswith(_OF_SWEEP)]
    return Processes(hydra.folder, settings.jobs, options, words)


def _start(hydra: Hydra, folder: Path) -> None:
    """Make the folder of the sweep, and write down its words, with which it can go on."""
    from omegaconf import OmegaConf

    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(hydra.config, folder / "multirun.yaml")
