"""The life of a log: what is tried again, what is never lost, and how it ends."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lightning_vision import extras
from lightning_vision.checkpoint import NEEDED, NEEDED_OF_CONFIG
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.loggers.base import RunLog, Status, flat
from lightning_vision.loggers.run import logged
from lightning_vision.resolve import resolve


class Notes(RunLog):
    """A log in memory that fails as often as it is told to."""

    kind = "notes"

    def __init__(self, folder: Path, failures: int = 0, address: str = "here") -> None:
        super().__init__(str(folder))
        self.failures, self.address = failures, address
        self.attempts = 0
        self.written: list[Any] = []
        self.ended: list[str] = []

    def begin(self, record: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        if self.address == "nowhere":
            raise OSError("no such host")
        return self, {"address": self.address}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        self.written.append("settings")

    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        self.attempts += 1
        if self.failures > 0:
            self.failures -= 1
            raise OSError("the disk is full")
        self.written.append((step, dict(figures)))

    def write_picture(self, name: str, file: Path) -> None:
        self.written.append(name)

    def end(self, status: Status) -> None:
        self.ended.append(status)


def trainer(*logs: Any, rank: int = 0) -> Any:
    return SimpleNamespace(loggers=[*logs], is_global_zero=rank == 0)


def config(folder: Path, *logs: Any) -> dict[str, Any]:
    return {"output_dir": str(folder), "logger": {f"log{i}": {"_target_": "x"} for i in range(len(logs))}}


def epoch(log: RunLog, number: int) -> None:
    """What Lightning sends of an epoch of ten steps: its validation, then its training."""
    log.log_metrics({"val/loss": 1.0, "epoch": number}, step=10 * number + 9)
    log.log_metrics({"train/loss": 2.0, "epoch": number}, step=10 * number + 9)


def test_a_run_is_written_once_from_its_settings_to_its_pictures(tmp_path: Path) -> None:
    log = Notes(tmp_path)
    with logged(trainer(log), config(tmp_path, log)):
        epoch(log, 0)
        log.log_metrics({"test/loss": 3.0, "epoch": 1}, step=10)
        log.finalize("success")
        (tmp_path / "plots" / "mask").mkdir(parents=True)
        (tmp_path / "plots" / "mask" / "sheet.png").touch()
        (tmp_path / "metrics.json").write_text('{"test/loss": 3.0, "test/iou": null}')
    assert log.written == [
        "settings",
        (9, {"val/loss": 1.0, "epoch": 1}),
        (9, {"train/loss": 2.0}),
        (9, {"test/loss": 3.0}),
        "plots/mask/sheet",
    ]
    assert log.ended == ["finished"]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")]
)
def test_how_a_run_ends_is_written(error: type[BaseException], status: str, tmp_path: Path) -> None:
    log = Notes(tmp_path)
    (tmp_path / "metrics.json").write_text('{"test/loss": 3.0}')  # of an earlier run

    def run() -> None:
        with logged(trainer(log), config(tmp_path, log)):
            epoch(log, 0)
            raise error

    with pytest.raises(error):
        run()
    assert log.ended == [status]
    assert log.written[-1] == (9, {"train/loss": 2.0})


def test_what_could_not_be_written_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Notes(tmp_path, failures=2)
    with caplog.at_level(logging.WARNING, "lightning_vision"), logged(trainer(log), config(tmp_path, log)):
        epoch(log, 0)
        epoch(log, 1)
    assert [(w[0], next(iter(w[1]))) for w in log.written[1:]] == [
        (9, "val/loss"),
        (9, "train/loss"),
        (19, "val/loss"),
        (19, "train/loss"),
    ]
    assert "notes: the figures of step 9 could not be written, the run goes on (the disk is full)" in caplog.text
    assert "never got" not in caplog.text


def test_a_log_that_stays_broken_is_left_alone_until_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = Notes(tmp_path, failures=10**6)
    with caplog.at_level(logging.WARNING, "lightning_vision"), logged(trainer(log), config(tmp_path, log)):
        for number in range(50):
            epoch(log, number)
        assert log.attempts == 3
    assert log.attempts == 6
    assert "notes never got: the figures of step 9" in caplog.text
    assert log.ended == ["finished"]


def test_what_one_failure_lets_through_is_in_the_order_of_its_writing(tmp_path: Path) -> None:
    log = Notes(tmp_path, failures=3)
    with logged(trainer(log), config(tmp_path, log)):
        for number in range(4):
            epoch(log, number)
    steps = [w[0] for w in log.written[1:]]
    assert sorted(steps) == [9, 9, 19, 19, 29, 29, 39, 39], "all arrived"
    assert steps == sorted(steps)


def test_a_log_that_cannot_be_opened_stops_the_run_and_closes_the_others(tmp_path: Path) -> None:
    good, bad = Notes(tmp_path), Notes(tmp_path, address="nowhere")
    refused = pytest.raises(ConfigError, match=r"cannot be opened: no such host[\s\S]*logger=csv")
    with refused, logged(trainer(good, bad), config(tmp_path, good, bad)):
        pytest.fail("the run has begun")
    assert good.ended == ["failed"]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    log = Notes(tmp_path)
    with logged(trainer(log, rank=1), config(tmp_path, log), resumed="nowhere.ckpt"):
        pass
    assert not log.written
    assert not log.ended
    assert not list(tmp_path.iterdir())


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A run of three epochs of ten steps, with a log."""
    folder = tmp_path / "old"
    (folder / "checkpoints").mkdir(parents=True)
    log = Notes(folder)
    with logged(trainer(log), config(folder, log)):
        pass
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "step", "val/loss"], *([n, 10 * n - 1, 1 / n] for n in (1, 2, 3))])
    for name, step in (("best", 20), ("last", 30)):
        kept = {name: kind() for name, kind in NEEDED.items()} | {"config": dict.fromkeys(NEEDED_OF_CONFIG)}
        state = {"lightning_vision": {"format_version": 3, **kept}, "global_step": step}
        torch.save(state, folder / "checkpoints" / f"{name}.ckpt")
    return folder


