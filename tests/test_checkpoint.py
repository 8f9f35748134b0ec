"""What checkpoints refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_vision import checkpoint as checkpoints
from lightning_vision.errors import CheckpointError
from lightning_vision.types import TargetSpec

TRAINED = TargetSpec("mask", ("sky", "road", "tree"), ignore_index=255)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"callbacks": {"best": {"path": Path("x")}}}, "callbacks.best.path"),
        ({"a": [1, {"b": np.float32(1)}]}, "a[1].b"),
        ({"a": {np.int64(3): 1}}, "the key"),
        ({"a": torch.nn.Identity()}, "a"),
    ],
)
def test_a_value_that_is_not_plain_is_named_by_its_key(value: Any, key: str) -> None:
    with pytest.raises(CheckpointError, match="not plain data") as error:
        checkpoints.assert_plain(value)
    assert key in str(error.value)


def test_plain_values_pass_and_load(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "x", (torch.zeros(2), torch.float16)], "b": {0: torch.Size([2])}}
    checkpoints.assert_plain(value)
    torch.save(value, tmp_path / "x")
    torch.load(tmp_path / "x", weights_only=True)


def test_missing_file_names_the_checkpoints_beside_it(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(CheckpointError, match="does not exist") as error:
        checkpoints.read(tmp_path / "bset.ckpt")
    assert str(tmp_path / "best.ckpt") in str(error.value)


def test_a_folder_is_answered_with_the_checkpoints_in_it(tmp_path: Path) -> None:
    (tmp_path / "my run" / "checkpoints").mkdir(parents=True)
    best = tmp_path / "my run" / "checkpoints" / "best.ckpt"
    best.touch()
    (tmp_path / "other.ckpt").touch()
    with pytest.raises(CheckpointError, match="is a folder") as error:
        checkpoints.read(tmp_path / "my run")
    assert error.value.overrides == [f"'checkpoint={best}'"]
    assert "other.ckpt" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"garbage", b"junk", b"PK\x03\x04 half a zip file"])
def test_damaged_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.ckpt"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.read(file)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch evil",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({checkpoints.KEY: Evil()}, "x.ckpt")
    with pytest.raises(CheckpointError, match="more than plain data") as error:
        checkpoints.read("x.ckpt")
    assert "system" in str(error.value.given)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "evil").exists()


def test_a_file_of_weights_alone_is_not_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"encoder\.weights"):
        checkpoints.read(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["/tmp/evil", "../evil", "a/b", "", "_a", 3])
@pytest.mark.parametrize("place", ["outputs", "config"])
def test_an_output_whose_name_leads_elsewhere_is_refused(tmp_path: Path, name: Any, place: str) -> None:
    # It would be the name of a folder of predictions and pictures.
    kept: dict[str, Any] = {kind: value() for kind, value in checkpoints.NEEDED.items()}
    kept["config"] = dict.fromkeys(checkpoints.NEEDED_OF_CONFIG)
    (kept if place == "outputs" else kept["config"])["outputs"] = {name: {}}
    torch.save({checkpoints.KEY: {"format_version": checkpoints.FORMAT_VERSION, **kept}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="whose name cannot be one") as error:
        checkpoints.read(tmp_path / "x.ckpt")
    assert repr(name) in str(error.value)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    torch.save({checkpoints.KEY: {"format_version": checkpoints.FORMAT_VERSION + 1}}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="newer version"):
        checkpoints.read(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (replace(TRAINED, kind="label"), "predicts masks"),
        (replace(TRAINED, class_names=("sky", "tree", "road")), "sky, road, tree"),
        (replace(TRAINED, class_names=("sky", "road")), "2 classes"),
        (replace(TRAINED, ignore_index=None), "data.ignore_index=255"),
    ],
)
def test_data_of_other_classes_are_refused_by_name(found: TargetSpec, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoints.require_same_target(TRAINED, found, "other.csv")


def test_palette_and_mask_values_may_differ() -> None:
    checkpoints.require_same_target(TRAINED, replace(TRAINED, palette=((0, 0, 0),) * 3, mask_values="binary"), "x")


def test_many_classes_are_not_all_printed() -> None:
    many = TargetSpec("label", tuple(f"class {i}" for i in range(1000)))
    with pytest.raises(CheckpointError) as error:
        checkpoints.require_same_target(many, replace(many, class_names=(*many.class_names[:-1], "odd")), "x.csv")
    assert "odd" in str(error.value)
    assert "class 999" in str(error.value)
    assert len(str(error.value)) < 500


def test_target_round_trip() -> None:
    target = replace(TRAINED, palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
    assert TargetSpec.from_dict(target.to_dict()) == target
    checkpoints.assert_plain(target.to_dict())


def test_a_mistyped_path_is_answered_before_torch_is_imported() -> None:
    code = """
import sys
import lightning_vision as lv
for act in (lambda: lv.load("none.ckpt"), lambda: lv.test("none.ckpt"), lambda: lv.predict("none.ckpt", "photos")):
    try:
        act()
    except lv.CheckpointError as error:
        assert "does not exist" in str(error)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
