"""Optimizers and schedules in whole runs: their steps, and runs that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision.assembly import build_trainer
from lightning_vision.testing.discs import write_discs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"), count=30)  # 18 rows to train on


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    return {
        "encoder": "unet",
        "decoder": "classifier",
        "data": "table",
        "image_size": 16,
        "epochs": 3,
        "batch_size": 4,
        "overrides": {
            "data.path": str(table),
            "data.target": "label",
            "encoder.base_channels": 2,
            "encoder.depth": 2,
            "output_dir": str(out),
            **values,
        },
    }


def run(words: list[str], config: dict[str, Any], folder: Path, checkpoint: Path | None = None) -> Trainer:
    """Train, with a checkpoint of every epoch and without all that a fit reports."""
    module, data = lv.build(words, **config)
    each = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = build_trainer({**module.config, "callbacks": {}, "logger": {}}, callbacks=[each])
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.lightning_module.state_dict().items()}


@pytest.mark.parametrize(("accumulate", "of_epoch"), [(1, 5), (2, 3), (7, 1)])
def test_an_incomplete_accumulation_counts_as_a_step(
    table: Path, tmp_path: Path, accumulate: int, of_epoch: int
) -> None:
    config = settings(table, tmp_path, **{"trainer.accumulate_grad_batches": accumulate})
    trainer = run(["scheduler=polynomial"], config, tmp_path)
    module: Any = trainer.lightning_module
    assert module._steps() == (trainer.global_step, of_epoch)
    assert trainer.global_step == 3 * of_epoch
    assert trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0] == 0.0


def test_a_rate_that_follows_the_monitored_figure_goes_on_exactly(table: Path, tmp_path: Path) -> None:
    # At this rate no figure gets better, so that every epoch but the first lowers it.
    words = ["scheduler=plateau", "scheduler.patience=0", "scheduler.factor=0.5", "lr=1e-12", "optimizer=sgd"]
    whole = run(words, settings(table, tmp_path), tmp_path)
    schedule = whole.lr_scheduler_configs[0].scheduler
    assert schedule._sign == -1.0, "the accuracy should be large"
    assert schedule.get_last_lr() == pytest.approx([0.25e-12] * 4)
    resumed = run(words, settings(table, tmp_path), tmp_path / "more", tmp_path / "epoch=1.ckpt")
    assert resumed.lr_scheduler_configs[0].scheduler.state_dict() == schedule.state_dict()


def test_the_training_loss_can_be_followed_where_nothing_is_validated(table: Path, tmp_path: Path) -> None:
    words = ["scheduler=plateau", "scheduler.patience=0", "monitor=train/loss", "lr=1e-12"]
    schedule = run(words, settings(table, tmp_path), tmp_path).lr_scheduler_configs[0].scheduler
    assert schedule._sign == 1.0
    assert schedule.best is not None


def test_a_checkpoint_of_the_time_of_two_schedules_goes_on(table: Path, tmp_path: Path) -> None:
    whole = run([], settings(table, tmp_path / "whole"), tmp_path)
    state = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    kept = state[checkpoints.KEY]
    assert kept["config"]["scheduler"]["_target_"] == "lightning_vision.optim.cosine.Cosine"
    kept["format_version"] = 2
    kept["config"]["scheduler"] = {
        "_target_": "lightning_vision.optim.Cosine",
        "warmup": 0.05,
        "final_factor": 0.0,
    }
    rates = state["lr_schedulers"][0]["_last_lr"]
    state["lr_schedulers"] = [
        {"base_lrs": [1e-3] * 4, "last_epoch": 10, "_step_count": 11, "_get_lr_called_within_step": False}
        | {"_last_lr": rates, "lr_lambdas": [None] * 4, "_is_initial": False}
    ]
    torch.save(state, old := tmp_path / "old.ckpt")
    resumed = lv.fit(checkpoint=str(old), overrides={"output_dir": str(tmp_path / "run")})
    assert resumed.metrics["epochs"] == 3
    ended = checkpoints.read(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert ended[checkpoints.KEY]["config"]["scheduler"]["_target_"] == "lightning_vision.optim.cosine.Cosine"
    assert all(torch.equal(v, ended["state_dict"][k]) for k, v in weights_of(whole).items())


def test_a_warmup_that_was_cut_is_said(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["scheduler.warmup_epochs=9", "epochs=1"], settings(table, tmp_path) | {"epochs": 1}, tmp_path)
    assert "warm-up of 45 steps leaves no other step to a run of 5" in capsys.readouterr().out
