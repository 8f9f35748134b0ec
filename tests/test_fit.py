"""The way from a config to a trained, tested, reloaded model, from Python, on small generated data."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision.errors import CheckpointError, ConfigError, DataError
from lightning_vision.testing.discs import write_discs

CNN = {"encoder.out_channels": 8, "decoder.channels": [16, 8]}
STEPS = [
    "+callbacks.steps._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    "+callbacks.steps.filename='{step}'",
    "+callbacks.steps.every_n_train_steps=1",
    "+callbacks.steps.save_top_k=-1",
]


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def settings(table: Path, out: Path, **more: Any) -> dict[str, Any]:
    values = {
        "data.path": str(table),
        "data.ignore_index": 255,
        "data.class_names": ["background", "blue", "red"],
        "output_dir": str(out),
        **CNN,
        **more.pop("values", {}),
    }
    return {
        "encoder": "stacked_cnn",
        "decoder": "unet",
        "data": "table",
        "image_size": [32, 40],
        "epochs": 2,
        "batch_size": 8,
        "overrides": values,
        **more,
    }


def labels(table: Path, out: Path, **more: Any) -> dict[str, Any]:
    result = settings(table, out, **more)
    result["decoder"] = "classifier"
    result["overrides"] = {
        k: v
        for k, v in result["overrides"].items()
        if k not in ("decoder.channels", "data.ignore_index", "data.class_names")
    }
    return result


@pytest.fixture(scope="session")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    return lv.fit(**settings(shapes, tmp_path_factory.mktemp("run"), epochs=6, lr=5e-3))


def test_a_result_shows_itself_in_a_notebook(trained: lv.Result) -> None:
    assert {"curves", "confusion", "predictions"} <= set(trained.plots)
    page = trained._repr_html_()
    assert f"<td>{trained.metrics['test/mean_iou']:.4f}</td>" in page
    assert "<td>background</td>" in page
    assert f"test/mean_iou {trained.metrics['test/mean_iou']:.4f}" in repr(trained)
    assert "background" not in repr(trained)


def test_a_quiet_fit_and_test_say_nothing(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = lv.fit(quiet=True, **settings(shapes, tmp_path, epochs=1))
    lv.test(result.checkpoint, quiet=True, output_dir=str(tmp_path / "test"))
    assert capsys.readouterr().out == ""
    assert (tmp_path / "plots" / "curves.png").is_file()


def test_the_run_folder_is_complete(trained: lv.Result) -> None:
    folder = trained.folder
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "plots/curves.png", "plots/confusion.png"):
        assert (folder / name).stat().st_size > 500, name
    assert (folder / "plots/predictions.png").stat().st_size > 500
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert config["task"] == "segmentation"
    assert config["image_size"] == [32, 40]
    assert config["monitor"] == "val/mean_iou"
    assert "auto" not in {config["task"], config["monitor"], config["encoder_lr_factor"]}
    assert "# task: " in (folder / "config.yaml").read_text(encoding="utf-8")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for key in ("test/mean_iou", "test/mean_iou_original", "test/pixel_accuracy", "test/mean_accuracy", "test/dice"):
        assert 0 <= metrics[key] <= 1, key
    assert metrics["test/loss"] > 0
    assert set(metrics) >= {f"test/iou/{c}" for c in ("background", "blue", "red")}
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == [str(i) for i in range(1, 7)]
    assert all(math.isfinite(float(row[key])) for row in rows for key in ("train/loss", "val/mean_iou", "lr/head"))


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as table:
        return list(csv.DictReader(table))


def test_the_rows_of_images_and_classes_add_up_to_the_figures(trained: lv.Result, shapes: Path) -> None:
    images, classes = (rows_of(trained.folder / name) for name in ("per_image.csv", "per_class.csv"))
    test = [str(shapes.parent / row["image"]) for row in rows_of(shapes) if row["split"] == "test"]
    assert [row["path"] for row in images] == test, "each once, in the order of the table"
    pixels = [float(row["pixels"]) for row in images]
    right = sum(float(row["pixel_accuracy"]) * count for row, count in zip(images, pixels, strict=True))
    assert right / sum(pixels) == pytest.approx(trained.metrics["test/pixel_accuracy"], abs=1e-5)
    assert sum(float(row["support"]) for row in classes) == sum(pixels)
    for row in classes:
        assert float(row["iou"]) == pytest.approx(trained.metrics[f"test/iou/{row['class']}"], abs=1e-5)
    page = (trained.folder / "report.html").read_text(encoding="utf-8")
    assert f"<p>{trained.metrics['test/mean_iou']:.3f}</p>" in page
    for name in ("confusion", "worst", "best", "predictions", "curves"):
        assert (trained.folder / "plots" / f"{name}.png").is_file()
    assert page.count("data:image/") >= 5


@pytest.mark.parametrize(("split", "count"), [("val", 8), ("all", 40)])
def test_any_split_can_be_scored(trained: lv.Result, split: str, count: int, tmp_path: Path) -> None:
    scored = lv.test(trained.module, split=split, overrides={"output_dir": str(tmp_path)})
    assert {key.partition("/")[0] for key in scored.metrics} == {split}
    assert scored.metrics.keys() == {
        key.replace("test/", f"{split}/") for key in trained.metrics if key.startswith("test/")
    }
    assert len(rows_of(tmp_path / "per_image.csv")) == count
    if split == "val":
        best = max(float(row["val/mean_iou"]) for row in rows_of(trained.folder / "metrics.csv"))
        assert scored.metrics["val/mean_iou"] == pytest.approx(best, abs=1e-6)


def test_a_fit_takes_no_split(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(lv.ConfigError, match="fit does not heed split"):
        lv.fit(**settings(shapes, tmp_path), split="val")


def test_it_learned_something_that_the_original_size_agrees_with(trained: lv.Result) -> None:
    # Discs of two colours on a dark ground: a network that ignores the image cannot exceed a third.
    assert trained.metrics["test/mean_iou"] > 0.5
    assert trained.metrics["test/mean_iou_original"] == pytest.approx(trained.metrics["test/mean_iou"], abs=0.1)


def test_reload_predicts_the_same_to_the_last_bit(trained: lv.Result) -> None:
    module = lv.load(trained.checkpoint)
    image = torch.randint(0, 255, (2, 3, 47, 61), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(module(image), trained.module.eval()(image))
    assert module.task.target.class_names == ("background", "blue", "red")
    assert not module.training


@pytest.mark.parametrize(
    "target", ["os.system", "lightning_vision.runfolder.os.system", "lightning_vision.data.sources.memory.spool"]
)
def test_a_checkpoint_cannot_name_code_to_run(trained: lv.Result, tmp_path: Path, target: str) -> None:
    state = torch.load(trained.checkpoint, weights_only=True)
    state[checkpoints.KEY]["config"]["encoder"] = {"_target_": target, "_args_": [[], str(tmp_path / "made")]}
    torch.save(state, tmp_path / "crafted.ckpt")
    with pytest.raises(lv.ConfigError, match=r"may not build|blocklisted"):
        lv.load(tmp_path / "crafted.ckpt")
    assert not (tmp_path / "made").exists()


def test_weights_that_do_not_fit_are_refused(trained: lv.Result, tmp_path: Path) -> None:
    state = checkpoints.read(trained.checkpoint)
    del state["state_dict"]["heads.of_output.decoder.head.weight"]
    torch.save(state, tmp_path / "other.ckpt")
    with pytest.raises(lv.CheckpointError, match=r"decoder\.head\.weight"):
        lv.load(tmp_path / "other.ckpt")


def test_test_action_gives_the_figures_of_the_fit(trained: lv.Result, tmp_path: Path) -> None:
    again = lv.test(trained.checkpoint, overrides={"output_dir": str(tmp_path)})
    for key, value in again.metrics.items():
        assert value == pytest.approx(trained.metrics[key], abs=1e-6, nan_ok=True), key
    assert (tmp_path / "metrics.json").is_file()


@pytest.mark.parametrize("action", ["fit", "test"])
def test_pictures_that_fail_do_not_cost_the_figures(
    action: str, trained: lv.Result, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pictures(*args: object) -> None:
        raise DataError("an image has gone")

    monkeypatch.setattr("lightning_vision.reports.run.report_figures", no_pictures)
    given = [] if action == "fit" else [trained.checkpoint]
    choices = settings(shapes, tmp_path, epochs=1) if action == "fit" else {"overrides": {"output_dir": str(tmp_path)}}
    with pytest.raises(DataError, match="gone"):
        getattr(lv, action)(*given, **choices)
    assert "test/mean_iou" in json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))


def read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_prediction_has_each_images_own_size(trained: lv.Result, shapes: Path) -> None:
    paths = [str(shapes.parent / n) for n in ("0.jpg", "1.png", "3.png")]
    found = lv.predict(trained.checkpoint, paths)
    arrays = [read(p) for p in paths]
    assert [p.mask.shape for p in found] == [a.shape[:2] for a in arrays]
    assert all(p.mask.dtype == np.uint8 and p.mask.max() <= 2 for p in found)
    from_array, from_pil = lv.predict(trained.checkpoint, [arrays[1], Image.fromarray(arrays[1])])
    assert np.array_equal(from_array.mask, found[1].mask)
    assert np.array_equal(from_pil.mask, found[1].mask)


def test_classification_from_the_same_table(shapes: Path, tmp_path: Path) -> None:
    result = lv.fit(**labels(shapes, tmp_path, epochs=3, lr=5e-3))
    correct = [float(row["correct"]) for row in rows_of(tmp_path / "per_image.csv")]
    assert sum(correct) / len(correct) == pytest.approx(result.metrics["test/accuracy"])
    assert set(result.metrics) >= {"test/accuracy", "test/accuracy_macro", "test/accuracy/red", "test/f1/blue"}
    assert result.module.task.target.class_names == ("blue", "red")
    (one,) = lv.predict(result.module, str(shapes.parent / "1.png"))
    assert one.label in ("blue", "red")
    assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("step", [2, 3, 4], ids=["mid-epoch", "last batch of an epoch", "first batch of the next"])
def test_resume_continues_exactly(shapes: Path, tmp_path: Path, step: int) -> None:
    words = ["encoder.conv_dropout=0.3", *STEPS, f"+callbacks.steps.dirpath='{tmp_path / 'steps'}'"]
    whole = settings(shapes, tmp_path / "whole", augmentation="random_horizontal_flip")
    lv.fit(words, **whole)
    (tmp_path / "whole" / "checkpoints" / "last.ckpt").rename(tmp_path / "whole.ckpt")
    # The same run folder: a run is resumed where it stopped.
    part = settings(shapes, tmp_path / "whole", augmentation="random_horizontal_flip")
    part["checkpoint"] = str(tmp_path / "steps" / f"step={step}.ckpt")
    words[-1] = f"+callbacks.steps.dirpath='{tmp_path / 'more'}'"
    lv.fit(words, **part)
    a, b = (checkpoints.read(tmp_path / name) for name in ("whole.ckpt", "whole/checkpoints/last.ckpt"))
    assert a["global_step"] == b["global_step"] == 6
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    left, right = (c["optimizer_states"][0]["state"] for c in (a, b))
    for parameter, state in left.items():
        assert all(torch.equal(state[k], right[parameter][k]) for k in state)


def test_resume_needs_nothing_but_the_checkpoint_and_keeps_the_best(trained: lv.Result, tmp_path: Path) -> None:
    last = str(trained.folder / "checkpoints" / "last.ckpt")
    # At this learning rate of a finished cosine the next epoch is no better, in a folder of its own.
    more = lv.fit(checkpoint=last, epochs=7, overrides={"output_dir": str(tmp_path)})
    assert more.metrics["epochs"] == 7
    assert more.metrics["best"] >= trained.metrics["best"]
    assert more.checkpoint == tmp_path / "checkpoints" / "best.ckpt"
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(i) for i in range(1, 8)]
    assert type(more.module.encoder) is type(trained.module.encoder)
    assert more.module.encoder.info == trained.module.encoder.info
    with pytest.raises(lv.ConfigError, match="lr cannot change"):
        lv.fit(checkpoint=last, lr=0.3, overrides={"output_dir": str(tmp_path)})


def test_a_checkpoint_of_the_first_format_is_scored_and_goes_on(trained: lv.Result, tmp_path: Path) -> None:
    last = trained.folder / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    kept = state[checkpoints.KEY]
    # As it was written before there were several outputs.
    ((_, output),) = kept.pop("outputs").items()
    kept |= {**output, "format_version": 1}
    kept["config"] = {k: v for k, v in kept["config"].items() if k not in ("outputs", "calibrate")}
    state["state_dict"] = {k.removeprefix("heads.of_output."): v for k, v in state["state_dict"].items()}
    torch.save(state, old := tmp_path / "old.ckpt")
    now, before = (lv.test(file, overrides={"output_dir": str(tmp_path / "test")}).metrics for file in (last, old))
    assert before == pytest.approx(now, nan_ok=True)
    more = [
        lv.fit(checkpoint=str(file), epochs=7, overrides={"output_dir": str(tmp_path / file.stem)}).module.state_dict()
        for file in (last, old)
    ]
    assert all(torch.equal(value, more[1][key]) for key, value in more[0].items())


def test_a_finished_checkpoint_is_not_trained_on(
    trained: lv.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(trained.folder / "checkpoints" / "last.ckpt")
    with pytest.raises(lv.ConfigError, match="more epochs than are wanted"):
        lv.fit(checkpoint=last, epochs=4, overrides={"output_dir": str(tmp_path)})
    again = lv.fit(checkpoint=last, overrides={"output_dir": str(tmp_path)})
    assert "all 6 epochs are trained" in capsys.readouterr().out
    assert again.metrics["test/loss"] == pytest.approx(trained.metrics["test/loss"], abs=1e-6)


def test_a_composed_config_counts_beside_a_checkpoint(trained: lv.Result, tmp_path: Path) -> None:
    config = lv.compose(data="table", overrides={"data.path": str(tmp_path / "none.csv"), "output_dir": str(tmp_path)})
    with pytest.raises(lv.ConfigError, match=r"none\.csv"):
        lv.test(trained.checkpoint, config)


def test_the_data_of_the_training_are_never_scored_as_a_whole(shapes: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in shapes.read_text(encoding="utf-8").splitlines()]
    at = lines[0].index("split")
    table = shapes.with_name("unsplit.csv")
    table.write_text("\n".join(",".join(c for i, c in enumerate(line) if i != at) for line in lines), encoding="utf-8")
    config = settings(table, tmp_path / "run", epochs=1, seed=5)
    fitted = lv.fit(**config)
    # The same table, typed once more: the test rows that the seed of the training drew, not all rows.
    again = lv.test(
        fitted.checkpoint, data="table", overrides={"data.path": str(table), "output_dir": str(tmp_path / "again")}
    )
    confusion, all_rows = (r.module.results["test"]["confusion"].sum() for r in (again, fitted))
    assert confusion == all_rows
    assert again.metrics["test/loss"] == pytest.approx(fitted.metrics["test/loss"], abs=1e-6)
    copy = table.with_name("other.csv")
    copy.write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    other = lv.test(
        fitted.checkpoint, data="table", overrides={"data.path": str(copy), "output_dir": str(tmp_path / "other")}
    )
    assert other.module.results["test"]["confusion"].sum() > 5 * confusion


def test_a_checkpoint_that_leaves_out_its_frozen_pretrained_encoder(shapes: Path, tmp_path: Path) -> None:
    import timm

    files = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        files.append(tmp_path / f"{seed}.pth")
        torch.save(timm.create_model("test_resnet", pretrained=False, num_classes=0).state_dict(), files[-1])
    values = {
        "encoder.model_name": "test_resnet",
        "encoder.weights": str(files[0]),
        "encoder.trainable": False,
        "encoder.saved_weights_in_checkpoint": False,
    }
    config = settings(shapes, tmp_path / "run", encoder="timm", epochs=1, values=values)
    del config["overrides"]["encoder.out_channels"], config["overrides"]["decoder.channels"]
    fitted = lv.fit(**config)
    inside = checkpoints.read(fitted.checkpoint)["state_dict"]
    assert not any(key.startswith("encoder.") for key in inside)
    image = torch.randint(0, 255, (1, 3, 32, 40), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(lv.load(fitted.checkpoint)(image), fitted.module.eval()(image))
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(lv.CheckpointError, match="other weights"):
        lv.load(fitted.checkpoint)


def test_a_frozen_encoder_does_not_move(shapes: Path, tmp_path: Path) -> None:
    config = settings(shapes, tmp_path, values={"encoder.conv_norm": "batch", "encoder.trainable": False})
    del config["overrides"]["decoder.channels"]
    config["encoder"] = "unet"
    config["overrides"] = {k: v for k, v in config["overrides"].items() if k != "encoder.out_channels"}
    config["overrides"]["encoder.base_channels"] = 4
    module, _ = lv.build(**config)
    before = {k: v.clone() for k, v in module.encoder.state_dict().items()}
    after = lv.fit(**config).module.encoder.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_bfloat16_autocast_trains(shapes: Path, tmp_path: Path) -> None:
    config = settings(shapes, tmp_path, values={"trainer.precision": "bf16-mixed"})
    result = lv.fit(**config)
    assert math.isfinite(result.metrics["test/loss"])
    assert all(p.dtype == torch.float32 for p in result.module.parameters())


def test_early_stopping_ends_the_run(shapes: Path, tmp_path: Path) -> None:
    config = settings(shapes, tmp_path, epochs=30, values={"callbacks.early_stopping.patience": 1, "lr": 1e-12})
    result = lv.fit(**config)
    assert result.metrics["epochs"] < 30


@pytest.mark.parametrize("mode", ["eager", "lazy_cached"])
def test_decode_modes_train_to_the_same_weights(shapes: Path, tmp_path: Path, mode: str) -> None:
    runs = {}
    for name in ("lazy", mode):
        values = {"preprocessing.mode": name, "preprocessing.lazy_cache_dir": str(tmp_path / "cache")}
        runs[name] = lv.fit(**settings(shapes, tmp_path / name, values=values)).module.state_dict()
    assert all(torch.equal(value, runs[mode][key]) for key, value in runs["lazy"].items())


def test_a_checkpoint_without_its_frozen_encoder(shapes: Path, tmp_path: Path) -> None:
    values = {
        "encoder.model_name": "test_resnet",
        "encoder.use_pretrained": False,
        "encoder.trainable": False,
        "encoder.saved_weights_in_checkpoint": False,
    }
    config = settings(shapes, tmp_path, encoder="timm", values=values)
    del config["overrides"]["encoder.out_channels"]
    with pytest.raises(lv.ConfigError, match="saved_weights_in_checkpoint"):
        lv.fit(**config)


def test_other_classes_are_refused(trained: lv.Result, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(lv.CheckpointError, match="background"):
        lv.test(
            trained.checkpoint,
            data="table",
            overrides={
                "data.path": str(shapes),
                "data.ignore_index": 255,
                "data.class_names": ["background", "red", "blue"],
                "output_dir": str(tmp_path),
            },
        )


def test_arrays_train_without_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bright = [rng.integers(128, 255, (24, 24, 3), dtype=np.uint8) for _ in range(20)]
    dark = [rng.integers(0, 127, (24, 24, 3), dtype=np.uint8) for _ in range(20)]
    result = lv.fit(
        encoder="stacked_cnn",
        decoder="classifier",
        data=(bright + dark, ["bright"] * 20 + ["dark"] * 20),
        epochs=3,
        overrides={"output_dir": str(tmp_path)},
    )
    assert result.module.task.target.class_names == ("bright", "dark")
    found = lv.predict(result.module, [bright[0], dark[0]])
    assert len(found) == 2


def test_odd_characters_in_paths(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a b, c=(ü) 'x'"
    folder.mkdir()
    for file in shapes.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    result = lv.fit(**settings(folder / "index.csv", folder / "run", epochs=1))
    assert lv.test(str(result.checkpoint), overrides={"output_dir": str(tmp_path / "t")}).metrics["test/loss"] > 0


def test_without_test_rows_the_val_rows_are_scored_and_the_table_has_one_row_an_epoch(
    shapes: Path, tmp_path: Path
) -> None:
    table = shapes.with_name("notest.csv")
    lines = shapes.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(line for line in lines if not line.endswith(",test")), encoding="utf-8")
    result = lv.fit(**labels(table, tmp_path / "run"))
    assert "val/accuracy" in result.metrics
    again = lv.test(result.checkpoint, overrides={"output_dir": str(tmp_path / "again")})
    assert again.metrics["val/loss"] == pytest.approx(result.metrics["val/loss"], abs=1e-6)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert not (tmp_path / "again" / "metrics.csv").exists()


def test_other_data_without_test_and_val_rows_are_scored_as_a_whole(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shapes.with_name("train.csv")
    lines = shapes.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:1] + [x for x in lines if x.endswith(",train")]), encoding="utf-8")
    fitted = lv.fit(**labels(shapes, tmp_path / "run", epochs=1))
    values = {"data.path": str(table), "output_dir": str(tmp_path / "test")}
    other = lv.test(fitted.checkpoint, data="table", overrides=values)
    assert other.module.results["test"]["confusion"].sum() == 24
    assert "all 24 rows are scored" in capsys.readouterr().out


def test_without_val_and_test_rows_there_is_a_checkpoint_but_nothing_to_score(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["image,label", f"{shapes.parent}/0.jpg,a", f"{shapes.parent}/1.png,b"]
    (tmp_path / "two.csv").write_text("\n".join(rows), encoding="utf-8")
    result = lv.fit(**labels(tmp_path / "two.csv", tmp_path / "run", epochs=1))
    said = capsys.readouterr()
    assert "no rows to score" in said.out
    assert "no samples in val" in said.err
    assert result.checkpoint.is_file()
    with pytest.raises(lv.DataError, match="nothing to score"):
        lv.test(result.checkpoint, overrides={"output_dir": str(tmp_path / "test")})


def test_what_python_may_hand_over(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    parts = {"encoder": "stacked_cnn", "decoder": "classifier", "output_dir": str(tmp_path)}
    result = lv.fit("epochs=1", data=(images, ["a", "b"] * 6), **parts)
    assert result.metrics["epochs"] == 1
    many = lv.predict(result.module, images)
    assert len(many) == 12
    (one,) = lv.predict(result.module, images[3])
    assert one.probabilities == pytest.approx(many[3].probabilities, abs=1e-5)
    with pytest.raises(lv.ConfigError, match="no pair"):
        lv.fit(data=(images,), **parts)
    with pytest.raises(lv.ConfigError, match="data has no setting 'train'") as error:
        lv.fit(data={"train": (images, ["a", "b"] * 6)}, **parts)
    assert len(str(error.value)) < 1000


def test_skipped_images_are_named(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    lines = shapes.read_text(encoding="utf-8").splitlines()
    table = shapes.with_name("bad.csv")
    table.write_text("\n".join([*lines, f"{tmp_path}/bad.png,,red,train"]), encoding="utf-8")
    config = labels(table, tmp_path / "run", epochs=1, values={"preprocessing.on_bad_image": "skip"})
    lv.fit(**config)
    assert f"images that could not be read, left out or blanked (1):\n  {tmp_path}/bad.png: " in capsys.readouterr().out


def test_grey_images_for_a_model_of_colours_are_refused_unless_meant(
    trained: lv.Result, shapes: Path, tmp_path: Path
) -> None:
    for file in shapes.parent.iterdir():
        if file.suffix in (".png", ".jpg"):
            image = Image.open(file)
            (image if "mask" in file.name else image.convert("L")).save(tmp_path / file.name)
    (tmp_path / "index.csv").write_text(shapes.read_text())
    grey = {"data.path": str(tmp_path / "index.csv"), "output_dir": str(tmp_path / "out")}
    with pytest.raises(CheckpointError, match="no colour") as caught:
        lv.test(trained.checkpoint, data="table", overrides=grey)
    assert "preprocessing.num_channels=3" in str(caught.value)
    result = lv.test(trained.checkpoint, data="table", overrides={**grey, "preprocessing.num_channels": 3})
    assert 0 <= result.metrics["test/mean_iou"] <= 1
    with pytest.raises(ConfigError, match="decided by the checkpoint"):
        lv.test(trained.checkpoint, data="table", overrides={**grey, "preprocessing.num_channels": 1})
