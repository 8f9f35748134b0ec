"""Colour-coded masks through whole runs: fit, reload, test and predict."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lightning_vision as lv
from lightning_vision.checkpoint import require_same_target
from lightning_vision.errors import CheckpointError, ConfigError, DataError
from lightning_vision.inference.run import predict_to_folder
from lightning_vision.settings import with_trained_classes
from lightning_vision.types import Palette, TargetSpec

COLORS: Palette = ((0, 0, 0), (10, 200, 30), (255, 0, 0))
TRAINED = TargetSpec("mask", ("a", "b", "c"), 255, "color", COLORS)
TINY = ["encoder=stacked_cnn", "image_size=32", "epochs=1", "preprocessing.infer_image_num_classes=true"]


def write_masks(folder: Path, colors: Palette | Sequence[int], count: int = 6, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for i in range(count):
        ids = np.kron(rng.integers(0, len(colors), (4, 4)), np.ones((8, 8), int))
        for kind, pixels in (("images", ids * 80), ("masks", np.array(colors)[ids])):
            path = folder / ("train" if i < count - 2 else "val" if i < count - 1 else "test") / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


def test_other_data_are_read_with_the_trained_colors() -> None:
    node = {"class_names": None, "num_classes": 7, "ignore_index": None, "mask_values": "auto", "colors": None}
    told = with_trained_classes(node, TRAINED, [])
    assert told["colors"] == ["#000000", "#0ac81e", "#ff0000"]
    assert (told["mask_values"], told["num_classes"], told["ignore_index"]) == ("color", None, 255)
    # What other pixels mean, the user may say in either way.
    told = with_trained_classes(node | {"mask_values": "index"}, TRAINED, ["data.mask_values"])
    assert (told["mask_values"], told["colors"]) == ("index", None)
    told = with_trained_classes(node, TRAINED, ["data.mask_values", "data.colors"])
    assert (told["mask_values"], told["colors"]) == ("color", ["#000000", "#0ac81e", "#ff0000"])
    told = with_trained_classes(node | {"colors": ["#ffffff"]}, TargetSpec("mask", ("a", "b")), ["data.colors"])
    assert (told["mask_values"], told["colors"]) == ("auto", ["#ffffff"])
    # The order of the colours is that of the training, never that of the other files.
    by_color = node | {"mask_values": "color"}
    assert with_trained_classes(by_color, TRAINED, ["data.mask_values"])["colors"] == ["#000000", "#0ac81e", "#ff0000"]
    drawn = TargetSpec("mask", ("a", "b", "c"), palette=COLORS)
    with pytest.raises(ConfigError, match="which colour is which class") as caught:
        with_trained_classes(by_color, drawn, ["data.mask_values"])
    assert caught.value.overrides == ["\"data.colors=['#000000','#0ac81e','#ff0000']\""]


def test_other_colors_are_refused() -> None:
    other = TargetSpec("mask", ("a", "b", "c"), 255, "color", (COLORS[1], COLORS[0], COLORS[2]))
    with pytest.raises(CheckpointError, match="colours of the masks") as caught:
        require_same_target(TRAINED, other, "here")
    assert caught.value.overrides == ["\"data.colors=['#000000','#0ac81e','#ff0000']\""]
    require_same_target(TRAINED, TargetSpec("mask", ("a", "b", "c"), 255, "index"), "here")


def test_a_run_goes_by_the_trained_colors(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", COLORS)
    words = ["data=folder", f"data.path={data}", *TINY]
    result = lv.fit(words, output_dir=str(tmp_path / "run"))
    assert result.module.task.target.palette == COLORS
    predict_to_folder(result.module, str(data / "test"), {**result.module.config, "output_dir": str(tmp_path / "p")})
    drawn = Image.open(next((tmp_path / "p" / "predictions" / "masks").rglob("*.png")))
    assert drawn.mode == "P"
    assert drawn.getpalette()[:9] == [value for color in COLORS for value in color]  # type: ignore[index]
    # Only two of three colours: their ids must stay those of the training.
    part = write_masks(tmp_path / "part", (COLORS[0], COLORS[2]), seed=1)
    other = ["data=folder", f"data.path={part}"]
    scored = lv.test(result.checkpoint, [*other, f"output_dir={tmp_path / 'test'}"])
    assert "test/iou/#ff0000" in scored.metrics
    # A colour that no training mask has.
    mask = next((part / "test" / "masks").iterdir())
    pixels = np.array(Image.open(mask))
    pixels[:4] = (1, 2, 3)
    Image.fromarray(pixels).save(mask)
    with pytest.raises(DataError, match="#010203 in 128 of 1024 pixels"):
        lv.test(result.checkpoint, [*other, f"output_dir={tmp_path / 'test'}"])
    ignoring = [*other, "preprocessing.unseen_color=ignore", f"output_dir={tmp_path / 'test'}"]
    assert 0 <= lv.test(result.checkpoint, ignoring).metrics["test/mean_iou"] <= 1


def test_a_model_is_tested_on_masks_of_the_other_kind(tmp_path: Path) -> None:
    in_color = write_masks(tmp_path / "color", COLORS)
    by_index = write_masks(tmp_path / "index", [0, 1, 2])
    kinds = {
        in_color: (["preprocessing.infer_image_num_classes=true"], by_index, "data.mask_values=index"),
        by_index: ([], in_color, "data.colors=['#000000','#0ac81e','#ff0000']"),
    }
    for own, (words, other, how) in kinds.items():
        # Both kinds have the same ids, so a model has the same score.
        fit = lv.fit(["data=folder", f"data.path={own}", *TINY[:3], *words], output_dir=f"{own}_run")
        scored = lv.test(fit.checkpoint, ["data=folder", f"data.path={other}", how], output_dir=f"{own}_test")
        assert scored.metrics["test/mean_iou"] == fit.metrics["test/mean_iou"]


@pytest.mark.real_data
def test_camvid_in_colors_scores_as_camvid_by_index(data_root: Path, tmp_path: Path) -> None:
    root = (data_root if (data_root / "camvid").is_dir() else data_root / "data") / "camvid"
    with (root / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_split = {split: [row for row in rows if row["split"] == split] for split in ("train", "val", "test")}
    rows = [*by_split["train"][::12], *by_split["val"][::20], *by_split["test"][::20]]
    # In ascending order, so that both runs have the same ids.
    palette = np.array([(20 * i, 255 - 20 * i, 7) for i in range(12)], np.uint8)
    scores = []
    for kind, words in (("index", []), ("color", ["preprocessing.infer_image_num_classes=true"])):
        for row in rows:
            ids = np.asarray(Image.open(root / row["mask"]))
            mask = tmp_path / kind / row["split"] / "masks" / f"{Path(row['image']).stem}.png"
            image = mask.parents[1] / "images" / Path(row["image"]).name
            for folder in (mask.parent, image.parent):
                folder.mkdir(parents=True, exist_ok=True)
            image.symlink_to(root / row["image"])
            Image.fromarray(palette[ids] if kind == "color" else ids).save(mask)
        words = ["data=folder", f"data.path={tmp_path / kind}", "data.ignore_index=11", *TINY[:3], *words]
        result = lv.fit(words, output_dir=str(tmp_path / f"run_{kind}"))
        again = lv.test(result.checkpoint, output_dir=str(tmp_path / f"test_{kind}"))
        assert again.metrics["test/mean_iou"] == result.metrics["test/mean_iou"]
        assert result.module.task.target.num_classes == 11
        scores.append([result.metrics["test/mean_iou"], result.metrics["test/mean_iou_original"]])
    assert scores[0] == scores[1]
