"""Anomaly detection from a config to a trained, tested, reloaded model, and its figures by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score
from torch import Tensor

import lightning_vision as lv
from lightning_vision.decoders.anomaly import AnomalyDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput
from lightning_vision.losses.deep_sad import DeepSADLoss
from lightning_vision.losses.deep_svdd import DeepSVDDLoss
from lightning_vision.module import VisionModule
from lightning_vision.reports.anomalies import scores_figure
from lightning_vision.resolve import resolve
from lightning_vision.tasks.anomaly import Anomaly, StoredScores
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import FeatureInfo, TargetSpec

TARGET = TargetSpec("label", ("good", "anomalous"))


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("anomalies"))


def settings(table: Path, out: Path, values: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "data": "table",
        "encoder": "stacked_cnn",
        "decoder": "anomaly",
        "image_size": [24, 32],
        "batch_size": 8,
        "epochs": 2,
        "overrides": {
            "data.path": str(table),
            "data.target": "label",
            "decoder.normal_class": "blue",
            "decoder.output_size": 8,
            "encoder.out_channels": 8,
            "output_dir": str(out),
            **(values or {}),
        },
        **more,
    }


def rewritten(table: Path, name: str, change: Any) -> Path:
    """A table with some rows changed; ``change`` returns the row, or None to leave it out."""
    with table.open(newline="") as file:
        rows = [row for row in map(change, csv.DictReader(file)) if row is not None]
    path = table.parent / name
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def plan(words: dict[str, Any]) -> Any:
    words = dict(words)
    return resolve(lv.compose([], **words.pop("overrides"), **words))


@pytest.fixture(scope="session")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    return lv.fit(**settings(discs, tmp_path_factory.mktemp("run") / "one", epochs=6, lr=3e-3))


def decoder_of(module: VisionModule) -> AnomalyDecoder:
    assert isinstance(module.decoder, AnomalyDecoder)
    return module.decoder


def test_a_run_from_fit_to_reload(trained: lv.Result) -> None:
    config = trained.module.config
    assert (config["task"], config["monitor"], config["decoder"]["normal_class"]) == ("anomaly", "val/auroc", "blue")
    assert config["loss"]["_target_"].endswith("DeepSVDDLoss")
    for name in ("scores", "predictions", "confusion", "curves"):
        assert (trained.folder / "plots" / f"{name}.png").stat().st_size > 500, name
    metrics = json.loads((trained.folder / "metrics.json").read_text())
    for key in ("test/auroc", "test/average_precision", "test/f1", "test/precision", "test/recall", "test/accuracy"):
        assert 0 <= metrics[key] <= 1, key
    assert metrics["test/images/blue"] + metrics["test/images/red"] == 8
    assert metrics["test/auroc"] > 0.9, "a disc of another colour"
    module = lv.load(trained.checkpoint)
    assert torch.equal(decoder_of(module).center, decoder_of(trained.module).center)
    assert decoder_of(module).threshold.isfinite()
    image = torch.randint(0, 255, (3, 3, 40, 30), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(module(image), trained.module.eval()(image))


def test_the_center_is_the_mean_of_the_normal_training_images(discs: Path, tmp_path: Path) -> None:
    # Deep SAD trains on anomalies too; they have no part in the centre.
    result = lv.fit(**settings(discs, tmp_path / "run", loss="deep_sad", epochs=1, lr=1e-12))
    module, data = lv.build(**settings(discs, tmp_path / "other", loss="deep_sad"))
    module.load_state_dict(result.module.state_dict())
    rows = data.index.rows("train")
    assert data.index.label is not None
    normal = data.index.label[rows] == 0
    assert (len(rows), normal.sum()) == (24, 12)
    batch, module = data.batch(rows[normal]), module.eval()
    with torch.no_grad():
        vectors = decoder_of(module).vectors(module.encoder.embed(module.normalize(batch["image"])))
    mean = vectors.double().mean(0)
    margin = torch.where(mean < 0, -0.1, 0.1).double()
    expected = torch.where(mean.abs() < 0.1, margin, mean)
    assert torch.allclose(decoder_of(module).center.double(), expected, atol=1e-5)


def test_predictions_are_scores_and_labels_by_the_threshold(trained: lv.Result, discs: Path, tmp_path: Path) -> None:
    predictions = lv.predict(trained.checkpoint, [str(discs.parent / f"{i}.png") for i in (33, 34, 35)])
    threshold = decoder_of(trained.module).threshold.item()
    for found in predictions:
        assert found.score is not None
        assert found.threshold == threshold
        assert found.label == ("red" if found.score >= threshold else "blue")
        assert found.probabilities is None
    with Anomaly(TARGET).writer(tmp_path, None) as writer:
        for found in predictions:
            writer.add(found)
        writer.add(lv.predict(trained.module, str(discs.parent / "33.png"))[0])
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "score", "threshold"]
    assert len(rows) == 4
    assert float(rows[0]["score"]) == pytest.approx(predictions[0].score, rel=1e-5)
    assert rows[0]["label"] == predictions[0].label


def head(loss: Any = None) -> Head:
    return Head(AnomalyDecoder(FeatureInfo((3,), (4,), 3), 2), Anomaly(TARGET), loss or DeepSVDDLoss(2))


def tally(head: Head, score: Tensor, target: Tensor, size: int = 7) -> dict[str, Tensor]:
    """What the counter of a split comes to, in batches of any size."""
    scores = head.task.scores("val")
    assert isinstance(scores, StoredScores)
    for s, t in zip(score.split(size), target.split(size), strict=True):
        assert head.loss is not None
        head.task.update(scores, head, HeadOutput(s), t, head.loss(s, t))
    return scores.compute()


def example(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(40, generator=generator) < 0.4).long()
    return torch.rand(40, generator=generator) + 0.5 * target, target


def test_the_threshold_with_the_best_f1_and_the_figures_at_it() -> None:
    model, (score, target) = head(), example()
    computed = tally(model, score, target)
    before = model.task.figures(computed)
    assert math.isnan(before["f1"]), "no threshold is known"
    model.task.learn(model, computed)
    threshold = decoder_threshold(model)
    figures, s, t = model.task.figures(computed), score.numpy(), target.numpy()
    assert figures["auroc"] == pytest.approx(roc_auc_score(t, s))
    assert figures["average_precision"] == pytest.approx(average_precision_score(t, s))
    for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert figures[name] == pytest.approx(function(t, s >= threshold)), name
    assert figures["accuracy"] == pytest.approx(((s >= threshold) == t).mean())
    assert figures["f1"] == pytest.approx(max(f1_score(t, s >= v) for v in s))
    recall = model.task.per_class(computed)["recall"]
    assert recall == pytest.approx({"good": (s[t == 0] < threshold).mean(), "anomalous": figures["recall"]})
    # The test split is decided with what was learned on another.
    later = tally(model, *example(seed=1))
    other, truth = (v.numpy() for v in example(seed=1))
    assert model.task.figures(later)["f1"] == pytest.approx(f1_score(truth, other >= threshold))


def decoder_threshold(head: Head) -> float:
    assert isinstance(head.decoder, AnomalyDecoder)
    return head.decoder.threshold.item()


def test_without_anomalies_the_threshold_is_a_quantile_of_the_normal_scores() -> None:
    model, score = head(), example()[0]
    computed = tally(model, score, torch.zeros(40, dtype=torch.int64))
    model.task.learn(model, computed)
    assert decoder_threshold(model) == pytest.approx(np.quantile(score.numpy(), 0.95), rel=1e-5)
    figures = model.task.figures(computed)
    assert all(math.isnan(figures[name]) for name in ("auroc", "f1", "recall"))
    assert figures["accuracy"] == pytest.approx((score.numpy() < decoder_threshold(model)).mean())


def test_anomalies_alone_teach_no_threshold() -> None:
    model = head()
    computed = tally(model, example()[0], torch.ones(40, dtype=torch.int64))
    model.task.learn(model, computed)
    assert math.isnan(decoder_threshold(model))
    assert model.task.per_class(computed) == {}
    found = model.task.prediction(model, HeadOutput(torch.tensor(1.5)), place=Place())
    assert (found.score, found.label, found.threshold) == (1.5, None, None)


class Place:
    path = "x.png"


@pytest.mark.parametrize("loss", [DeepSVDDLoss(2), DeepSADLoss(2)], ids=["svdd", "sad"])
def test_the_loss_of_a_split_does_not_depend_on_its_batches(loss: Any) -> None:
    score, target = example()
    whole = loss(score, target).item()
    for size in (1, 7, 40):
        assert tally(head(loss), score, target, size)["loss"].item() == pytest.approx(whole, rel=1e-6)


def test_without_anomalies_in_validation_the_loss_is_monitored(discs: Path, tmp_path: Path) -> None:
    normal = rewritten(
        discs, "normal_val.csv", lambda row: None if row["split"] == "val" and row["label"] == "red" else row
    )
    decided = plan(settings(normal, tmp_path / "run"))
    assert decided.config["monitor"] == "val/loss"
    assert decided.config["callbacks"]["early_stopping"]["mode"] == "min"
    assert decided.reasons["monitor"] == "no validation image is anomalous"
    with pytest.raises(ConfigError, match="tells two kinds of images apart") as error:
        plan(settings(normal, tmp_path / "run", monitor="val/auroc"))
    assert "monitor=val/loss" in str(error.value)
    result = lv.fit(**settings(normal, tmp_path / "run"))
    assert decoder_of(result.module).threshold.isfinite()
    assert 0 <= result.metrics["test/auroc"] <= 1
    odd = rewritten(discs, "odd_val.csv", lambda row: None if row["split"] == "val" and row["label"] == "blue" else row)
    assert plan(settings(odd, tmp_path / "run")).config["monitor"] == "train/loss"


def test_without_validation_there_are_scores_and_no_threshold(discs: Path, tmp_path: Path) -> None:
    table = rewritten(discs, "no_val.csv", lambda row: None if row["split"] == "val" else row)
    result = lv.fit(**settings(table, tmp_path / "run", values={"data.val_fraction": 0}))
    assert result.module.config["monitor"] == "train/loss"
    assert 0 <= result.metrics["test/auroc"] <= 1
    assert math.isnan(result.metrics["test/f1"])
    assert (result.folder / "plots" / "predictions.png").is_file()
    assert not (result.folder / "plots" / "confusion.png").exists()
    with Anomaly(TARGET).writer(tmp_path, None) as writer:
        writer.add(lv.predict(result.module, str(discs.parent / "33.png"))[0])
    with (tmp_path / "predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["label"], row["threshold"]) == ("", "")


def test_one_of_several_outputs(discs: Path, tmp_path: Path) -> None:
    def stated(row: dict[str, str]) -> dict[str, str]:
        return {**row, "state": {"red": "scratched", "blue": "good"}[row["label"]]}

    words = settings(rewritten(discs, "stated.csv", stated), tmp_path / "run")
    for key in ("data.target", "decoder.normal_class", "decoder.output_size"):
        del words["overrides"][key]
    del words["decoder"]
    words["outputs"] = {
        "label": {"decoder": "classifier"},
        "state": {"decoder": "anomaly", "loss": "drocc"},
    }
    result = lv.fit(**words)
    assert result.module.config["outputs"]["state"]["decoder"]["normal_class"] == "good"
    # The other output learns from all rows, this one from its normal ones.
    assert result.metrics["test/label/accuracy"] >= 0
    assert result.metrics["test/state/images/good"] == 4
    assert 0 <= result.metrics["test/state/auroc"] <= 1
    assert (result.folder / "plots" / "state" / "scores.png").is_file()
    found = lv.predict(result.checkpoint, str(discs.parent / "33.png"))[0].outputs
    assert found["label"].label in ("blue", "red")
    assert found["state"].score is not None
    again = lv.test(result.checkpoint, overrides={"output_dir": str(tmp_path / "test")})
    assert again.metrics["test/state/auroc"] == result.metrics["test/state/auroc"]


def test_training_rows_are_normal_unless_the_loss_learns_from_anomalies(discs: Path, tmp_path: Path) -> None:
    for loss, rows in (("deep_svdd", 12), ("drocc", 12), ("deep_sad", 24)):
        decided = plan(settings(discs, tmp_path, loss=loss))
        assert decided.index.counts() == {"train": rows, "val": 8, "test": 8}
        assert decided.target.class_names == ("blue", "red")


def test_other_data_may_have_classes_of_their_own(trained: lv.Result, discs: Path, tmp_path: Path) -> None:
    def several(row: dict[str, str]) -> dict[str, str]:
        number = int(row["mask"].partition("_")[0])
        return {**row, "label": row["label"] if row["label"] == "blue" else f"red{number % 3}"}

    more = lv.test(trained.checkpoint, data="table", overrides=other(rewritten(discs, "more.csv", several), tmp_path))
    for key in ("test/auroc", "test/f1", "test/recall", "test/loss"):
        assert more.metrics[key] == pytest.approx(trained.metrics[key], rel=1e-6), key
    odd = rewritten(discs, "odd.csv", lambda row: None if row["label"] == "blue" else several(row))
    alone = lv.test(trained.checkpoint, data="table", overrides=other(odd, tmp_path / "odd"))
    assert math.isnan(alone.metrics["test/auroc"])
    assert alone.metrics["test/recall"] == pytest.approx(trained.metrics["test/recall"])
    assert (alone.folder / "plots" / "predictions.png").is_file()


def other(table: Path, out: Path) -> dict[str, Any]:
    return {"data.path": str(table), "data.target": "label", "output_dir": str(out / "test")}


@pytest.mark.parametrize("loss", ["deep_svdd", "drocc"])
def test_a_frozen_encoder_learns_the_same_from_cached_embeddings(discs: Path, tmp_path: Path, loss: str) -> None:
    state = {}
    for cached in (True, False):
        values = {"encoder.trainable": False, "preprocessing.cache_encoder_embeddings": cached}
        made = lv.fit(**settings(discs, tmp_path / str(cached), values=values, loss=loss))
        state[cached] = made.module.state_dict()
    assert state[True].keys() == state[False].keys()
    for key, value in state[True].items():
        # Embeddings are kept in half precision.
        assert torch.allclose(value, state[False][key], rtol=0.02, atol=0.02), key


def test_drocc_trains_an_encoder_in_bfloat16(discs: Path, tmp_path: Path) -> None:
    values = {"trainer.precision": "bf16-mixed", "encoder.conv_norm": "batch", "loss.num_perturbation_steps": 2}
    result = lv.fit(**settings(discs, tmp_path / "run", values=values, loss="drocc"))
    assert math.isfinite(result.metrics["test/loss"])
    assert 0 <= result.metrics["test/auroc"] <= 1


def test_running_statistics_learn_from_the_data_alone(discs: Path, tmp_path: Path) -> None:
    values = {"encoder.conv_norm": "batch", "loss.num_perturbation_steps": 2}
    states = []
    for loss in ("drocc", "deep_svdd"):
        chosen = values if loss == "drocc" else {k: v for k, v in values.items() if not k.startswith("loss.")}
        module, data = lv.build(**settings(discs, tmp_path, values=chosen, loss=loss))
        module.train()
        module._outputs_and_losses(data.batch(data.index.rows("train")))
        states.append({k: v for k, v in module.encoder.state_dict().items() if "running" in k or "num_batches" in k})
        assert all(m.track_running_stats for m in module.modules() if hasattr(m, "track_running_stats"))
    assert states[0].keys() == states[1].keys() != set()
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_a_resumed_run_is_the_uninterrupted_one(discs: Path, tmp_path: Path) -> None:
    words = [
        "+callbacks.steps._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        f"+callbacks.steps.dirpath='{tmp_path / 'steps'}'",
        "+callbacks.steps.filename='{step}'",
        "+callbacks.steps.every_n_train_steps=1",
        "+callbacks.steps.save_top_k=-1",
    ]
    run = settings(discs, tmp_path / "whole", values={"loss.nu": 0.2}, loss="deep_svdd")
    lv.fit(words, **run)
    (tmp_path / "whole" / "checkpoints" / "last.ckpt").rename(tmp_path / "whole.ckpt")
    lv.fit(checkpoint=str(tmp_path / "steps" / "step=3.ckpt"), overrides={"output_dir": str(tmp_path / "again")})
    whole, again = (
        torch.load(tmp_path / name, weights_only=True)["state_dict"]
        for name in ("whole.ckpt", "again/checkpoints/last.ckpt")
    )
    assert whole["heads.of_output.loss.squared_radius"] > 0
    for key, value in whole.items():
        assert torch.equal(value, again[key]), key


def test_the_histogram_shows_scores_of_any_range() -> None:
    rng = np.random.default_rng(0)
    for scores in (rng.random(50), 10 ** rng.normal(0, 3, 50), np.zeros(5), np.array([]), np.array([1.0, np.inf])):
        anomalous = np.arange(len(scores)) % 3 == 0
        figure = scores_figure(scores, anomalous, math.nan if len(scores) < 3 else 0.5, ("good", "$odd"))
        (ax,) = figure.axes
        drawn = sum(patch.get_height() for patch in ax.patches)
        assert drawn == np.isfinite(scores).sum()
        figure.canvas.draw()
