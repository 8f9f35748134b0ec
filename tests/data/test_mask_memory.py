from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_vision.data import mask_memory
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.mask_memory import remembered_require_classes, remembered_scan
from lightning_vision.data.mask_values import scan_masks
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import write_mask
from lightning_vision.types import TargetSpec

ROWS = np.array([0, 2, 3])


@pytest.fixture
def masks(tmp_path: Path) -> PackedStrings:
    paths = [write_mask(tmp_path / f"{i}.png", np.full((4, 5), i, np.uint8), [9, 8, 7] * 256) for i in range(4)]
    return PackedStrings.from_strings(map(str, paths))


@pytest.mark.parametrize("colors", [False, True])
def test_the_same_files_are_read_once(
    masks: PackedStrings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colors: bool
) -> None:
    arguments = (str(tmp_path / "known"), masks, ROWS, colors, 1, True)
    expected = scan_masks(masks, ROWS, colors)
    assert remembered_scan(*arguments) == expected
    with monkeypatch.context() as patch:
        patch.setattr(mask_memory, "scan_masks", lambda *_: pytest.fail("read again"))
        assert remembered_scan(*arguments) == expected
    # Other rows, other files and another way of reading are other questions.
    assert remembered_scan(*arguments[:2], ROWS[:2], *arguments[3:]) == scan_masks(masks, ROWS[:2], colors)
    write_mask(Path(masks[2]), np.full((40, 50), 7, np.uint8))
    assert remembered_scan(*arguments) == scan_masks(masks, ROWS, colors) != expected


@pytest.mark.parametrize("library", ["PIL", "np"])
def test_another_decoder_reads_again(
    masks: PackedStrings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    arguments = (str(tmp_path / "known"), masks, ROWS, False, 1, True)
    remembered_scan(*arguments)
    monkeypatch.setattr(f"lightning_vision.data.mask_memory.{library}.__version__", "another")
    monkeypatch.setattr(mask_memory, "scan_masks", lambda *_: scan_masks(masks, ROWS[:1]))
    assert remembered_scan(*arguments).read == 1


def test_names_and_drawing_read_nothing_again(
    masks: PackedStrings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = str(tmp_path / "known")
    remembered_require_classes(known, masks, ROWS, TargetSpec("mask", tuple("abcd")), 1)
    monkeypatch.setattr(mask_memory, "require_classes", lambda *_: pytest.fail("read again"))
    drawn = TargetSpec("mask", tuple("efgh"), palette=((1, 2, 3),) * 4)
    remembered_require_classes(known, masks, ROWS, drawn, 1)


def test_what_was_refused_is_refused_again(masks: PackedStrings, tmp_path: Path) -> None:
    three, four = TargetSpec("mask", ("a", "b", "c")), TargetSpec("mask", ("a", "b", "c", "d"))
    for _ in range(2):
        remembered_require_classes(str(tmp_path / "known"), masks, ROWS, four, 1)
        with pytest.raises(DataError, match=r"3\.png: the mask value 3 is no class"):
            remembered_require_classes(str(tmp_path / "known"), masks, ROWS, three, 1)


def test_a_damaged_or_unwritable_memory_is_none(masks: PackedStrings, tmp_path: Path) -> None:
    known = tmp_path / "known"
    expected = remembered_scan(str(known), masks, ROWS, False, 1, True)
    (answer,) = known.iterdir()
    answer.write_text(answer.read_text()[:20])
    assert remembered_scan(str(known), masks, ROWS, False, 1, True) == expected
    (tmp_path / "file").write_text("")
    assert remembered_scan(str(tmp_path / "file"), masks, ROWS, False, 1, True) == expected
