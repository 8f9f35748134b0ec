"""Multi-label from the table to the predictions, on discs: the label set says colour and size."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lightning_vision as lv
from lightning_vision.errors import ConfigError
from lightning_vision.testing.discs import write_discs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs with a column ``labels`` (blue, red, large, joined by ``|``) and one column each."""
    path = write_discs(tmp_path_factory.mktemp("discs"), 60)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        large = i % 5 > 2
        row["labels"] = row["label"] + ("|large" if large else "")
        row |= {name: str(int(name in row["labels"])) for name in ("blue", "red", "large")}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    given = {"data.path": str(table), "data.target": "labels", "output_dir": str(out), "encoder.out_channels": 8}
    plain = {"encoder": "stacked_cnn", "decoder": "classifier", "data": "table", "image_size": [32, 40], "epochs": 2}
    return {**plain, "batch_size": 8, "overrides": given | values}


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    given = settings(table, tmp_path_factory.mktemp("run"))
    return lv.fit(**{**given, "epochs": 12, "lr": 5e-3, "calibrate": "all"})


def test_the_task_follows_from_the_data(trained: lv.Result) -> None:
    assert trained.module.config["task"] == "multilabel"
    assert trained.module.config["loss"]["_target_"].endswith("SigmoidCrossEntropyLoss")
    assert trained.module.config["monitor"] == "val/mean_average_precision"
    assert trained.module.task.target.class_names == ("blue", "large", "red")


def test_it_learns_what_is_on_the_images(trained: lv.Result) -> None:
    # Colours are told apart by a mean over pixels; not by luck: the same seed gives the same figures.
    assert trained.metrics["test/average_precision/blue"] > 0.95
    assert trained.metrics["test/average_precision/red"] > 0.95
    low = trained.metrics["test/mean_average_precision/ci95_low"]
    assert 0 <= low <= trained.metrics["test/mean_average_precision"]


def test_what_was_fitted_on_validation_is_in_the_checkpoint(trained: lv.Result) -> None:
    again = lv.load(trained.checkpoint)
    head = again.head()
    assert torch.equal(head.thresholds, trained.module.head().thresholds)
    assert torch.equal(head.temperature, trained.module.head().temperature)
    assert (head.thresholds != 0.5).any()
    assert head.temperature != 1


def test_test_and_predict_from_the_checkpoint(trained: lv.Result, table: Path, tmp_path: Path) -> None:
    again = lv.test(trained.checkpoint, overrides={"output_dir": str(tmp_path)})
    for key, value in again.metrics.items():
        assert value == pytest.approx(trained.metrics[key], abs=1e-6, nan_ok=True), key
    assert (tmp_path / "plots" / "precision_recall.png").is_file()
    assert (tmp_path / "plots" / "predictions.png").is_file()
    files = [str(table.parent / f"{i}.png") for i in (1, 2, 3)]
    predictions = lv.predict(trained.checkpoint, files)
    module = lv.load(trained.checkpoint)
    thresholds = module.head().thresholds.numpy()
    for prediction in predictions:
        assert prediction.probabilities is not None
        expected = tuple(np.array(module.task.target.class_names)[prediction.probabilities >= thresholds])
        assert prediction.labels == expected


def test_columns_and_joined_names_train_alike(table: Path, tmp_path: Path) -> None:
    joined = lv.fit(**settings(table, tmp_path / "joined", **{"data.class_names": ["blue", "red", "large"]}))
    columns = lv.fit(**settings(table, tmp_path / "columns", **{"data.target": ["blue", "red", "large"]}))
    assert columns.module.config["task"] == "multilabel"
    assert columns.metrics == pytest.approx(joined.metrics, nan_ok=True)


def test_predictions_are_written(trained: lv.Result, table: Path, tmp_path: Path) -> None:
    from lightning_vision.actions.predict import predict_to_folder
    from lightning_vision.config import compose

    cfg = compose(overrides={"output_dir": str(tmp_path), "source": str(table.parent / "*.jpg")})
    predict_to_folder(str(trained.checkpoint), str(table.parent / "*.jpg"), cfg)
    with (tmp_path / "predictions" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    assert list(rows[0]) == ["path", "labels", "p_blue", "p_large", "p_red"]
    assert all(set(row["labels"].split("|")) <= {"blue", "large", "red", ""} for row in rows)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"loss": "softmax_cross_entropy", "task": "multilabel"}, "does not serve the task"),
        ({"calibrate": "thresholds", "task": "classification", "data.target": "label"}, "a threshold to fit"),
    ],
)
def test_what_does_not_go_together_is_refused(table: Path, tmp_path: Path, values: dict[str, Any], says: str) -> None:
    given = settings(table, tmp_path)
    dotted = {k: v for k, v in values.items() if "." in k}
    plain = {k: v for k, v in values.items() if "." not in k}
    with pytest.raises(ConfigError, match=says):
        lv.build(**{**given, **plain, "overrides": given["overrides"] | dotted})
