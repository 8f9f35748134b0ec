from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.mask_files import read_mask_file
from lightning_vision.data.mask_settings import MaskSettings
from lightning_vision.data.mask_values import mask_target, scan_masks
from lightning_vision.errors import ConfigError, DataError, VisionError
from lightning_vision.testing.datasets import write_mask
from lightning_vision.types import TargetSpec

COLOURS = [value for i in range(256) for value in (i, 255 - i, 7)]


def decide(paths: list[Path], **said: Any) -> TargetSpec:
    settings = MaskSettings(**said)
    masks = PackedStrings.from_strings(map(str, paths))
    scan = scan_masks(masks, np.arange(len(paths)), settings.mask_values == "color")
    assert not scan.errors, scan.errors
    return mask_target(scan, masks, settings)


def masks_with(folder: Path, values: list[int], palette: bool = False) -> list[Path]:
    """One mask for each value, which it shares with zeros."""
    return [
        write_mask(folder / f"{i}.png", np.array([[0, 0], [0, v]]), COLOURS if palette else None)
        for i, v in enumerate(values)
    ]


VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_the_values_of_every_kind_of_file(tmp_path: Path) -> None:
    write_mask(tmp_path / "grey.png", VALUES)
    write_mask(tmp_path / "palette.png", VALUES, COLOURS)
    Image.fromarray(VALUES.astype(np.uint16)).save(tmp_path / "sixteen.png")
    Image.fromarray(np.stack([VALUES] * 3, axis=-1)).save(tmp_path / "rgb.png")
    Image.fromarray(np.stack([VALUES, VALUES // 2], axis=-1)).save(tmp_path / "alpha.png")
    np.save(tmp_path / "array.npy", VALUES.astype(np.int64))
    Image.fromarray(VALUES).save(tmp_path / "grey.tif")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_mask_file(str(path)).values, VALUES, err_msg=path.name)
    palette = read_mask_file(str(tmp_path / "palette.png")).palette
    assert palette is not None
    assert palette[3] == (3, 252, 7)


def test_one_bit(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    mask = read_mask_file(str(tmp_path / "a.png"))
    assert mask.values.tolist() == [[0, 1], [1, 1]]
    assert decide([tmp_path / "a.png"]).class_names == ("background", "foreground")


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_scaled(tmp_path: Path, bits: int) -> None:
    # A palette PNG of few bits, its header turned into grey, is what other tools write.
    import struct
    import zlib

    values = np.arange(1 << bits, dtype=np.uint8)
    packed = np.packbits(np.unpackbits(values[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")
    path = tmp_path / "few.png"
    path.write_bytes(content)
    assert read_mask_file(str(path)).values.tolist() == [values.tolist()]


def test_colour_coded_masks_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="colours are not grey") as error:
        read_mask_file(str(tmp_path / "a.png"))
    assert "palette PNG" in str(error.value)


def test_values_that_cannot_be_ids(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 300, np.uint16)).save(tmp_path / "large.png")
    np.save(tmp_path / "negative.npy", np.full((2, 2), -1))
    np.save(tmp_path / "fraction.npy", np.full((2, 2), 0.5))
    np.save(tmp_path / "vector.npy", np.zeros(4, np.uint8))
    for name, word in (
        ("large.png", "300"),
        ("negative.npy", "-1"),
        ("fraction.npy", "float"),
        ("vector.npy", "shape"),
    ):
        with pytest.raises(DataError, match=word):
            read_mask_file(str(tmp_path / name))
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_mask_file(str(tmp_path / "empty.png"))


def test_index(tmp_path: Path) -> None:
    target = decide(masks_with(tmp_path, [1, 3]))
    assert target.class_names == ("0", "1", "2", "3")
    assert (target.mask_values, target.ignore_index, target.palette) == ("index", None, None)


def test_palette_is_kept(tmp_path: Path) -> None:
    target = decide(masks_with(tmp_path, [2], palette=True))
    assert target.palette == ((0, 255, 7), (1, 254, 7), (2, 253, 7))


def test_binary(tmp_path: Path) -> None:
    paths = masks_with(tmp_path, [255, 0])
    assert decide(paths).mask_values == "binary"
    assert decide(paths, class_names=("cell", "nucleus")).class_names == ("cell", "nucleus")
    # 255 is ignored: what is left is one class.
    with pytest.raises(DataError, match="one class only"):
        decide(paths, ignore_index=255)
    with pytest.raises(ConfigError, match="two classes, but 3"):
        decide(paths, num_classes=3)
    with pytest.raises(DataError, match=r"data\.ignore_index=255"):
        decide(paths, mask_values="index")
    target = decide(masks_with(tmp_path, [255, 128, 0]), ignore_index=128)
    assert (target.mask_values, target.num_classes, target.ignore_index) == ("binary", 2, 128)
    with pytest.raises(DataError, match=r"the value 7 in a binary mask"):
        decide(masks_with(tmp_path, [255, 7]), mask_values="binary")


def test_zeros_and_ones_are_ids(tmp_path: Path) -> None:
    target = decide(masks_with(tmp_path, [1, 0]))
    assert (target.mask_values, target.class_names) == ("index", ("0", "1"))


def test_ignored_values(tmp_path: Path) -> None:
    paths = masks_with(tmp_path, [1, 2, 255])
    with pytest.raises(DataError, match=r"data\.ignore_index=255"):
        decide(paths)
    assert decide(paths, ignore_index=255).class_names == ("0", "1", "2")
    paths = masks_with(tmp_path, [1, 2])
    assert decide(paths, class_names=("a", "b", "void"), ignore_index=2).class_names == ("a", "b")
    assert decide(paths, ignore_index=2).class_names == ("0", "1")
    # In the middle it keeps its id, so that the others keep theirs.
    assert decide(paths, class_names=("a", "void", "b"), ignore_index=1).class_names == ("a", "void", "b")
    with pytest.raises(ConfigError, match="num_classes=3, and 2 class names without the ignored 2"):
        decide(paths, class_names=("a", "b", "void"), num_classes=3, ignore_index=2)


def test_values_beyond_the_classes(tmp_path: Path) -> None:
    paths = masks_with(tmp_path, [1, 4])
    with pytest.raises(DataError, match=r"1\.png: the mask value 4 is no class") as error:
        decide(paths, class_names=("a", "b", "c"))
    assert "data.ignore_index=4" in error.value.overrides
    with pytest.raises(DataError) as error:
        decide(paths, num_classes=2)
    assert error.value.overrides == ["data.ignore_index=4", "data.num_classes=5"]
    assert decide(paths, num_classes=9).num_classes == 9


def test_grey_levels_are_not_ids(tmp_path: Path) -> None:
    paths = masks_with(tmp_path, [128])
    with pytest.raises(DataError, match="grey levels"):
        decide(paths)
    assert decide(paths, num_classes=129).num_classes == 129


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one class only"):
        decide(masks_with(tmp_path, [0, 0]))


def test_jpeg_masks_get_advice(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (16, 16), dtype=np.uint8) * 255).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="PNG"):
        decide([tmp_path / "a.jpg"])


@given(st.sets(st.integers(0, 255), min_size=1), st.none() | st.integers(0, 255), st.booleans())
def test_whatever_is_decided_covers_every_value(values: set[int], ignore_index: int | None, palette: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write_mask(Path(folder) / "m.png", np.array([sorted(values)]), COLOURS if palette else None)
        try:
            target = decide([path], ignore_index=ignore_index)
        except VisionError:
            return  # refused: the errors have tests of their own
    counted = values - {ignore_index}
    allowed = {0, 255} if target.mask_values == "binary" else set(range(target.num_classes))
    assert counted <= allowed
    assert target.num_classes >= 2


def test_scan_notes_the_first_file_of_each_value_and_collects_errors(tmp_path: Path) -> None:
    paths = masks_with(tmp_path, [1, 2, 1])
    (tmp_path / "bad.png").write_bytes(b"no")
    masks = PackedStrings.from_strings(map(str, [*paths, tmp_path / "bad.png"]))
    scan = scan_masks(masks, np.array([3, 1, 2]))
    assert scan.first == {0: 1, 1: 2, 2: 1}
    assert list(scan.first) == [0, 1, 2]
    assert [row for row, _ in scan.errors] == [3]
    assert scan.read == 2
