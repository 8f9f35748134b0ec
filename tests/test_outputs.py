"""Several outputs from one encoder: a mask and two labels, from the table to the predictions."""

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

OUTPUTS: dict[str, dict[str, Any]] = {
    "label": {"decoder": {"type": "classifier", "num_fc_layers": 1, "fc_output_size": 6}, "weight": 0.5},
    "mask": {"decoder": {"type": "unet", "channels": [16, 8]}, "loss": "ce_dice", "dependencies": ["label"]},
    "size": {"decoder": "classifier", "dependencies": ["mask"], "reduce_dependencies": "mean", "reduce_input": "max"},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_discs(tmp_path_factory.mktemp("discs"))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "label", "size", "split"])
        for i, r in enumerate(rows):
            writer.writerow([r["image"], r["mask"], r["label"], "large" if i % 5 > 2 else "small", r["split"]])
    return path


def settings(table: Path, out: Path, outputs: dict[str, Any] = OUTPUTS, **more: Any) -> dict[str, Any]:
    given = {"data.path": str(table), "data.ignore_index": 255, "output_dir": str(out), "encoder.out_channels": 8}
    given["data.class_names"] = ["background", "blue", "red"]
    plain = {"encoder": "stacked_cnn", "data": "table", "image_size": [32, 40], "epochs": 2, "batch_size": 8}
    return {**plain, "outputs": outputs, "overrides": given | more.pop("values", {}), **more}


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    return lv.fit(**settings(table, tmp_path_factory.mktemp("run"), lr=5e-3, epochs=6))


def test_each_output_has_its_own_parts_and_figures(trained: lv.Result) -> None:
    heads = dict(trained.module.named_heads())
    assert {name: head.task.name for name, head in heads.items()} == {
        "label": "classification",
        "mask": "segmentation",
        "size": "classification",
    }
    assert heads["mask"].task.target.class_names == ("background", "blue", "red")
    assert heads["size"].task.target.class_names == ("large", "small")
    assert trained.module.config["monitor"] == "val/label/accuracy"
    for key in ("test/mask/mean_iou", "test/mask/iou/red", "test/label/accuracy", "test/size/f1", "test/label/loss"):
        assert key in trained.metrics
    for name in ("label/confusion.png", "mask/predictions.png", "size/predictions.png", "curves.png"):
        assert (trained.folder / "plots" / name).is_file()


def test_the_loss_is_the_weighted_sum(trained: lv.Result) -> None:
    found = trained.metrics
    total = 0.5 * found["test/label/loss"] + found["test/mask/loss"] + found["test/size/loss"]
    assert found["test/loss"] == pytest.approx(total, rel=1e-6)


def test_the_checkpoint_alone_tests_and_predicts(trained: lv.Result, table: Path, tmp_path: Path) -> None:
    again = lv.test(trained.checkpoint, overrides={"output_dir": str(tmp_path / "test")})
    for key, value in again.metrics.items():
        assert value == pytest.approx(trained.metrics[key], abs=1e-6, nan_ok=True), key
    (prediction,) = lv.predict(trained.checkpoint, str(table.parent / "1.png"))
    assert set(prediction.outputs) == {"label", "mask", "size"}
    assert prediction.outputs["mask"].mask is not None
    assert prediction.outputs["mask"].mask.shape == (60, 70)
    assert prediction.outputs["label"].label in ("blue", "red")
    module = lv.load(trained.checkpoint)
    image = torch.zeros(2, 3, 32, 40, dtype=torch.uint8)
    assert {name: tuple(logits.shape) for name, logits in module(image).items()} == {
        "label": (2, 2),
        "mask": (2, 3, 32, 40),
        "size": (2, 2),
    }


