from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from lightning_vision.actions import check as action
from lightning_vision.data.index import Problem
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.report import Report, check_index
from lightning_vision.data.report_page import render
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import broken_images, mask_table, write_image, write_mask, write_table
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import TargetKind


def check(table: Path, wanted: TargetKind, preprocessing: Preprocessing | None = None, **settings: object) -> Report:
    index = TableSource(str(table), **settings).read(wanted, 0, strict=False)  # type: ignore[arg-type]
    report = check_index(index, preprocessing or Preprocessing())
    json.dumps(report.to_dict())
    return report


def messages(report: Report, severity: str = "error") -> list[str]:
    return [p.message for p in report.problems if p.severity == severity]


def test_sound_masks(tmp_path: Path) -> None:
    report = check(mask_table(tmp_path), "mask", Preprocessing(train_size=(24, 32)))
    assert report.ok
    assert report.problems == []
    assert report.duplicates == []
    assert report.task == "segmentation"
    assert report.sizes == {"20 x 30": 10}
    assert report.channels == {3: 10}
    assert report.geometry is not None
    assert (report.geometry.height, report.geometry.width) == (20, 30)
    for split in ("train", "val", "test"):
        assert sum(row[split] for row in report.classes) == pytest.approx(1)
    text = render(report)
    assert "The data can be trained on." in text
    assert "train 6, val 2, test 2" in text
    assert "training 24 x 32, from which the augmentation cuts the input" in text
    small = check(tmp_path / "index.csv", "mask", Preprocessing(train_size=(24, 29)))
    assert "train_size 24 x 29" in messages(small)[0]


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


def test_sets_of_labels(tmp_path: Path) -> None:
    sets = ["a|b", "a", "a|c", "", "a", "b|c", "a|b"]
    splits = ["train"] * 4 + ["val"] * 2 + ["test"]
    names = [write_image(tmp_path / f"{i}.png", seed=i).name for i in range(7)]
    rows = [{"image": n, "labels": s, "split": p} for n, s, p in zip(names, sets, splits, strict=True)]
    report = check(write_table(tmp_path / "t.csv", rows), "labels")
    assert report.ok
    assert report.task == "multilabel"
    assert report.unknown == {}
    assert report.classes == [
        {"name": "a", "train": 3, "val": 1, "test": 1},
        {"name": "b", "train": 1, "val": 1, "test": 1},
        {"name": "c", "train": 1, "val": 1, "test": 0},
    ]
    assert "labels with one image in train: b, c" in messages(report, "warning")
    text = render(report)
    assert "any number of labels an image; 3 labels" in text
    flags = [row | {"b": "01"[i % 2], "c": "" if i < 3 else "1"} for i, row in enumerate(rows)]
    report = check(write_table(tmp_path / "t.csv", flags), "labels", target=["b", "c"])
    assert report.unknown == {"train": 3}
    assert "train 3 labels of images" in render(report)
    assert report.to_dict()["target"]["kind"] == "labels"


