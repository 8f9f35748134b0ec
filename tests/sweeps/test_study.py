"""Searches with Optuna: what is drawn, what is told, and how one goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from lightning_vision.errors import ConfigError
from lightning_vision.sweeps.settings import SweepSettings
from lightning_vision.sweeps.study import Study
from lightning_vision.sweeps.trial import Trial, load
from lightning_vision.sweeps.words import read

RANGES = [
    "lr=tag(log, interval(1e-5,1e-1))",
    "batch_size=range(8,65,8)",
    "encoder=choice(unet,stacked_cnn)",
    "epochs=int(interval(1,4))",
]


def study(folder: Path, words: list[str], kept: tuple[Trial, ...] = (), **s: Any) -> Study:
    folder.mkdir(exist_ok=True)
    return Study(SweepSettings(**{"trials": 12, **s}), read(words, None), folder, "val/accuracy", kept)


def told(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}")
    try:
        return optuna.load_study(study_name="lightning_vision", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_drawn_lies_in_the_ranges(sampler: str, tmp_path: Path) -> None:
    source = study(tmp_path, RANGES, sampler=sampler, trials=8)
    seen = []
    while (trial := source.ask()) is not None:
        seen.append(trial.values)
        assert trial.words == [f"{k}={v}" for k, v in trial.values.items()]
        trial.status, trial.monitor, trial.value = "finished", "val/accuracy", float(trial.values["lr"])
        source.tell(trial)
    source.close()
    assert len(seen) == 8
    for values in seen:
        assert 1e-5 <= float(values["lr"]) <= 1e-1
        assert int(values["batch_size"]) in range(8, 65, 8)
        assert values["encoder"] in ("unet", "stacked_cnn")
        assert int(values["epochs"]) in range(1, 5)
    assert len({values["lr"] for values in seen}) == 8
    assert all(t.value == pytest.approx(t.params["lr"], rel=1e-5) for t in told(tmp_path))


def test_a_grid_has_each_combination_once(tmp_path: Path) -> None:
    source = study(tmp_path, ["batch_size=range(8,25,8)", "encoder=a,b"], sampler="grid", trials=9)
    seen = set()
    while (trial := source.ask()) is not None:
        seen.add(tuple(trial.words))
        trial.status, trial.value = "finished", 0.5
        source.tell(trial)
    source.close()
    assert len(told(tmp_path)) == 6
    assert seen == {(f"batch_size={b}", f"encoder={e}") for b in (8, 16, 24) for e in "ab"}


def test_a_killed_search_tries_the_open_trials_again(tmp_path: Path) -> None:
    source = study(tmp_path, RANGES[:1])
    first, open_one, recorded, failed = (source.ask() for _ in range(4))
    assert first is not None
    assert open_one is not None
    assert recorded is not None
    assert failed is not None
    first.status, first.value = "finished", 0.5
    source.tell(first)
    failed.fail("x")
    source.tell(failed)
    recorded.status, recorded.value = "finished", 0.25  # written down, and killed before the storage knew
    source.close()
    again = study(tmp_path, RANGES[:1], kept=(first, recorded, failed), trials=5)
    retried, new = again.ask(), again.ask()
    assert retried is not None
    assert new is not None
    assert retried.values == open_one.values
    assert new.values not in [t.values for t in (first, open_one, recorded, failed)]
    assert again.ask() is None, "the kept ones count"
    again.close()
    states = [t.state.name for t in told(tmp_path)]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "RUNNING", "RUNNING"]
    assert told(tmp_path)[2].value == 0.25


def test_a_trial_that_was_stopped_goes_on_under_its_number(tmp_path: Path) -> None:
    source = study(tmp_path, RANGES[:1])
    first = source.ask()
    source.close()
    assert first is not None
    first.status = "stopped"
    again = Study(SweepSettings(trials=1), read(RANGES[:1], None), tmp_path, "val/accuracy", [first], [first])
    assert again.ask() is first
    assert again.ask() is None
    first.status, first.value = "finished", 0.5
    again.tell(first)
    again.close()
    assert [(t.state.name, t.value) for t in told(tmp_path)] == [("COMPLETE", 0.5)]


def test_another_search_is_refused(tmp_path: Path) -> None:
    words = ["epochs=3", "lr=interval(1e-4,1e-2)", "encoder=a,b"]
    source = study(tmp_path, words)
    first = source.ask()
    assert first is not None
    first.status, first.value = "finished", 0.5
    source.tell(first)
    source.close()
    for other, monitor, given, expected, again in [
        (["epochs=4", *words[1:]], "val/accuracy", "epochs=4", "epochs=3", ["epochs=3"]),
        (words[1:], "val/accuracy", "(no epochs)", "epochs=3", ["epochs=3"]),
        ([*words, "seed=1"], "val/accuracy", "seed=1", "(no seed)", []),
        ([*words[:2], "encoder=a"], "val/accuracy", "encoder=a", "encoder=a,b", ["encoder=a,b"]),
        ([*words[:2], "encoder=a,b,c"], "val/accuracy", "encoder=a,b,c", "encoder=a,b", ["encoder=a,b"]),
        (
            [words[0], "lr=tag(log, interval(1e-4,1e-2))", words[2]],
            "val/accuracy",
            "lr=tag(log, interval(1e-4,1e-2))",
            "lr=interval(1e-4,1e-2)",
            ["'lr=interval(1e-4,1e-2)'"],
        ),
        (words, "val/f1", "monitor=val/f1", "monitor=val/accuracy", ["monitor=val/accuracy"]),
    ]:
        with pytest.raises(ConfigError, match="the words that it was begun with") as caught:
            Study(SweepSettings(trials=12), read(other, None), tmp_path, monitor, [first])
        assert (caught.value.given, caught.value.expected) == (given, expected)
        assert caught.value.overrides == [*again, "hydra.sweep.dir=multirun/OTHER"]
    wider = [words[2], "lr=interval(1e-6,1)", words[0], "action=fit"]
    study(tmp_path, wider, (first,)).close()


def test_trials_that_the_storage_does_not_know_are_refused(tmp_path: Path) -> None:
    """Of a sweep without ``sweep.trials``, of another storage, or of one that is lost: numbers would come twice."""
    of_a_grid = Trial(3, ["lr=0.5"], {"lr": "0.5"}, folder="3", status="finished", value=0.5)
    for before in (of_a_grid, replace(of_a_grid, number=0), replace(of_a_grid, number=0, status="stopped")):
        with pytest.raises(ConfigError, match="knows nothing of") as caught:
            study(tmp_path, RANGES[:1], (before,))
        assert str(caught.value.given).startswith(f"trials {before.number}:")
        assert caught.value.overrides == ["hydra.sweep.dir=multirun/OTHER"]


def test_trials_at_the_same_time_are_no_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liars: list[bool] = []

    class AsInOptuna4(optuna.samplers.TPESampler):
        def __init__(self, *, constant_liar: bool = False, **settings: Any) -> None:
            liars.append(constant_liar)
            super().__init__(constant_liar=constant_liar, **settings)

    monkeypatch.setattr(optuna.samplers, "TPESampler", AsInOptuna4)
    study(tmp_path, RANGES[:1], jobs=2).close()
    assert liars == [True]


def test_a_search_from_the_command_line(
    sweep: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(cfg: Any) -> None:
        if len(load(tmp_path / "s")) == 2:
            raise RuntimeError("second")
        folder = Path(cfg.output_dir)
        (folder / "config.yaml").write_text("monitor: val/loss")
        (folder / "metrics.json").write_text(json.dumps({"best": abs(math.log10(cfg.lr) + 3), "epochs": 1}))

    words = ["sweep.trials=4", "monitor=val/loss", "lr=tag(log, interval(1e-5, 1e-1))"]
    assert sweep(*words, run=run) == 2
    trials = load(tmp_path / "s")
    assert [t.status for t in trials] == ["finished", "failed", "finished", "finished"]
    best = min((t for t in trials if t.value is not None), key=lambda t: t.value or 0.0)
    said = capsys.readouterr().out
    assert f"best: trial {best.number}, val/loss" in said
    assert f"  python -m lightning_vision monitor=val/loss lr={best.values['lr']}\n" in said
    assert [t.state.name for t in told(tmp_path / "s")] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert sweep("sweep.resume=s", "sweep.trials=5", run=run) == 2
    assert [t.number for t in load(tmp_path / "s")] == list(range(5))
    assert load(tmp_path / "s")[:4] == trials


def test_the_figure_follows_from_the_data(sweep: Callable[..., int], tmp_path: Path) -> None:
    """``monitor=auto`` of masks is the mean IoU, which should be large; with another figure a trial fails."""

    def run(cfg: Any) -> None:
        monitor = "val/mean_iou" if len(load(tmp_path / "s")) == 1 else "val/loss"
        folder = Path(cfg.output_dir)
        (folder / "config.yaml").write_text(f"monitor: {monitor}")
        (folder / "metrics.json").write_text(json.dumps({"best": 0.5, "epochs": 1}))

    assert sweep("sweep.trials=2", "sweep.storage=all.db", "lr=1e-3,1e-4", "data.num_images=60", run=run) == 2
    assert load(tmp_path / "s")[1].error == "its monitored figure is val/loss, and the search is for val/mean_iou"
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'all.db'}")
    found = optuna.load_study(study_name=str(tmp_path / "s"), storage=storage)
    assert found.direction.name == "MAXIMIZE"
    assert [t.state.name for t in found.trials] == ["COMPLETE", "FAIL"]
    storage.remove_session()
    storage.engine.dispose()
