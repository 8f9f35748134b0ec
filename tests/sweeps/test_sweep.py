"""Whole sweeps in this process, with something quick in the place of a training."""

from __future__ import annotations

import csv
import gc
import json
import logging
import os
import random
import signal
import sys
import types
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_vision.errors import DataError
from lightning_vision.sweeps.clean import restored
from lightning_vision.sweeps.trial import Trial
from lightning_vision.testing.processes import command_line

Sweep = Callable[..., int]
Trials = Callable[[], list[Trial]]


def write_figures(cfg: Any, monitor: str, best: float) -> None:
    """What a run leaves behind."""
    folder = Path(cfg.output_dir)
    (folder / "config.yaml").write_text(f"monitor: {monitor}\n")
    (folder / "metrics.json").write_text(json.dumps({"best": best, "epochs": 1.0, monitor.replace("val", "test"): 0.1}))


class Model:
    def __init__(self) -> None:
        self.trainer = self  # as a module and its trainer, which point at each other


def test_failed_trials_do_not_end_it(
    sweep: Sweep, trials: Trials, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models: list[weakref.ref[Model]] = []
    errors = {1: RuntimeError("step"), 2: DataError("no image"), 3: torch.OutOfMemoryError("CUDA out of memory.\n1 GB")}

    def run(cfg: Any) -> float:
        gc.collect()
        assert not [model for model in models if model() is not None], "what a trial had is gone before the next one"
        model = Model()
        models.append(weakref.ref(model))
        if cfg.seed in errors:
            raise errors.pop(cfg.seed)
        return float(cfg.seed)

    assert sweep("seed=0,1,2,3,4", "epochs=2", run=run, collects=True) == 2
    gc.collect()
    assert len(models) == 5
    assert not [model for model in models if model() is not None]
    assert [(t.number, t.status, t.value) for t in trials()] == [
        (0, "finished", 0.0),
        *((i, "failed", None) for i in (1, 2, 3)),
        (4, "finished", 4.0),
    ]
    assert [t.error for t in trials()][1:4] == [
        *("RuntimeError: step", "no image", "OutOfMemoryError: CUDA out of memory.")
    ]
    said = capsys.readouterr()
    assert "3 of 5 trials failed: 1, 2, 3\n" in said.err
    assert said.err.count("Traceback") == 2, "of those that a user cannot mend"
    assert [(tmp_path / "s" / str(i) / "trial.log").read_text().splitlines()[-1] for i in (1, 2)] == [
        *("RuntimeError: step", "no image")
    ]
    assert "best: trial 4" in said.out
    assert "  python -m lightning_vision seed=4 epochs=2\n" in said.out
    with (tmp_path / "s" / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["4", "0", "1", "2", "3"]
    assert "epochs" not in rows[0], "only what differs has a column"
    assert (tmp_path / "s" / "leaderboard.png").is_file()


def test_a_trial_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "before")
    monkeypatch.chdir(tmp_path)

    def state() -> list[Any]:
        root = logging.getLogger()
        return [
            dict(os.environ),
            os.getcwd(),
            list(root.handlers),
            root.level,
            list(warnings.filters),
            signal.getsignal(signal.SIGTERM),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.get_float32_matmul_precision(),
            torch.is_grad_enabled(),
            torch.distributed.is_initialized(),
        ]

    before = state()
    closed: list[bool] = []

    class Handler(logging.Handler):
        def close(self) -> None:
            closed.append(True)
            super().close()

    def run() -> None:
        os.environ.update({"KEPT": "changed", "NEW": "1", "LOCAL_RANK": "0"})
        (tmp_path / "elsewhere").mkdir()
        os.chdir("elsewhere")
        logging.getLogger().addHandler(Handler())
        logging.getLogger().setLevel(1)
        warnings.simplefilter("ignore")
        signal.signal(signal.SIGTERM, lambda *_: None)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("medium")
        torch.set_grad_enabled(False)
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/g", rank=0, world_size=1)
        assert all(a != b for a, b in zip(before, state(), strict=True))
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), restored():
        run()
    assert state() == before
    assert closed == [True]


def test_runs_that_were_open_before_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    class Library(types.ModuleType):
        """Both APIs: ``run`` and ``finish`` of W&B, ``active_run`` and ``end_run`` of MLflow."""

        runs: tuple[object, ...] = ()
        run = property(lambda self: self.active_run())

        def active_run(self) -> object:
            return self.runs[-1] if self.runs else None

        def finish(self) -> None:
            ended.append(self.__name__)
            self.runs = self.runs[:-1]

        end_run = finish

    wandb, mlflow = Library("wandb"), Library("mlflow")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    wandb.runs = (object(),)
    with restored(torch_too=False):
        monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert not ended, "mlflow has no open run, and that of wandb is the notebook's"
    with restored(torch_too=False):
        wandb.runs = (object(),)
        mlflow.runs = (object(),)
    assert ended == ["wandb", "mlflow"]