def test_copies_with_other_sets(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{i}.png", seed=0 if i < 2 else i).name for i in range(4)]
    rows = [
        {"image": n, "labels": s, "word": w, "split": "train"}
        for n, s, w in zip(names, ["a|b", "b", "a", "b|a"], "xyxy", strict=True)
    ]
    source = TableSource(str(write_table(tmp_path / "t.csv", rows)), val_fraction=0)
    further = {"words": ("word", "label", None)}
    report = check_index(source.read("labels", 0, strict=False, further=further), Preprocessing())  # type: ignore[arg-type]
    said = "\n".join(messages(report, "warning"))
    assert "1 picture has different labels in different files, of which one is probably wrong\n" in said
    assert "0.png (a|b) = 1.png (b)" in said
    assert "output words: 1 picture has different labels" in said
    assert "0.png (x) = 1.png (y)" in said
    assert report.duplicates == [
        {
            "exact": True,
            "images": [str(tmp_path / n) for n in names[:2]],
            "splits": ["train", "train"],
            "labels": ["a|b", "b"],
            "labels words": ["x", "y"],
        }
    ]


def test_unknown_labels_and_further_targets(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{i}.png", seed=i).name for i in range(8)]
    words = ["a", "b", "odd", "a", "b", "odd", "odd", "a"]
    rows = [
        {"image": n, "label": w, "tags": f"t{i % 2}|all", "split": "train" if i < 5 else "val"}
        for i, (n, w) in enumerate(zip(names, words, strict=True))
    ]
    source = TableSource(str(write_table(tmp_path / "t.csv", rows)), unknown=["odd"])
    index = source.read("label", 0, strict=False, further={"tags": ("tags", "labels", None)})
    report = check_index(index, Preprocessing())
    assert report.unknown == {"train": 1, "val": 2}
    assert report.classes == [
        {"name": "a", "train": 2, "val": 1, "test": 0},
        {"name": "b", "train": 2, "val": 0, "test": 0},
    ]
    data = json.loads(report.to_json())
    assert data["unknown"] == {"train": 1, "val": 2}
    assert data["further"]["tags"]["target"]["class_names"] == ["all", "t0", "t1"]
    assert data["further"]["tags"]["classes"][0] == {"name": "all", "train": 5, "val": 3, "test": 0}
    text = render(report)
    assert "unknown  train 1, val 2 images of none of the classes" in text
    assert "output tags: any number of labels an image; 3 labels" in text
    assert "output tags: labels that every row of train has: all" in text
    blank = check_index(index, Preprocessing(on_bad_image="blank"))
    assert blank.ok, "sets of labels can be unknown"


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


def test_one_page_for_ten_thousand_problems() -> None:
    problems = [Problem("error", f"/data/{i}.png: {'cut off after ' + str(i) + ' bytes'}") for i in range(10_000)]
    problems += [Problem("warning", f"something about class {i}") for i in range(10_000)]
    problems += [Problem("error", "no samples in train")]
    classes = [{"name": f"class {i}", "train": i, "val": 1, "test": 0} for i in range(10_000)]
    report = Report("/data", {"train": 3, "val": 0, "test": 0}, classes=classes, problems=problems)
    text = render(report)
    assert len(text.splitlines()) <= 60
    assert "ERRORS (10001)\n- no samples in train\n- 10000 files: cut off after 0 bytes\n" in text
    assert "… and 9997 more" in text
    assert "WARNINGS (10000)" in text
    assert "… and 9992 more" in text
    assert "class 9999" in text
    assert "class 0 " in text
    assert "class 5000" not in text


def test_the_page_names_sizes_by_their_range_where_they_are_many() -> None:
    sizes = {"20 x 30": 5, "10 x 10": 1, "20 x 10": 1, "100 x 90": 1, "8 x 300": 1}
    text = render(Report("/data", {"train": 9, "val": 0, "test": 0}, sizes=sizes))
    assert "5 sizes (height x width), 10 x 10 to 100 x 90, most often 20 x 30 (5)" in text


def test_a_mask_and_its_image_may_both_be_turned(tmp_path: Path) -> None:
    table = mask_table(tmp_path)
    write_image(tmp_path / "images" / "0.png", 30, 20, orientation=6)
    assert check(table, "mask").ok
    write_image(tmp_path / "images" / "0.png", 20, 30, orientation=6)
    assert ["another shape" in m for m in messages(check(table, "mask"))] == [True]


def label_table(folder: Path, labels: str, splits: str | None = None) -> Path:
    """One image a letter, whose label the letter is."""
    rows = [
        {"image": write_image(folder / f"{i}.png", seed=i).name, "label": label, "split": split}
        for i, (label, split) in enumerate(zip(labels, splits or len(labels) * ("train",), strict=True))
    ]
    return write_table(folder / "t.csv", rows)


def test_rare_classes_and_classes_of_one_image_are_warned_of(tmp_path: Path) -> None:
    report = check(label_table(tmp_path, "a" * 60 + "b" * 2 + "c"), "label", val_fraction=0.0)
    assert messages(report, "warning")[-2:] == [
        "classes with one image in train: c",
        "rare classes in train: b (2, 3.17%). Accuracy hides them; see val/accuracy_macro",
    ]
    even = check(label_table(tmp_path / "even", "abcdefghij" * 2 + "k", ["train"] * 20 + ["val"]), "label")
    assert not any("rare" in m or "one image" in m for m in messages(even, "warning"))


@pytest.mark.parametrize("on_bad_image", ["error", "skip", "blank"])
def test_images_that_are_cut_off(tmp_path: Path, on_bad_image: Literal["error", "skip", "blank"]) -> None:
    table = label_table(tmp_path, "ab" * 5, ["train"] * 8 + ["val"] * 2)
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])  # its header is sound
    report = check(table, "label", Preprocessing(on_bad_image=on_bad_image))
    severity = "error" if on_bad_image == "error" else "warning"
    assert ["3.png" in m for m in messages(report, severity)] == [True]
    assert report.ok == (on_bad_image != "error")
    assert any("on_bad_image=skip" in m for m in messages(report, "note")) == (on_bad_image == "error")


def test_quick_reads_headers_alone(tmp_path: Path) -> None:
    table = label_table(tmp_path, "ab" * 5, ["train"] * 8 + ["val"] * 2)
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    shutil.copy(tmp_path / "0.png", tmp_path / "9.png")
    (tmp_path / "5.png").write_bytes(b"")
    index = TableSource(str(table)).read("label", 0, strict=False)
    report = check_index(index, Preprocessing(), quick=True)
    assert [m.rpartition("/")[2] for m in messages(report)] == ["5.png: the file is empty"]
    assert report.duplicates is None
    assert report.sizes == {"20 x 30": 9}
    assert any("quick=true" in m for m in messages(report, "note"))
    assert len(messages(check_index(index, Preprocessing()))) == 2


