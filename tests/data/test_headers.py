from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from lightning_vision.data.headers import array_layout, is_image_name, read_header
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import broken_images, odd_images, write_image


def test_every_kind_of_file(tmp_path: Path) -> None:
    for path, expected in odd_images(tmp_path).items():
        assert read_header(path) == expected, path.name


def test_size_and_channels_are_those_of_the_decoded_image(tmp_path: Path) -> None:
    for path in odd_images(tmp_path):
        if path.suffix == ".npy":
            continue
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
        header = read_header(path)
        assert (header.width, header.height) == turned.size, path.name


def test_nothing_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = list(odd_images(tmp_path))

    def refuse(self: object, *args: object) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    for path in paths:
        read_header(path)


def test_broken_files_are_errors_with_their_path(tmp_path: Path) -> None:
    for path, word in broken_images(tmp_path).items():
        with pytest.raises(DataError) as error:
            read_header(path)
        assert str(path) in str(error.value)
        assert word in str(error.value), path.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


@given(name=st.sampled_from(["a.jpg", "a.png", "a.tif", "a.bmp", "a.gif"]), share=st.floats(0, 1))
def test_cut_files_are_read_or_refused(folder: Path, name: str, share: float) -> None:
    whole = folder / name
    if not whole.exists():
        write_image(whole)
    content = whole.read_bytes()
    cut = folder / f"cut{whole.suffix}"
    cut.write_bytes(content[: int(share * len(content))])
    try:
        found = read_header(cut)
    except DataError as caught:
        message = str(caught)
    else:
        message = f"{cut}: {found.height}"
    assert message.startswith(str(cut))


def test_palettes_and_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 3))
    image.putpalette([v for i in range(4) for v in (i, i, i)])
    image.save(tmp_path / "grey.png")
    assert read_header(tmp_path / "grey.png").num_channels == 1
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "clear.png", transparency=0)
    assert read_header(tmp_path / "clear.png").num_channels == 4


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((5, 6), (5, 6, 1, False)),
        ((5, 6, 3), (5, 6, 3, False)),
        ((3, 5, 6), (5, 6, 3, True)),
        ((3, 6, 4), (3, 6, 4, False)),  # both fit: the last axis is the channels
        ((5, 6, 7), None),
        ((5,), None),
        ((0, 5), None),
        ((1, 2, 3, 4), None),
    ],
)
def test_array_layout(shape: tuple[int, ...], layout: tuple[int, int, int, bool] | None) -> None:
    assert array_layout(shape) == layout


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    np.save(tmp_path / "vector.npy", np.zeros(5))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    for name in ("vector.npy", "words.npy"):
        with pytest.raises(DataError, match="is no image"):
            read_header(tmp_path / name)


def test_names() -> None:
    assert all(is_image_name(n) for n in ("a.JPG", "b.c.png", "ü.webp"))
    assert not any(is_image_name(n) for n in (".hidden.jpg", "Thumbs.db", "a.csv", "jpg", ".jpg"))


@pytest.mark.real_data
def test_real_orientations(data_root: Path) -> None:
    folder = next(p for p in (data_root / "decode_bench", data_root / "data" / "decode_bench") if p.is_dir())
    with (folder / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            header = read_header(folder / row["image"])
            assert header.mode == row["mode"]
            assert header.orientation == int(row["exif_orientation"] or 1)
            assert {header.height, header.width} == {int(row["height"]), int(row["width"])}


def test_from_bytes_is_not_a_path() -> None:
    with pytest.raises(TypeError):
        read_header(io.BytesIO())  # type: ignore[arg-type]
