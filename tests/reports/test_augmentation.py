"""The sheet of augmented training images: what it draws is what a training batch gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lightning_vision as lv
from lightning_vision.__main__ import main
from lightning_vision.errors import ConfigError
from lightning_vision.testing.discs import write_discs


def drawn(folder: Path, *words: str) -> Image.Image:
    table = write_discs(folder / "discs")
    words = (*words, f"data.path={table}", "data=table", f"output_dir={folder}", "image_size=48", "quick=true")
    assert lv.check([*words, "plots=augmentation"])
    return Image.open(folder / "plots" / "augmentation.png").convert("RGB")


def test_masks_lie_below_their_images_and_move_with_them(tmp_path: Path) -> None:
    sheet = drawn(
        tmp_path, "data.target=mask", "data.ignore_index=255", "augmentation=[{type: random_vertical_flip, p: 1}]"
    )
    page = np.asarray(sheet)
    # Tiles of 48 pixels, three times as large, in nine columns: the original and eight draws that are alike.
    columns = [page[:, 16 + i * 154 : 16 + i * 154 + 144] for i in range(9)]
    body = slice(90, None)
    for column in columns[2:]:
        assert np.array_equal(column[body], columns[1][body])
    first = columns[0][body]
    rows = np.flatnonzero((first != 255).any((1, 2)))
    assert len(rows), "something is drawn"
    assert not np.array_equal(first, columns[1][body])


def test_labels_of_mixed_images_are_written_below(tmp_path: Path) -> None:
    words = ("data.target=label", "decoder=classifier")
    plain = drawn(tmp_path / "plain", *words, "augmentation=random_horizontal_flip")
    mixed = drawn(tmp_path / "mixed", *words, "augmentation=[random_horizontal_flip,mixup]")
    assert mixed.height > plain.height, "two lines of text more for each sample"


def test_without_augmentation_there_is_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="augmentation=light"):
        drawn(tmp_path, "data.target=mask", "data.ignore_index=255")


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["check", "plots=augmentation", "augmentation=true", "data.num_images=60", "hydra.run.dir=run"]
    monkeypatch.setattr("sys.argv", ["lightning_vision", *words])
    main()
    assert "run/plots/augmentation.png" in capsys.readouterr().out
    assert (tmp_path / "run" / "plots" / "augmentation.png").is_file()