def test_every_input_is_decoded(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        left, right = (
            write_image(tmp_path / f"l{i}.png", seed=i),
            write_image(tmp_path / f"r{i}.png", 8, 9, seed=50 + i),
        )
        rows.append(
            {"left": left.name, "right": right.name, "label": "ab"[i % 2], "split": "val" if i > 3 else "train"}
        )
    whole = (tmp_path / "r2.png").read_bytes()
    (tmp_path / "r2.png").write_bytes(whole[: len(whole) // 2])
    table = write_table(tmp_path / "t.csv", rows)
    report = check(table, "label", inputs=["left", "right"])
    assert ["r2.png" in m for m in messages(report)] == [True]
    assert report.sizes == {"20 x 30": 5, "8 x 9": 5}
    assert report.geometry is not None
    assert report.geometry.num_inputs == 2
    assert "2 images of 20 x 30" in render(report)


def test_the_json_file_holds_the_whole_report(tmp_path: Path) -> None:
    table = label_table(tmp_path, "ab" * 5, ["train"] * 8 + ["val"] * 2)
    shutil.copy(tmp_path / "0.png", tmp_path / "9.png")
    report = check(table, "label")
    report.write(tmp_path / "deep" / "r.json")
    found = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert found == report.to_dict()
    assert found["ok"] is True
    assert found["task"] == "classification"
    assert found["duplicates"] == [
        {
            "exact": True,
            "images": [str(tmp_path / "0.png"), str(tmp_path / "9.png")],
            "splits": ["train", "val"],
            "labels": ["a", "b"],
        }
    ]
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["r.json"]
    with pytest.raises(DataError, match="cannot write"):
        report.write(tmp_path / "t.csv" / "r.json")


def test_the_command_prints_only_json_for_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=table", "decoder=classifier", f"data.path={label_table(tmp_path, 'ab' * 5)}", "quick=true"]
    assert action.check([*words, "report=-"])
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["train"] == 9
    (tmp_path / "3.png").write_bytes(b"")
    assert not action.check([*words, f"report={tmp_path / 'r.json'}"])
    assert "cannot be trained on" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["ok"] is False


def test_labels_need_no_decoder_to_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=table", f"data.path={label_table(tmp_path, 'ab' * 5)}", "data.target=label", "quick=true"]
    drawn = [f"output_dir={tmp_path}", "plots=[classes,augmentation]", "augmentation=light"]
    assert action.check([*words, *drawn])
    page = " ".join(capsys.readouterr().out.split())
    assert "this is the page for decoder=classifier, which a fit must be given" in page
    assert {f.name for f in (tmp_path / "plots").iterdir()} == {"classes.png", "augmentation.png"}

    for chosen in ("decoder=fpn", "loss=dice_loss"):
        assert not action.check([*words, chosen, "report=-"])
        found = json.loads(capsys.readouterr().out)
        assert [p["message"].splitlines()[-1] for p in found["problems"] if p["severity"] == "error"] == [
            "  try:          decoder=classifier"
        ]
        assert [c["name"] for c in found["classes"]] == ["a", "b"], "the rest of the page is there"


def test_further_outputs_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_discs(tmp_path, 20)
    outputs = {"mask": {"decoder": "unet"}, "label": {"decoder": "classifier"}}
    assert action.check(data="table", outputs=outputs, overrides={"data.path": str(table), "data.ignore_index": 255})
    page = capsys.readouterr().out
    assert "blue" in page
    assert "masks" in page


def test_reading_data_does_not_import_torch() -> None:
    import subprocess

    code = (
        "import sys; import lightning_vision.data.report_page, lightning_vision.data.sources.files, "
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


def test_an_image_behind_a_dangling_link_is_named(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / ("ab"[i % 2]) / f"{i}.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    index = FolderSource(str(tmp_path)).read("label", 0, strict=False)
    assert any("gone.png: no such file" in message for message in messages(check_index(index, Preprocessing())))


@pytest.mark.parametrize(("factor", "warned"), [(16, True), (256, False)])
def test_twelve_bit_data_in_sixteen_bits_are_warned_of(tmp_path: Path, factor: int, warned: bool) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        pixels = rng.integers(0, 256, (20, 20)).astype(np.uint16) * np.uint16(factor)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "label": "ab"[i % 2], "split": ("train", "val", "test")[i // 2]})
    report = check(write_table(tmp_path / "index.csv", rows), "label")
    assert any("nearly black" in message for message in messages(report, "warning")) == warned


def test_a_leak_names_a_file_of_each_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        split = "test" if i == 8 else "val" if i == 7 else "train"
        rows.append({"image": f"{i}.png", "label": "ab"[i % 2], "split": split})
    for i in (1, 2, 3, 4, 8):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{i}.png")
    report = check(write_table(tmp_path / "index.csv", rows), "label")
    (leak,) = [message for message in messages(report, "warning") if "of test" in message]
    assert "train: 0.png = test: 8.png" in leak
