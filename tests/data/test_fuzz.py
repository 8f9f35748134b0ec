"""Damaged files of every format: pixels of the right shape or a DataError that names the file, and nothing else."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.decode import decode_image
from lightning_vision.data.headers import read_header
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.placement import Resize
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry, TargetSpec

MASK = TargetSpec("mask", tuple("abc"))
METHODS = ("interpolate", "crop_or_pad", "resize_crop", "resize_pad")


def encoded(mode: str, kind: str, size: tuple[int, int] = (23, 17), **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 3, (size[1], size[0], 4), dtype=np.uint8) * 100
    image = Image.fromarray(pixels).convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def arrays(dtype: str, *shape: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).integers(0, 3, shape).astype(dtype))
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """A small valid file of every format and of most of its variants, by name."""
    exif = Image.Exif()
    exif[0x0112] = 6
    more = [Image.new("RGB", (23, 17), "red")]
    return {
        "rgb.jpg": encoded("RGB", "JPEG", exif=exif),
        "grey.jpg": encoded("L", "JPEG"),
        "cmyk.jpg": encoded("CMYK", "JPEG"),
        "progressive.jpg": encoded("RGB", "JPEG", progressive=True, restart_marker_rows=1),
        "large.jpg": encoded("RGB", "JPEG", (70, 60), exif=exif),
        "rgb.png": encoded("RGB", "PNG", exif=exif),
        "palette.png": encoded("P", "PNG", transparency=0),
        "grey.png": encoded("L", "PNG"),
        "one_bit.png": encoded("1", "PNG"),
        "sixteen.png": encoded("I;16", "PNG"),
        "animated.png": encoded("RGB", "PNG", save_all=True, append_images=more),
        "rgb.bmp": encoded("RGB", "BMP"),
        "palette.bmp": encoded("P", "BMP"),
        "rgb.gif": encoded("RGB", "GIF", save_all=True, append_images=more),
        "lossy.webp": encoded("RGB", "WEBP", exif=exif),
        "lossless.webp": encoded("RGBA", "WEBP", lossless=True),
        "animated.webp": encoded("RGB", "WEBP", save_all=True, append_images=more),
        "raw.tif": encoded("RGB", "TIFF", exif=exif),
        "lzw.tif": encoded("RGB", "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded("L", "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded("RGB", "TIFF", compression="jpeg"),
        "group4.tif": encoded("1", "TIFF", compression="group4"),
        "pages.tif": encoded("RGB", "TIFF", save_all=True, append_images=more),
        "rgb.ppm": encoded("RGB", "PPM"),
        "one_bit.pbm": encoded("1", "PPM"),
        "rgb.tga": encoded("RGB", "TGA", compression="tga_rle"),
        "rgb.ico": encoded("RGBA", "ICO", sizes=[(16, 16)]),
        "rgb.jp2": encoded("RGB", "JPEG2000"),
        "rgb.avif": encoded("RGB", "AVIF"),
        "colour.npy": arrays("uint8", 17, 23, 3),
        "grey.npy": arrays("float32", 17, 23),
    }


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Flip bits, overwrite, cut, insert, or repeat: one to four times, headers more often than the rest."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(min(len(data), draw.choice((32, 128, len(data) or 1))) or 1)
        kind = draw.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + 1] = bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))])
        elif kind == 2:
            size = draw.choice((2, 4))
            data[at : at + size] = draw.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff"))[:size]
        elif kind == 3:
            del data[draw.randrange(len(data) + 1) :]
        elif kind == 4:
            data[at:at] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 5:
            del data[at : at + draw.randrange(1, 9)]
        else:
            start = draw.randrange(len(data) + 1)
            data[at:at] = data[start : start + 40]
    return bytes(data)


def read(path: Path, draw: random.Random) -> int:
    """Read a file in every way; returns how many of them succeeded."""
    geometry = Geometry(draw.choice((1, 9, 20)), draw.choice((5, 16)), draw.randrange(1, 5))
    resize = Resize(draw.choice(METHODS))
    good = 0
    for work in (
        lambda: read_header(path),
        lambda: decode_image(path, geometry, resize, draw.random() < 0.5),
        lambda: decode_mask(path, MASK, (geometry.height, geometry.width), resize=resize),
    ):
        try:
            result = work()
        except DataError as error:
            if not str(error).startswith(f"{path}: "):
                raise AssertionError(f"{path} is not named") from error
            continue
        good += 1
        if isinstance(result, torch.Tensor):
            size = (geometry.height, geometry.width)
            assert result.dtype == torch.uint8
            assert tuple(result.shape) in (size, geometry.shape)
        else:
            assert min(result.height, result.width) > 0
            assert 1 <= result.num_channels <= 4
    return good


def test_the_seeds_are_images(tmp_path: Path) -> None:
    for name, content in seeds().items():
        (tmp_path / name).write_bytes(content)
        header = read_header(tmp_path / name)
        if not name.startswith(("large", "rgb.ico")):
            assert {header.height, header.width} == {17, 23}, name
        if name != "grey.npy":  # whose numbers are for a mask
            decode_image(tmp_path / name, Geometry(4, 4, 3))


@given(name=st.sampled_from(sorted(seeds())), seed=st.integers(0, 2**32))
def test_mutations(tmp_path_factory: pytest.TempPathFactory, name: str, seed: int) -> None:
    draw = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / f"mutated {name}"
    path.write_bytes(mutated(seeds_once()[name], draw))
    read(path, draw)


@given(content=st.binary(max_size=300), suffix=st.sampled_from([".jpg", ".png", ".tif", ".npy", ""]))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"random{suffix}"
    path.write_bytes(content)
    read(path, random.Random(0))


def seeds_once(cache: list[dict[str, bytes]] = []) -> dict[str, bytes]:  # noqa: B006 - to be kept
    if not cache:
        cache.append(seeds())
    return cache[0]


def campaign(folder: Path, count: int, seed: int = 0) -> None:
    """Mutate every seed ``count`` times. The file of the moment stays, so that it is there after a crash."""
    for name, content in seeds().items():
        path, draw, slowest, good = folder / name, random.Random(f"{name} {seed}"), 0.0, 0
        for _ in range(count):
            path.write_bytes(mutated(content, draw))
            start = time.process_time()
            good += read(path, draw)
            taken = time.process_time() - start
            if taken > slowest:
                slowest = taken
                (folder / f"slowest.{name}").write_bytes(path.read_bytes())
        print(
            f"{name:18} {count} files, {good / (3 * count):4.0%} readable, the slowest {slowest:.3f} s CPU", flush=True
        )


@pytest.mark.slow
def test_a_long_campaign_ends_without_a_crash(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path), "1000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


if __name__ == "__main__":
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    campaign(Path(sys.argv[1]), int(sys.argv[2]), int(os.environ.get("SEED", "0")))
