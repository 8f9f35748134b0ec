"""metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_vision.callbacks.epoch_csv import EpochCSV


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_calls_of_one_epoch_become_one_row(tmp_path: Path) -> None:
    logger = EpochCSV(str(tmp_path))
    logger.log_metrics({"val/loss": 2.0, "epoch": 0}, step=9)
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=9)
    logger.log_metrics({"train/loss": 0.5, "epoch": 1}, step=19)
    logger.save()
    assert rows(tmp_path) == [
        {"epoch": "1", "step": "9", "train/loss": "1.0", "val/loss": "2.0"},
        {"epoch": "2", "step": "19", "train/loss": "0.5", "val/loss": ""},
    ]


def test_a_resumed_run_goes_on_in_the_same_table(tmp_path: Path) -> None:
    first = EpochCSV(str(tmp_path))
    for epoch in range(3):
        first.log_metrics({"train/loss": float(epoch), "epoch": epoch}, step=epoch)
    first.save()
    second = EpochCSV(str(tmp_path))
    second.log_metrics({"train/loss": 20.0, "epoch": 2}, step=2)
    second.log_metrics({"train/loss": 3.0, "epoch": 3}, step=3)
    second.finalize("success")
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.0", "1.0", "20.0", "3.0"]


def test_a_new_run_in_the_folder_of_an_old_one_begins_a_new_table(tmp_path: Path) -> None:
    for epochs in (3, 1):
        logger = EpochCSV(str(tmp_path))
        for epoch in range(epochs):
            logger.log_metrics({"train/loss": float(epochs), "epoch": epoch}, step=epoch)
        logger.finalize("success")
    assert [(row["epoch"], row["train/loss"]) for row in rows(tmp_path)] == [("1", "1.0")]


def test_test_figures_stay_out(tmp_path: Path) -> None:
    logger = EpochCSV(str(tmp_path))
    logger.log_metrics({"test/loss": 2.0, "epoch": 3}, step=9)
    logger.save()
    assert not (tmp_path / "metrics.csv").exists()
