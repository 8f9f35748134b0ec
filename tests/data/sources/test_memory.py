from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.headers import read_header
from lightning_vision.data.sources.memory import spool
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import write_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 6, 3), dtype=np.uint8)


class Tensor:
    """Stands for a tensor on a device: numpy sees it only after ``detach().cpu()``."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> npt.NDArray[Any]:
        return self.array


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_layouts_hold_the_same_pixels(tmp_path: Path, channels: int) -> None:
    array = RNG.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    forms = [array, array.transpose(2, 0, 1), Tensor(array.transpose(2, 0, 1)), array.astype(np.int64)]
    if channels == 1:
        forms.append(array[..., 0])
    paths = set(spool(forms, tmp_path))
    assert len(paths) == 1
    with Image.open(paths.pop()) as image:
        np.testing.assert_array_equal(np.asarray(image).reshape(5, 6, channels), array)


def test_files_stand_for_themselves(tmp_path: Path) -> None:
    path = str(write_image(tmp_path / "a.jpg"))
    folder = tmp_path / "spool"
    with Image.open(path) as opened:
        assert spool([path, Path(path), opened, {"path": path, "bytes": None}], folder) == [path] * 4
    assert list(folder.iterdir()) == []


def test_a_changed_picture_is_not_its_file(tmp_path: Path) -> None:
    path = str(write_image(tmp_path / "a.png"))
    with Image.open(path) as changed:
        changed.paste((1, 2, 3), (0, 0, 5, 5))
        turned = changed.rotate(90)
        found = spool([changed, turned], tmp_path / "spool")
        assert path not in found
        for picture, spooled in zip([changed, turned], found, strict=True):
            with Image.open(spooled) as image:
                np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))


def test_orientation_is_applied_once(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", 20, 30, orientation=6)
    with Image.open(path) as image:
        image.load()
        header = read_header(spool([image], tmp_path)[0])
    assert (header.height, header.width, header.orientation) == (30, 20, 1)


def test_bytes_are_kept(tmp_path: Path) -> None:
    content = write_image(tmp_path / "a.jpg").read_bytes()
    found = spool([content, bytearray(content), {"bytes": content, "path": None}], tmp_path / "s")
    assert len(set(found)) == 1
    assert found[0].endswith(".jpg")
    assert Path(found[0]).read_bytes() == content


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(RGB).convert("RGB").convert(mode) if mode != "I;16" else Image.new(mode, (3, 3), 700)
    with Image.open(spool([picture], tmp_path)[0]) as image:
        expected = picture.convert("RGB") if mode in ("CMYK", "YCbCr") else picture
        assert image.convert(expected.mode).tobytes() == expected.tobytes()


@given(st.lists(st.integers(0, 3), max_size=8))
def test_named_by_content_never_by_position(order: list[int]) -> None:
    import tempfile

    images = [np.full((2, 2), value, np.uint8) for value in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        paths = spool([images[i] for i in order], folder)
        assert len(os.listdir(folder)) == len(set(order))
        for i, path in zip(order, paths, strict=True):
            with Image.open(path) as image:
                assert np.asarray(image).tolist() == images[i].tolist()


def test_written_once(tmp_path: Path) -> None:
    path = Path(spool([RGB], tmp_path)[0])
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(1, 1))
    assert spool([RGB], tmp_path) == [str(path)]
    assert path.stat().st_mtime_ns == 1 != before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "wrong",
    [
        np.full((4, 4), 1.5, np.float32),
        np.zeros((5, 6, 7), np.uint8),
        np.full((4, 4), -1),
        np.zeros((4, 4, 3), np.uint16),
        b"no image",
        {"a": 1},
        object(),
        "nowhere.jpg",
        Image.new("F", (2, 2)),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, wrong: object) -> None:
    if isinstance(wrong, np.ndarray) and wrong.dtype == np.uint16:
        wrong = wrong + np.uint16(999)
    with pytest.raises(DataError, match="image 1:"):
        spool([RGB, wrong], tmp_path)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_from_black_to_white(tmp_path: Path, kind: type) -> None:
    values = np.array([[0, 0.25], [0.5, 1]], kind)
    with Image.open(spool([Tensor(values)], tmp_path)[0]) as image:
        assert np.asarray(image).tolist() == [[0, 64], [128, 255]]
    for wrong in (values * 2, values - 1, values * np.nan):
        with pytest.raises(DataError, match="floats from 0 to 1"):
            spool([wrong], tmp_path)


def test_bytes_go_before_the_path_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = (write_image(tmp_path / f"{seed}.bmp", seed=seed) for seed in (1, 2))
    assert path.stat().st_size == other.stat().st_size, "the size does not tell them apart"
    monkeypatch.chdir(tmp_path)
    for named in (str(path), "1.bmp", "gone.bmp"):
        spooled = Path(spool([{"path": named, "bytes": other.read_bytes()}], tmp_path / "s")[0])
        assert spooled.read_bytes() == other.read_bytes()
        assert spooled.parent == tmp_path / "s"


def test_bytes_of_other_programs_are_no_image(tmp_path: Path) -> None:
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    with pytest.raises(DataError, match="bytes that are no image"):
        spool([drawing], tmp_path)


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        spool([RGB], tmp_path)
    assert list(tmp_path.iterdir()) == []
