"""What a whole run, a test and a prediction make of bad images and empty rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lightning_vision as lv
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.discs import write_discs

CNN = {"encoder.out_channels": 8, "decoder.channels": [16, 8], "trainer.accelerator": "cpu"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_discs(tmp_path / "discs", count=40)


def settings(table: Path, out: str, kind: str = "mask", **values: Any) -> dict[str, Any]:
    values = {"data.path": str(table), "data.target": kind, "output_dir": str(table.parent / out), **CNN, **values}
    if kind == "mask":
        values["data.ignore_index"] = 255
    else:
        del values["decoder.channels"]
    decoder = "unet" if kind == "mask" else "classifier"
    return {"data": "table", "decoder": decoder, "image_size": [32, 40], "epochs": 1, "overrides": values}


def last_image(table: Path, split: str = "test") -> Path:
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    return table.parent / [row[0] for row in rows if row[3] == split][-1]


@pytest.mark.parametrize("what", ["image", "mask"])
def test_blank_samples_count_for_nothing_in_scores_of_masks(
    table: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = lv.fit(**settings(table, "run"))
    image = last_image(table)
    (image if what == "image" else image.with_name(f"{image.stem}_mask.png")).write_bytes(b"not an image")
    found = {
        policy: lv.test(fitted.checkpoint, overrides={"preprocessing.on_bad_image": policy}).metrics
        for policy in ("skip", "blank")
    }
    for key in ("test/mean_iou", "test/mean_iou_original", "test/pixel_accuracy"):
        assert found["blank"][key] == pytest.approx(found["skip"][key], abs=1e-6), key
    assert capsys.readouterr().out.count(str(image)) >= 2


def test_a_prediction_has_a_policy_of_its_own(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last_image(table, "train").write_bytes(b"not an image")
    fitted = lv.fit(**settings(table, "run", "label", **{"preprocessing.on_bad_image": "blank"}))
    good, bad = last_image(table), last_image(table, "train")
    with pytest.raises(DataError, match=bad.name):
        lv.predict(fitted.checkpoint, [str(good), str(bad)])
    capsys.readouterr()
    skip = {"preprocessing.on_bad_image": "skip"}
    assert len(lv.predict(fitted.checkpoint, [str(good), str(bad)], overrides=skip)) == 1
    assert str(bad) in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no prediction"):
        lv.predict(fitted.checkpoint, [str(good)], overrides={"preprocessing.on_bad_image": "blank"})


def test_rows_without_an_image_beside_a_checkpoint(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strategy = {"preprocessing.missing_value_strategy": "bfill"}
    fitted = lv.fit(**settings(table, "run", "label"))
    # In the data of the checkpoint, other rows would be others' splits.
    with pytest.raises(ConfigError, match="decided by the checkpoint"):
        lv.test(fitted.checkpoint, overrides=strategy)
    lines = table.read_text().splitlines()
    other = table.with_name("other.csv")
    other.write_text("\n".join([*lines[:20], ",,red,test", *lines[20:]]))
    capsys.readouterr()
    values = {"data.path": str(other), "data.target": "label", **strategy}
    lv.test(fitted.checkpoint, data="table", overrides=values)
    assert "row 21" in capsys.readouterr().out
    # A prediction repeats nothing by itself, and leaves out what it is told to leave out.
    with pytest.raises(DataError, match="empty"):
        lv.predict(fitted.checkpoint, str(other))
    drop = {"preprocessing.missing_value_strategy": "drop_row"}
    assert len(lv.predict(fitted.checkpoint, str(other), overrides=drop)) == 40


def test_blank_without_an_ignored_value_is_refused_before_anything_is_built(table: Path) -> None:
    config = settings(table, "run", **{"preprocessing.on_bad_image": "blank"})
    values = config["overrides"] | {
        "data.ignore_index": None,
        "data.path": str(write_discs(table.parent / "b", 20, None)),
    }
    with pytest.raises(ConfigError, match=r"preprocessing\.on_bad_image=skip"):
        lv.fit(**config | {"overrides": values})
    assert not lv.check(**config | {"overrides": values})
