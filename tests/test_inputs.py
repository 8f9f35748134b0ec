"""Several images a sample: one label from two pictures, a mask of what changed between them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lightning_vision as lv
from lightning_vision.assembly import build_module
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.resolve import resolve
from lightning_vision.types import Batch

COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures a row, each red or blue; the label names both; the mask shows where they differ."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(48):
        names = [list(COLOURS)[i % 2], list(COLOURS)[i // 2 % 2]]
        row = []
        for side, name in zip(("left", "right"), names, strict=True):
            # The second pictures have other sizes and another format.
            size = (20, 24) if side == "left" else (31, 17)
            image = rng.integers(0, 40, (*size, 3), dtype=np.uint8) + np.array(COLOURS[name], np.uint8) // 2
            row.append(f"{i}_{side}.{'png' if side == 'left' else 'jpg'}")
            Image.fromarray(image.astype(np.uint8)).save(folder / row[-1], quality=95)
        mask = np.full((20, 24), names[0] != names[1], np.uint8)
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
        split = "train" if i < 32 else "val" if i < 40 else "test"
        rows.append([*row, "-".join(names), f"{i}_mask.png", split])
    table = folder / "index.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["left", "right", "label", "mask", "split"], *rows])
    return table


def settings(table: Path, out: Path, **more: Any) -> dict[str, Any]:
    return {
        "encoder": "stacked_cnn",
        "decoder": "classifier",
        "data": "table",
        "image_size": 16,
        "batch_size": 8,
        "epochs": 8,
        "lr": 1e-2,
        "overrides": {
            "data.path": str(table),
            "data.inputs": ["left", "right"],
            "encoder.out_channels": 4,
            "encoder.output_size": 8,
            "output_dir": str(out),
            **more.pop("values", {}),
        },
        **more,
    }


@pytest.fixture(scope="session")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    return lv.fit(**settings(pairs, tmp_path_factory.mktemp("run")))


def test_the_label_of_two_pictures_is_learned(trained: lv.Result) -> None:
    assert trained.metrics["test/accuracy"] == 1.0
    assert (trained.folder / "plots/predictions.png").stat().st_size > 500


def test_a_policy_moves_both_pictures_and_their_mask_alike(pairs: Path) -> None:
    words = ["data=table", "data.target=mask", "encoder=unet", "encoder.base_channels=4", "decoder=unet"]
    policy = ["augmentation=trivial_augment", "data.inputs=[left,right]", "image_size=16"]
    module = build_module(resolve(compose([*words, *policy], {"data.path": str(pairs)})))
    image = torch.full((64, 6, 16, 16), 90, dtype=torch.uint8)
    batch: Batch = {"image": image, "target": image[:, 0] // 90, "index": torch.arange(64)}
    changed = module._augmented(batch, torch.Generator().manual_seed(0))
    left, right = changed["image"].split(3, 1)
    assert torch.equal(left, right)
    outside = changed["target"] == 255
    assert 0.02 < outside.double().mean() < 0.5
    assert (changed["image"].amax(1)[outside] < 46).all(), "an edge fades into what lies outside"


def test_the_table_of_pairs_is_predicted_from_the_checkpoint_alone(trained: lv.Result, pairs: Path) -> None:
    predictions = lv.predict(trained.checkpoint, pairs)
    with pairs.open(newline="") as file:
        truth = [row["label"] for row in csv.DictReader(file)]
    assert [p.label for p in predictions] == truth


def test_the_order_of_the_inputs_counts(trained: lv.Result, pairs: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped.csv"
    text = pairs.read_text().replace("left,right", "right,left", 1)
    swapped.write_text(text)
    predictions = lv.predict(trained.checkpoint, _with_root(swapped, pairs.parent))
    with pairs.open(newline="") as file:
        turned = ["-".join(reversed(row["label"].split("-"))) for row in csv.DictReader(file)]
    assert [p.label for p in predictions] == turned


def _with_root(table: Path, root: Path) -> Path:
    with table.open(newline="") as file:
        rows = list(csv.reader(file))
    absolute = [[str(root / c) if c.endswith((".png", ".jpg")) else c for c in row] for row in rows[1:]]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *absolute])
    return table


def test_tied_inputs_share_one_encoder(pairs: Path, tmp_path: Path) -> None:
    own, _ = lv.build(**settings(pairs, tmp_path))
    tied, _ = lv.build(**settings(pairs, tmp_path, tied="left"))
    count = {m: sum(p.numel() for p in m.encoder.parameters()) for m in (own, tied)}
    assert count[own] == 2 * count[tied]
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    twice = tied.encoder.embed(tied.normalize(image.repeat(1, 2, 1, 1)))
    left, right = twice.chunk(2, 1)
    assert torch.equal(left, right), "one encoder, one embedding"
    mixed = own.encoder.embed(own.normalize(image.repeat(1, 2, 1, 1))).chunk(2, 1)
    assert not torch.equal(*mixed), "encoders of their own start with weights of their own"


@pytest.mark.parametrize("mode", ["eager", "lazy_cached"])
def test_every_mode_gives_the_same_batches(pairs: Path, tmp_path: Path, mode: str) -> None:
    values = {"preprocessing.mode": mode, "preprocessing.lazy_cache_dir": str(tmp_path)}
    _, lazy = lv.build(**settings(pairs, tmp_path))
    _, other = lv.build(**settings(pairs, tmp_path, values=values))
    for data in (lazy, other):
        data.setup("fit")
    for _ in range(2):
        for one, two in zip(lazy.train_dataloader(), other.train_dataloader(), strict=True):
            assert one["image"].shape[1:] == (6, 16, 16)
            assert torch.equal(one["image"], two["image"])
    other.teardown()


def test_a_mask_of_what_changed(pairs: Path, tmp_path: Path) -> None:
    values = {"data.class_names": ["same", "changed"], "decoder.channels": [8, 8], "decoder.num_stages": 2}
    result = lv.fit(
        **settings(pairs, tmp_path, tied="left", values=values, epochs=2)
        | {"decoder": "unet", "encoder": "unet"}
        | {"overrides": _unet(settings(pairs, tmp_path, values=values)["overrides"])}
    )
    assert result.metrics["test/mean_iou"] >= 0
    again = lv.predict(result.checkpoint, pairs)
    assert again[0].mask is not None
    assert again[0].mask.shape == (20, 24)


def _unet(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k.partition(".")[0] != "encoder"} | {"encoder.base_channels": 4}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"values": {"data.inputs": ["left", "middle"]}}, ConfigError, ["data.inputs", "middle", "left, right"]),
        ({"values": {"data.inputs": ["left", "left"]}}, ConfigError, ["each once"]),
        ({"values": {"data.image": "left"}}, ConfigError, ["in place of data.image"]),
        ({"tied": "middle"}, ConfigError, ["tied=middle", "left"]),
        ({"tied": "left", "values": {"data.inputs": ["left"]}}, ConfigError, ["tied=left"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    pairs: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        lv.build(**settings(pairs, tmp_path, **change))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_second_picture_is_named(pairs: Path, tmp_path: Path) -> None:
    table = tmp_path / "index.csv"
    table.write_text(pairs.read_text().replace("3_right.jpg", "gone.jpg", 1))
    with pytest.raises(DataError, match=r"gone\.jpg"):
        lv.build(**settings(_with_root(table, pairs.parent), tmp_path))


def test_pictures_alone_cannot_be_predicted(trained: lv.Result, pairs: Path) -> None:
    with pytest.raises(ConfigError, match="left, right"):
        lv.predict(trained.checkpoint, pairs.parent)