def test_ctrl_c_and_going_on(sweep: Sweep, trials: Trials, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[int] = []

    def run(cfg: Any) -> float:
        ran.append(cfg.seed)
        if cfg.seed == 1 and len(ran) == 2:
            raise KeyboardInterrupt
        return float(cfg.seed)

    assert sweep("seed=0,1,2", run=run) == 130
    assert [(t.number, t.status) for t in trials()] == [(0, "finished"), (1, "stopped")]
    assert len((tmp_path / "s" / "leaderboard.csv").read_text().splitlines()) == 3
    said = capsys.readouterr().out
    assert "best: trial 0" in said
    assert said.endswith("go on: python -m lightning_vision -m sweep.resume=s\n")
    # Its words come from its folder; what was stopped before its first checkpoint is run again, under a number and in a
    # folder of its own.
    assert sweep("sweep.resume=s", run=run) == 0
    assert ran == [0, 1, 1, 2]
    assert [(t.number, t.words) for t in trials()] == [(0, ["seed=0"]), (2, ["seed=1"]), (3, ["seed=2"])]
    assert sweep("sweep.resume=s", "seed=0,1,5", run=run) == 0
    assert ran[4:] == [5]


def test_a_trial_that_was_stopped_goes_on_from_its_checkpoint(sweep: Sweep, trials: Trials, tmp_path: Path) -> None:
    ran: list[tuple[Any, ...]] = []
    checkpoint = tmp_path / "s" / "trial=0" / "checkpoints" / "last.ckpt"

    def run(cfg: Any) -> float:
        ran.append((cfg.seed, cfg.checkpoint, Path(cfg.output_dir)))
        if len(ran) == 1:
            checkpoint.parent.mkdir()
            checkpoint.touch()
            raise KeyboardInterrupt
        return float(cfg.seed)

    assert sweep("seed=3,4", "hydra.sweep.subdir='trial=${hydra.job.num}'", run=run) == 130
    assert sweep("sweep.resume=s", run=run) == 0
    folders = [tmp_path / "s" / f"trial={i}" for i in range(2)]
    assert ran == [(3, None, folders[0]), (3, str(checkpoint), folders[0]), (4, None, folders[1])]
    assert [(t.number, t.status, t.value, t.words) for t in trials()] == [
        (0, "finished", 3.0, ["seed=3"]),
        (1, "finished", 4.0, ["seed=4"]),
    ]


def test_figures_that_cannot_be_compared(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    def run(cfg: Any) -> float:
        write_figures(cfg, "val/loss" if cfg.seed % 2 else "val/accuracy", 0.5 + cfg.seed)
        return 0.5

    assert sweep("seed=range(4)", run=run) == 0
    said = capsys.readouterr().out
    assert "val/accuracy, val/loss are ranked each by itself" in said
    assert "best: trial 2, val/accuracy 2.5000 (max)" in said
    assert "best: trial 1, val/loss 1.5000 (min)" in said


TWO = ["trainer.devices=2", "trainer.accelerator=cpu"]
REFUSED = [
    ([*TWO, "seed=0,1"], "would run the whole sweep", "sweep.processes=true"),
    ([TWO[1], "trainer.devices=1,2", "trainer.strategy=ddp"], "the whole sweep", "sweep.processes=true"),
    (["trainer.num_nodes=2", "seed=0,1", "sweep.processes=true"], "on one machine", "hydra/launcher=submitit_slurm"),
    (["lr=interval(1e-5,1e-2)"], "no list of trials", "-m sweep.trials=20 'lr=interval(1e-5,1e-2)'"),
    (["sweep.job=2"], "sweep has no setting 'job'", "sweep.jobs=2"),
    (["sweep.jobs=0"], "sweep.jobs cannot be 0", "sweep.jobs=1"),
    (["sweep.trials=2", "seed=1"], "nothing to search", "sweep.trials=2 'lr=tag(log, interval(1e-5, 1e-2))'"),
    (["sweep.trials=2", "lr=interval(-1,1)"], "lr cannot be -1", "lr=0.001"),
    (["test", "sweep.trials=2", "lr=interval(1,2)", "checkpoint=x"], "test has none", "sweep.trials=null"),
    (["sweep.trials=2", "sweep.sampler=grid", "lr=interval(1,2)"], "no intervals", "sweep.sampler=tpe"),
    (["sweep.resume=nowhere"], "no sweep to go on with", "sweep.resume=multirun/DATE/TIME"),
]


@pytest.mark.parametrize(("words", "said", "override"), REFUSED)
def test_refused_before_the_first_trial(
    words: list[str],
    said: str,
    override: str,
    sweep: Sweep,
    trials: Trials,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep(*words) == 2
    error = capsys.readouterr().err
    assert said in error
    tried = [line for line in error.splitlines() if line.startswith(("  try:", "  or:"))]
    assert override in [line.partition(":")[2].strip() for line in tried]
    assert not trials()


def test_one_device_is_allowed(sweep: Sweep) -> None:
    assert sweep("seed=0,1", "trainer.devices=1") == 0


def test_hydras_own_sweeper_still_works(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra/sweeper=basic", "seed=0,1") == 0
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["0", "1", "multirun.yaml"]


def test_words_of_hydras_settings(sweep: Sweep, trials: Trials) -> None:
    assert sweep("hydra.sweeper.params={seed: '1,2'}", "hydra.sweep.subdir=t${hydra.job.num}", "epochs=3,4") == 0
    assert [t.words for t in trials()] == [[f"seed={s}", f"epochs={e}"] for s in (1, 2) for e in (3, 4)]
    assert [t.folder for t in trials()] == ["t0", "t1", "t2", "t3"]


SMALL = ["encoder.out_channels=4", "image_size=16", "epochs=1", "data.num_images=60"]


def test_a_trial_equals_the_run_alone(tmp_path: Path) -> None:
    """Bit for bit, after a trial that changes what it can in the process."""
    alone = command_line(*SMALL, "hydra.run.dir=alone", cwd=tmp_path)
    swept = command_line("-m", *SMALL, "trainer.deterministic=true,false", "hydra.sweep.dir=s", cwd=tmp_path)
    alone.succeed()
    swept.succeed()
    one, two = (
        torch.load(tmp_path / run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for run in ("alone", "s/1")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    first, second = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("alone", "s/1"))
    assert first == second
