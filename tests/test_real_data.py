"""The whole way on real images and real weights: what a user with such data would do, on small parts of the sets."""

from __future__ import annotations

import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import lightning_vision as lv
from lightning_vision.__main__ import main
from lightning_vision.testing.datasets import write_table
from lightning_vision.testing.processes import command_line

pytestmark = pytest.mark.real_data

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "weights/mobilenet_v2-tflite_quant.safetensors"


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows of a table, with absolute paths."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column in {"image", "mask"} & row.keys():
            row[column] = str(table.parent / row[column])
    return rows


def part(table: Path, out: Path, **counts: int) -> Path:
    """Write a table of ``counts`` rows of each split, spread evenly over classes and over the set."""
    groups = defaultdict(list)
    for row in rows_of(table):
        groups[row["split"], row.get("label", "")].append(row)
    classes = len({label for _, label in groups})
    taken = []
    for (split, _), rows in groups.items():
        wanted = counts[split] // classes
        taken += [rows[i * len(rows) // wanted] for i in range(wanted)]
    return write_table(out, taken)


def shell(words: str, cwd: Path) -> str:
    """Type a line into a shell on a machine without a network; return what it printed."""
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m lightning_vision {words}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["lightning_vision", *words])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# ---- CamVid


def test_dinov2_unet_predicts_the_same_masks_after_its_folder_is_gone(data_root: Path, tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path / "dinov2"
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    camvid = data_root / "data" / "camvid"
    table = part(camvid / "index.csv", tmp_path / "camvid.csv", train=16, val=4, test=4)
    result = lv.fit(
        encoder="dinov2",
        decoder="unet",
        data="table",
        image_size=[98, 130],
        epochs=1,
        batch_size=2,
        lr=5e-3,
        overrides={
            "data.path": str(table),
            "data.class_names": str(camvid / "classes.txt"),
            "data.ignore_index": 11,
            "encoder.pretrained_model_name_or_path": str(folder),
            "decoder.channels": [32, 16, 16, 16],
            "output_dir": str(tmp_path / "run"),
        },
    )
    assert result.module.encoder.weights_origin == f"transformers {folder}"
    assert 0 < result.metrics["test/mean_iou"] < 1
    assert 0 < result.metrics["test/mean_iou_original"] < 1
    paths = [r["image"] for r in rows_of(table) if r["split"] == "test"]
    before = lv.predict(result.module, paths)
    assert len(set(np.concatenate([p.mask.ravel() for p in before]).tolist())) >= 3, "masks of one class prove nothing"
    shutil.rmtree(folder)

    write_table(tmp_path / "new.csv", [{"image": p} for p in paths])
    output = shell("predict checkpoint=run/checkpoints/best.ckpt source=new.csv hydra.run.dir=out", tmp_path)
    assert "4 images predicted" in output
    with (camvid / "palette.csv").open(newline="") as file:
        palette = [int(row[c]) for row in csv.DictReader(file) if row["name"] != "void" for c in "rgb"]
    for prediction in before:
        with Image.open(tmp_path / "out" / "predictions" / "masks" / f"{Path(prediction.path).stem}.png") as mask:
            assert (mask.mode, mask.size) == ("P", (480, 360))
            assert mask.getpalette()[: len(palette)] == palette
            assert np.array_equal(np.array(mask), prediction.mask)
    assert len(list((tmp_path / "out" / "predictions" / "overlays").glob("*.jpg"))) == 4


def test_check_counts_camvid(
    data_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    camvid = data_root / "data" / "camvid"
    data = [f"data.path={camvid / 'index.csv'}", f"data.class_names={camvid / 'classes.txt'}", "data.ignore_index=11"]
    assert run(monkeypatch, "check", "data=table", *data, "decoder=unet") == 0
    report = capsys.readouterr().out
    for line in (
        "images   train 120, val 40, test 40",
        "size     360 x 480 (200)  (height x width)",
        "channels colour (200)",
        "format   JPEG (200)",
        "target   masks, values are index, 11 is ignored; 11 classes",
        "The data can be trained on.",
    ):
        assert line in report
    # Shares of the pixels that are not void, counted here once more.
    counts = np.zeros(256, np.int64)
    for row in rows_of(camvid / "index.csv"):
        if row["split"] == "train":
            with Image.open(row["mask"]) as mask:
                counts += np.bincount(np.array(mask).ravel(), minlength=256)
    shares = counts[:11] / counts[:11].sum()
    names = (camvid / "classes.txt").read_text().split()[:11]
    for name, share in zip(names, shares, strict=True):
        (line,) = (text for text in report.splitlines() if text.split()[:1] == [name])
        assert line.split()[1] == f"{share:.2%}"


# ---- weather, with pretrained weights


def probe(data_root: Path, folder: Path, weights: Path, inside: bool | None = None) -> dict[str, Any]:
    """Settings of a linear probe on small weather images."""
    table = folder / "weather.csv"
    if not table.exists():
        part(data_root / "data" / "weather" / "index.csv", table, train=48, val=16, test=16)
    return {
        "encoder": "mobilenetv2",
        "decoder": "classifier",
        "data": "table",
        "image_size": 64,
        "epochs": 2,
        "lr": 1e-2,
        "overrides": {
            "data.path": str(table),
            "encoder.weights": str(weights),
            "encoder.trainable": False,
            "encoder.saved_weights_in_checkpoint": inside,
            "output_dir": str(folder / "run"),
        },
    }


@pytest.mark.parametrize("inside", [None, False], ids=["weights in the checkpoint", "weights left out"])
def test_a_linear_probe_on_weather(inside: bool | None, data_root: Path, tmp_path: Path) -> None:
    published = data_root / WEIGHTS
    weights = tmp_path / "mobilenet_v2.safetensors"
    shutil.copy(published, weights)
    result = lv.fit(**probe(data_root, tmp_path, weights, inside))
    assert result.module.task.target.class_names == ("cloudy", "rain", "shine", "sunrise")

    # The weights and BatchNorm's statistics are those of the file, to the last bit.
    original = load_file(published)
    own = {k.removeprefix("model."): v for k, v in result.module.encoder.state_dict().items()}
    assert {k for k in original if not k.startswith("classifier.")} == own.keys()
    assert sum("running_" in k for k in own) > 100
    assert all(torch.equal(value, original[key]) for key, value in own.items())
    assert not any(p.requires_grad for p in result.module.encoder.parameters())

    image = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    size = result.checkpoint.stat().st_size
    with torch.no_grad():
        expected = result.module.eval()(image)
        if inside is None:
            assert size > 8e6
            weights.unlink()
            assert torch.equal(lv.load(result.checkpoint)(image), expected)
            return
        assert size < 1e6
        assert torch.equal(lv.load(result.checkpoint)(image), expected)
    modified = {k: v.clone() for k, v in original.items()}
    modified["features.0.0.weight"][0, 0, 0, 0] += 1e-3
    save_file(modified, weights)
    with pytest.raises(lv.CheckpointError, match="has other weights") as caught:
        lv.load(result.checkpoint)
    digest = result.module.encoder.weights_digest()[:16]
    assert digest in str(caught.value.expected)
    assert digest not in str(caught.value.given)
    assert caught.value.overrides[0].startswith("encoder.weights=")
    weights.unlink()
    with pytest.raises(lv.ConfigError, match="does not exist"):
        lv.load(result.checkpoint)


def test_check_counts_weather(
    data_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    table = data_root / "data" / "weather" / "index.csv"
    assert run(monkeypatch, "check", "data=table", f"data.path={table}", "decoder=classifier") == 0
    report = capsys.readouterr().out
    assert "images   train 320, val 80, test 120" in report
    sizes = set()
    for row in rows_of(table):
        with Image.open(row["image"]) as image:
            sizes.add(image.size)
    assert f"{len(sizes)} sizes (height x width)" in report
    assert "target   one label an image; 4 classes" in report
    for name in ("cloudy", "rain", "shine", "sunrise"):
        (line,) = (text for text in report.splitlines() if text.split()[:1] == [name])
        assert line.split() == [name, "80", "20", "30"]
    assert "The data can be trained on." in report


# ---- grey, mixed and broken images


def test_nuclei_of_mixed_modes_and_binary_masks(data_root: Path, tmp_path: Path) -> None:
    nuclei = data_root / "data" / "nuclei"
    rows = rows_of(nuclei / "index_255.csv")
    modes = defaultdict(list)
    for row in rows:
        with Image.open(row["image"]) as image:
            modes[row["split"], image.mode].append(row)
    taken = [row for (split, _), found in modes.items() for row in found[: 8 if split == "train" else 3]]
    random.Random(0).shuffle(taken)
    table = write_table(tmp_path / "nuclei.csv", taken)
    result = lv.fit(
        data="table",
        decoder="unet",
        encoder="stacked_cnn",
        image_size=64,
        epochs=3,
        lr=3e-3,
        batch_size=4,
        overrides={
            "data.path": str(table),
            "data.class_names": str(nuclei / "classes.txt"),
            "decoder.channels": [16, 16],
            "decoder.num_stages": 2,
            "output_dir": str(tmp_path / "run"),
        },
    )
    assert {mode for _, mode in modes} == {"L", "RGB"}
    assert result.module.geometry.num_channels == 3
    assert result.module.task.target.mask_values == "binary"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    ious = [metrics[f"test/iou/{name}"] for name in ("background", "nucleus")]
    assert all(0 < iou < 1 for iou in ious), "figures of one class prove nothing"
    assert metrics["test/mean_iou"] == pytest.approx(sum(ious) / 2)
    # The figure at the files' own size, from the predicted masks and the files alone.
    test = {row["image"]: row["mask"] for row in taken if row["split"] == "test"}
    common, either = np.zeros(2), np.zeros(2)
    for prediction in lv.predict(result.module, list(test)):
        with Image.open(test[prediction.path]) as file:
            truth = np.array(file) == 255
        for c in (0, 1):
            common[c] += ((prediction.mask == c) & (truth == c)).sum()
            either[c] += ((prediction.mask == c) | (truth == c)).sum()
    assert metrics["test/mean_iou_original"] == pytest.approx(float((common / either).mean()), abs=1e-6)


def test_grey_elpv_gets_a_pretrained_encoder_of_one_channel(data_root: Path, tmp_path: Path) -> None:
    elpv = data_root / "data" / "elpv"
    settings = {
        "encoder": "mobilenetv2",
        "decoder": "classifier",
        "data": "table",
        "image_size": 64,
        "overrides": {
            "data.path": str(part(elpv / "index.csv", tmp_path / "elpv.csv", train=16, val=8, test=8)),
            "data.class_names": str(elpv / "classes.txt"),
            "encoder.weights": str(data_root / WEIGHTS),
            "output_dir": str(tmp_path / "run"),
        },
    }
    module, data = lv.build(**settings)
    assert module.geometry.num_channels == 1
    assert module.task.target.class_names == ("functional", "defective")
    first = module.encoder.model.features[0][0].weight
    assert torch.equal(first, load_file(data_root / WEIGHTS)["features.0.0.weight"].sum(1, keepdim=True))
    # A grey image gives what its colour copy gives the encoder of three channels, normalised in the same way.
    batch = data.batch(data.index.rows("train")[:4])
    assert batch["image"].shape == (4, 1, 64, 64)
    pixels = module.normalize(batch["image"])
    settings["overrides"] |= {"preprocessing.num_channels": 3}
    colour, _ = lv.build(**settings)
    with torch.no_grad():
        grey_features = module.encoder.eval().embed(pixels)
        colour_features = colour.encoder.eval().embed(pixels.expand(-1, 3, -1, -1))
    torch.testing.assert_close(grey_features, colour_features, atol=1e-4, rtol=1e-3)


@pytest.fixture
def torn(data_root: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of weather images of which one of the training split breaks off in the middle; and a table of them."""
    table = part(data_root / "data" / "weather" / "index.csv", tmp_path / "all.csv", train=16, val=4, test=4)
    rows = rows_of(table)
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, row in enumerate(rows):
        row["image"] = shutil.copy(row["image"], photos / f"{i}.jpg")
    broken = Path(next(row["image"] for row in rows if row["split"] == "train"))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    return write_table(tmp_path / "torn.csv", rows), broken


SMALL = ["encoder.out_channels=8", "decoder=classifier", "image_size=32", "epochs=1"]


def test_a_torn_image_stops_fit_and_is_listed_by_predict(
    torn: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, broken = torn
    monkeypatch.chdir(tmp_path)
    data = ["data=table", f"data.path={table}", *SMALL]
    assert run(monkeypatch, *data) == 2
    error = capsys.readouterr().err
    assert str(broken) in error
    assert "Traceback" not in error
    assert run(monkeypatch, *data, "preprocessing.on_bad_image=skip", "hydra.run.dir=run") == 0
    capsys.readouterr()
    found = ["checkpoint=run/checkpoints/last.ckpt", "source=photos"]
    assert run(monkeypatch, "predict", *found, "hydra.run.dir=out") == 0
    output = capsys.readouterr().out
    assert "23 images predicted" in output
    assert "images that could not be read, left out or blanked (1):" in output
    assert f"  {broken}: " in output
    with (tmp_path / "out" / "predictions" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {Path(r["path"]).name for r in rows} == {f"{i}.jpg" for i in range(24)} - {broken.name}
    assert set(Counter(r["label"] for r in rows)) <= {"cloudy", "rain", "shine", "sunrise"}


def test_odd_paths_on_the_command_line(data_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my photos, (2024)=ü"
    weather = part(data_root / "data" / "weather" / "index.csv", tmp_path / "all.csv", train=12, val=4, test=4)
    rows = rows_of(weather)
    for i, row in enumerate(rows):
        name = folder / f"{row['label']} {i}, (a)=ö.jpg"
        name.parent.mkdir(exist_ok=True)
        shutil.copy(row["image"], name)
        row["image"] = name.name
    write_table(folder / "in dex, (1)=ß.csv", rows)
    path = shlex.quote(f"data.path={folder}/in dex, (1)=ß.csv")
    words = [*shlex.split(f"data=table {path}"), *SMALL, "hydra.run.dir=run"]
    command_line(*words, cwd=tmp_path).succeed()
    shutil.move(tmp_path / "run" / "checkpoints" / "best.ckpt", folder / "best, (x)=ä.ckpt")
    checkpoint = shlex.quote(f"checkpoint={folder}/best, (x)=ä.ckpt")
    source = shlex.quote(f"source={folder}")
    assert "20 images predicted" in shell(f"predict {checkpoint} {source} hydra.run.dir=out", tmp_path)
