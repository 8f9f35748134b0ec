from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.report import Report, check_data, check_index, render
from lightning_vision.data.sources.table import TableSource
from lightning_vision.testing.datasets import broken_images, mask_table, write_image, write_mask, write_table
from lightning_vision.types import TargetKind


def check(table: Path, wanted: TargetKind, preprocessing: Preprocessing | None = None, **settings: object) -> Report:
    index = TableSource(str(table), **settings).read(wanted, 0, strict=False)  # type: ignore[arg-type]
    report = check_index(index, preprocessing or Preprocessing())
    json.dumps(report.to_dict())
    return report


def messages(report: Report, severity: str = "error") -> list[str]:
    return [p.message for p in report.problems if p.severity == severity]


def test_sound_masks(tmp_path: Path) -> None:
    report = check(mask_table(tmp_path), "mask")
    assert report.ok
    assert report.problems == []
    assert report.sizes == {"20 x 30": 10}
    assert report.channels == {3: 10}
    assert report.geometry is not None
    assert (report.geometry.height, report.geometry.width) == (20, 30)
    for split in ("train", "val", "test"):
        assert sum(row[split] for row in report.classes) == pytest.approx(1)
    text = render(report)
    assert "The data can be trained on." in text
    assert "train 6, val 2, test 2" in text


def test_sound_labels(tmp_path: Path) -> None:
    rows = [
        {"image": write_image(tmp_path / f"{i}.png", seed=i).name, "label": "ab"[i % 2], "split": s}
        for i, s in enumerate(["train"] * 4 + ["val"] * 2 + ["test"])
    ]
    report = check(write_table(tmp_path / "t.csv", rows), "label")
    assert report.ok
    assert report.classes == [
        {"name": "a", "train": 2, "val": 1, "test": 1},
        {"name": "b", "train": 2, "val": 1, "test": 0},
    ]


def test_all_problems_at_once(tmp_path: Path) -> None:
    table = mask_table(tmp_path)
    write_mask(tmp_path / "masks" / "3.png", np.full((20, 30), 77))  # a value that train does not have
    write_mask(tmp_path / "masks" / "8.png", np.zeros((20, 20)))  # another shape
    write_mask(tmp_path / "masks" / "9.png", np.zeros((10, 15)))  # half the size: fits
    (tmp_path / "masks" / "4.png").write_bytes(b"x")
    (tmp_path / "images" / "0.png").write_bytes(b"")
    (tmp_path / "images" / "1.png").unlink()
    table.write_text(table.read_text() + "images/2.png,,train\nimages/5.png,masks/5.png,nowhere\n")
    report = check(table, "mask")
    assert not report.ok
    text = "\n".join(messages(report))
    for word in (
        "no class: 77",
        "20 x 20",
        "masks/4.png",
        "0.png: the file is empty",
        "images/1.png",
        "row 12",
        "'nowhere'",
    ):
        assert word in text, word
    assert "9.png" not in text
    assert len(messages(report)) == 7
    assert "cannot be trained on" in render(report)
    assert report.geometry is not None  # inferred from an image that can be read


def test_unreadable_images_may_be_skipped(tmp_path: Path) -> None:
    good = [write_image(tmp_path / f"{i}.png", seed=i).name for i in range(4)]
    bad = [p.name for p in broken_images(tmp_path) if p.exists()]
    rows = [{"image": n, "label": i % 2, "split": "train" if i % 3 else "val"} for i, n in enumerate(good + bad)]
    table = write_table(tmp_path / "t.csv", rows)
    report = check(table, "label")
    assert len(messages(report)) == len(bad)
    report = check(table, "label", Preprocessing(on_bad_image="skip"))
    assert report.ok
    assert len(messages(report, "warning")) == len(bad)


def test_settings_that_infer_nothing_are_a_problem(tmp_path: Path) -> None:
    report = check(mask_table(tmp_path), "mask", Preprocessing(infer_image_dimensions=False))
    assert ["no size is given" in m for m in messages(report)] == [True]
    assert report.geometry is None


def test_targets_that_cannot_be_decided_leave_the_rest(tmp_path: Path) -> None:
    report = check(mask_table(tmp_path), "mask", num_classes=2)
    assert not report.ok
    assert report.target is None
    assert report.sizes == {"20 x 30": 10}


def test_long_lists_are_cut(tmp_path: Path) -> None:
    table = mask_table(tmp_path, count=40)
    for i in range(40):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"x")
    text = render(check(table, "mask"), limit=5)
    assert "ERRORS (41)" in text
    assert "… and 36 more" in text


def test_a_mask_and_its_image_may_both_be_turned(tmp_path: Path) -> None:
    table = mask_table(tmp_path)
    write_image(tmp_path / "images" / "0.png", 30, 20, orientation=6)
    assert check(table, "mask").ok
    write_image(tmp_path / "images" / "0.png", 20, 30, orientation=6)
    assert ["another shape" in m for m in messages(check(table, "mask"))] == [True]


def test_from_a_config(tmp_path: Path) -> None:
    table = mask_table(tmp_path)
    data = {"_target_": "lightning_vision.data.sources.table.TableSource", "path": str(table)}
    config = {
        "decoder": {"_target_": "lightning_vision.decoders.unet.UNetDecoder"},
        "data": data,
        "preprocessing": {"_target_": "lightning_vision.data.preprocessing.Preprocessing"},
        "image_size": 64,
        "seed": 0,
    }
    report = check_data(config)
    assert report.ok
    assert report.target is not None
    assert report.target.kind == "mask"
    assert report.geometry is not None
    assert report.geometry.height == 64
    assert report.origin == str(table)


def test_reading_data_does_not_import_torch() -> None:
    import subprocess

    code = (
        "import sys; import lightning_vision.data.report, lightning_vision.data.sources.files, "
        "lightning_vision.data.sources.memory, lightning_vision.data.sources.shapes, "
        "lightning_vision.data.sources.folder; "
        "print(sorted({'torch', 'torchvision', 'lightning', 'timm', 'transformers', 'pandas', 'matplotlib'} "
        "& set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert run.stdout.strip() == "[]"


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{i}.png", seed=i).name for i in range(4)]
    rows = [{"image": n, "label": i % 2, "split": "test"} for i, n in enumerate(names)]
    report = check(write_table(tmp_path / "t.csv", rows), "label")
    assert messages(report) == ["there are no samples in train: nothing can be learned"]
    (tmp_path / "empty.csv").write_text("image,label,split\n")
    empty = check(tmp_path / "empty.csv", "label")
    assert len(messages(empty)) == 1
    assert "no samples" in messages(empty)[0]