@pytest.mark.parametrize(
    ("checkpoint", "address", "before"),
    [("last", "here", []), ("last", "there", [9, 19, 29]), ("best", "here", [9, 19])],
    ids=["the same log", "another place", "epochs were logged behind the checkpoint"],
)
def test_a_run_that_goes_on(checkpoint: str, address: str, before: list[int], earlier: Path, tmp_path: Path) -> None:
    log = Notes(tmp_path / "new", address=address)
    resumed = str(earlier / "checkpoints" / f"{checkpoint}.ckpt")
    with logged(trainer(log), config(tmp_path / "new", log), resumed):
        log.log_metrics({"val/loss": 0.1, "epoch": len(before) or 3}, step=100)
    assert [w[0] for w in log.written[1:]] == [*before, 100]
    kept = json.loads((tmp_path / "new" / "logs.json").read_text())
    assert kept == {"log0": {"address": address}}
    assert (earlier / "logs.json").exists() == (checkpoint == "best")


def test_a_log_belongs_to_one_run_that_goes_on(earlier: Path, tmp_path: Path) -> None:
    steps = []
    for name in ("one", "two"):
        log = Notes(tmp_path / name)
        with logged(trainer(log), config(tmp_path / name, log), str(earlier / "checkpoints" / "last.ckpt")):
            pass
        steps.append([w[0] for w in log.written[1:]])
    assert steps == [[], [9, 19, 29]]


def test_settings_by_dotted_key() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [1, {"f": 2}]}) == {"a.b.c": 1, "a.d": {}, "e": [1, {"f": 2}]}


# The config


@pytest.mark.parametrize(
    "word", ["logger=null", "logger=none", "logger=tensorboard", "logger=[csv,tensorboard]", "~logger"]
)
def test_metrics_csv_is_always_written(word: str) -> None:
    plan = resolve(compose([word]))
    logs = plan.config["logger"]
    assert list(logs) == ["csv", *(["tensorboard"] if "tensorboard" in word else [])]
    assert logs["csv"]["save_dir"] == plan.config["output_dir"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"logger\.{name} needs the package {name}") as caught:
        compose([f"logger={name}"])
    assert caught.value.overrides == [f"pip install 'lightning_vision[{name}]'", "logger=csv"]


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="needs the package no_such_package"):
        extras.require("wandb", "no_such_package", needs="This needs")


def test_values_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode") as caught:
        compose(["logger=wandb", "logger.wandb.mode=ofline"])
    assert caught.value.overrides == ["logger.wandb.mode=offline"]
    with pytest.raises(ConfigError, match="no setting 'projekt'"):
        compose(["logger=wandb", "+logger.wandb.projekt=x"])
    assert yaml.safe_load(str(compose(["logger=mlflow", "logger.mlflow.tags={by: me}"]).logger.mlflow.tags)) == {
        "by": "me"
    }