def test_other_data_are_scored_with_the_trained_classes(trained: lv.Result, table: Path, tmp_path: Path) -> None:
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    other = table.parent / "other.csv"
    with other.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask", "label", "size"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    found = lv.test(trained.checkpoint, overrides={"data.path": str(other), "output_dir": str(tmp_path)})
    for key in ("test/mask/mean_iou", "test/label/accuracy", "test/size/accuracy"):
        assert found.metrics[key] == pytest.approx(trained.metrics[key], abs=1e-6)


def test_predictions_of_each_output_have_a_folder(trained: lv.Result, table: Path, tmp_path: Path) -> None:
    from lightning_vision.actions.predict import predict_to_folder
    from lightning_vision.config import compose

    source = str(table.parent / "*.jpg")
    predict_to_folder(str(trained.checkpoint), source, compose(overrides={"output_dir": str(tmp_path)}))
    for name in OUTPUTS:
        with (tmp_path / "predictions" / name / "predictions.csv").open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 10


def test_an_output_beside_others_learns_what_it_learns_alone(table: Path, tmp_path: Path) -> None:
    """With weight 0 for the others, and nothing depending on it, an output trains as if it were the only one."""
    alone = {"label": {"decoder": "classifier"}}
    both = {**alone, "size": {"decoder": "classifier", "weight": 0.0}}
    labels = {"data.ignore_index": None, "data.class_names": None}
    first, second = (
        lv.fit(**settings(table, tmp_path / name, outputs, values=labels))
        for name, outputs in (("alone", alone), ("both", both))
    )
    # A single output among `outputs` has the plain names of figures.
    assert second.metrics["test/label/accuracy"] == first.metrics["test/accuracy"]
    assert second.metrics["test/label/loss"] == pytest.approx(first.metrics["test/loss"], rel=1e-6)


def test_a_dependency_is_seen(trained: lv.Result) -> None:
    module = trained.module.eval()
    image = torch.randint(0, 256, (1, 3, 32, 40), dtype=torch.uint8)
    before = {name: logits.clone() for name, logits in module(image).items()}
    with torch.no_grad():
        module.head("label").decoder.fc[0].weight.mul_(-3)  # type: ignore[index,operator,union-attr]
    after = module(image)
    assert not torch.equal(before["mask"], after["mask"]), "the mask depends on the label"
    assert not torch.equal(before["size"], after["size"]), "the size depends on the mask"


@pytest.mark.parametrize(
    ("outputs", "values", "says"),
    [
        ({"a": {"target": "mask", "decoder": "unet"}, "b": {"target": "mask", "decoder": "unet"}}, {}, "one mask"),
        ({"label": {"decoder": "classifier", "dependencies": ["mask"]}}, {}, "not there"),
        ({"label": {"decoder": "classifier"}, "colour": {"decoder": "classifier"}}, {}, "colour"),
        ({"label": {"decoder": "classifier", "loss": "dice"}}, {}, "does not serve the task"),
        (OUTPUTS, {"monitor": "val/mean_iou"}, "no such figure"),
        (OUTPUTS, {"data": "shapes"}, "no such column"),
    ],
)
def test_mistakes_are_named(
    table: Path, tmp_path: Path, outputs: dict[str, Any], values: dict[str, Any], says: str
) -> None:
    given = settings(table, tmp_path, outputs)
    if values.get("data") == "shapes":
        given["overrides"] = {"output_dir": str(tmp_path), "data.path": str(tmp_path / "shapes")}
    with pytest.raises(ConfigError, match=says):
        lv.build(**{**given, **values})


def test_masks_and_labels_reach_their_heads(table: Path, tmp_path: Path) -> None:
    module, data = lv.build(**settings(table, tmp_path))
    rows = data.index.rows("train")[:4]
    batch = data.batch(rows)
    expected = {"label": [i % 2 for i in rows], "size": [0 if i % 5 > 2 else 1 for i in rows]}
    for name, values in expected.items():
        target = module.head(name).target(batch)
        assert target is not None
        assert target.tolist() == values
    mask = module.head("mask").target(batch)
    assert mask is not None
    assert set(np.unique(mask.numpy())) <= {0, 1, 2, 255}
