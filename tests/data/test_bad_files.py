"""Files that are no images, lie, or would fill the memory: errors with the path and a plain reason."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data import imagefile
from lightning_vision.data.decode import decode_image
from lightning_vision.data.headers import read_header
from lightning_vision.data.imagefile import _without_warnings
from lightning_vision.errors import DataError
from lightning_vision.testing.processes import Child
from lightning_vision.types import Geometry

SMALL = Geometry(8, 8, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def encoded(kind: str, pixels: np.ndarray = NOISE, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


JPEG = encoded("JPEG")


def refused(path: Path | str, *words: str) -> None:
    """Both the header and the pixels are refused, with the path and the words."""
    for read in (read_header, lambda p: decode_image(p, SMALL)):
        with pytest.raises(DataError) as caught:
            read(path)
        assert caught.value.summary.startswith(f"{path}: ")
        for word in words:
            assert word in str(caught.value)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.npy", "a"])
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "the file is empty"),
        (b"I am a photo, honestly.\n", "text, not an image"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page, perhaps a failed download"),
        (b"\n  <HTML lang=en>", "an HTML page, perhaps a failed download"),
        (b'<?xml version="1.0"?><!-- a --><!doctype html><html>', "an HTML page, perhaps a failed download"),
        (LFS, "a Git LFS pointer, not the image itself: git lfs pull"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo"),
        (b"%PDF-1.7\n\xe2\xe3", "a PDF document"),
        (b"PK\x03\x04\x14\0\0\0", "an archive"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text, not an image"),  # never handed to Ghostscript
        (bytes(5000), "nothing but zero bytes"),
        (bytes(range(256)), "not an image that can be read"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, word)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.jpg", "no such file")
    refused(tmp_path, "is a folder, not an image")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "absent.jpg")
    refused(tmp_path / "link.jpg", "no such file")
    (tmp_path / "file.txt").write_text("x")
    refused(tmp_path / "file.txt" / "a.jpg", "Not a directory")
    refused(tmp_path / ("n" * 300 + ".jpg"), "File name too long")
    refused("null\0.jpg", "null")
    refused("/dev/zero", "is a device, not an image")


@pytest.mark.parametrize("suffix", [".jpg", ".npy"])
def test_a_pipe_does_not_hang(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    refused(tmp_path / f"pipe{suffix}", "is a pipe, not an image")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket may have about a hundred characters
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.jpg")
        refused("socket.jpg", "is a socket, not an image")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything
        message = "Permission denied"

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, message)

        monkeypatch.setattr("builtins.open", forbidden)
        monkeypatch.setattr(np, "fromfile", forbidden)
    refused(path, "no permission to read it")


@pytest.mark.parametrize(
    "name",
    ["a b.jpg", "a,b=c.jpg", "grün 図.jpg", "line\nbreak.jpg", os.fsdecode(b"latin\xe9.jpg"), "-x.jpg", "*?[1].jpg"],
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(JPEG)
    assert read_header(path).width == 50
    assert decode_image(path, SMALL).shape == (3, 8, 8)
    path.write_bytes(JPEG[:100])
    refused(path)
    path.unlink()
    refused(path, "no such file")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"quality": 100, "subsampling": 0, "restart_marker_rows": 1}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("PPM", {}),
        ("JPEG2000", {}),
        ("AVIF", {}),
        ("NPY", {}),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_wherever_a_file_is_cut(tmp_path: Path, kind: str, options: dict[str, object], exact: bool) -> None:
    if kind == "NPY":
        file = io.BytesIO()
        np.save(file, NOISE)
        content, path = file.getvalue(), tmp_path / "cut.npy"
    else:
        content, path = encoded(kind, **options), tmp_path / "cut"
    path.write_bytes(content)
    whole = decode_image(path, SMALL, exact_decode=exact)
    for length in {
        0,
        1,
        2,
        3,
        10,
        *(len(content) * i // 40 for i in range(40)),
        *range(len(content) - 12, len(content)),
    }:
        path.write_bytes(content[:length])
        try:
            decoded = decode_image(path, SMALL, exact_decode=exact)
        except DataError as error:
            shown = error.summary
            assert shown.startswith(f"{path}: "), shown
        else:
            # Only what stands behind the pixels may be missing.
            assert length >= len(content) - 12
            assert (decoded == whole).all()


JPEGS = {
    "rgb": (NOISE, {}),
    "grey": (NOISE[..., 0], {}),
    "not subsampled": (NOISE, {"subsampling": 0}),
    "restarts": (NOISE, {"restart_marker_rows": 1}),
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("tail", [b"\xff\xd9", bytes(100), bytes(100_000)], ids=["end", "zeros", "many zeros"])
def test_a_jpeg_that_lacks_data_is_never_half_grey(tmp_path: Path, kind: str, exact: bool, tail: bytes) -> None:
    """libjpeg fills what is missing with grey, or takes zeros for codes; neither torchvision nor Pillow says so."""
    array, options = JPEGS[kind]
    content = encoded("JPEG", array, **options)
    path = tmp_path / "cut.jpg"
    for share in (0.5, 0.7, 0.9):
        path.write_bytes(content[: int(len(content) * share)] + tail)
        with pytest.raises(DataError, match="cut off"):
            decode_image(path, SMALL, exact_decode=exact)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": Image.Exif()}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG2000", {}),
    ],
)
def test_a_tail_of_zeros(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    """What is left of a copy or a download that did not finish, where space was taken beforehand."""
    content = encoded(kind, np.kron(NOISE, np.ones((4, 4, 1), np.uint8)), **options)
    path = tmp_path / "tail"
    for share in (0.5, 0.8, 0.95):
        kept = int(share * len(content))
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        with pytest.raises(DataError, match="tail: "):
            decode_image(path, SMALL)


def test_every_damaged_byte_of_a_png_is_noticed(tmp_path: Path) -> None:
    content = encoded("PNG", NOISE[:9, :9])
    path = tmp_path / "damaged.png"
    start = content.index(b"IDAT") + 4
    for at in range(start, content.index(b"IEND") - 4):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(DataError, match=r"damaged\.png: "):
            decode_image(path, SMALL)


def test_a_cut_cmyk_jpeg(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert("CMYK").save(file, "JPEG")
    content = file.getvalue()
    (tmp_path / "whole.jpg").write_bytes(content)
    decode_image(tmp_path / "whole.jpg", SMALL)
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    with pytest.raises(DataError, match="cut off"):
        decode_image(tmp_path / "cut.jpg", SMALL)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("after", [b"", b"\n", bytes(300), b"\xff\xd9 and a second image \xff\xd8\xff"])
def test_grey_photos_are_whole(tmp_path: Path, options: dict[str, object], after: bytes) -> None:
    """The grey of missing data may also be the grey of the photo; and what follows the image does not matter."""
    path = tmp_path / "grey.jpg"
    for pixels in (np.full((40, 50, 3), 128, np.uint8), np.where(np.indices((40, 50))[0, ..., None] < 20, NOISE, 128)):
        path.write_bytes(encoded("JPEG", pixels.astype(np.uint8), **options) + after)
        assert decode_image(path, SMALL)[:, -1, -1].tolist() == [128, 128, 128]


def frame_of(jpeg: bytes, height: int, width: int) -> bytes:
    """The JPEG with another size in its header."""
    at = next(i for i in range(len(jpeg)) if jpeg[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_headers_that_lie_about_the_size(tmp_path: Path) -> None:
    path = tmp_path / "lie"
    for height, width in ((400, 50), (40, 500), (4000, 5000)):
        path.write_bytes(frame_of(JPEG, height, width))
        with pytest.raises(DataError, match="cut off"):
            decode_image(path, SMALL)
        for pixels in (NOISE, NOISE[..., 0], NOISE[..., 0] > 99, np.dstack([NOISE, NOISE[..., 0]])):
            png = bytearray(encoded("PNG", pixels))
            png[16:24] = struct.pack(">II", width, height)
            png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
            path.write_bytes(png)
            with pytest.raises(DataError, match=r"lie: (cut off|damaged)"):
                decode_image(path, SMALL)
        bmp = bytearray(encoded("BMP"))
        bmp[18:26] = struct.pack("<ii", width, height)
        path.write_bytes(bmp)
        with pytest.raises(DataError, match="lie: "):
            decode_image(path, SMALL)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (8, 8), (9, 17)])
def test_black_pngs_are_whole(tmp_path: Path, size: tuple[int, int]) -> None:
    for array in (
        np.zeros((*size, 3), np.uint8),
        np.zeros(size, np.uint8),
        np.zeros(size, bool),
        np.zeros(size, "<u2"),
    ):
        (tmp_path / "black.png").write_bytes(encoded("PNG", array))
        assert not decode_image(tmp_path / "black.png", SMALL).any()


@pytest.mark.parametrize(
    ("dtype", "channels"), [("bool", ()), ("u1", ()), ("<u2", ()), ("u1", (2,)), ("u1", (3,)), ("u1", (4,))]
)
@pytest.mark.parametrize("last", [0, 167, 255])
def test_whatever_the_last_row_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, channels: tuple[int, ...], last: int
) -> None:
    """To count the rows unpacks them again, so a black end, which most masks have, must do without."""
    pixels = np.zeros((5, 7, *channels), dtype)
    pixels[-1] = last
    whole = encoded("PNG", pixels)
    path = tmp_path / "a.png"
    path.write_bytes(whole)
    decode_image(path, SMALL)
    if last == 0:
        with monkeypatch.context() as patch:
            patch.setattr(imagefile, "has_all_rows", lambda _: pytest.fail("counted"))
            decode_image(path, SMALL)
    taller = bytearray(whole)
    taller[20:24] = struct.pack(">I", 6)
    taller[29:33] = struct.pack(">I", zlib.crc32(taller[12:29]))
    path.write_bytes(taller)
    with pytest.raises(DataError, match="cut off"):
        decode_image(path, SMALL)


def interlaced(width: int, height: int, rows_missing: int = 0, value: int = 0) -> bytes:
    """A grey interlaced PNG of one value, by hand: seven passes of rows, each after a byte that names its filter."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = []
    for top, left, down, across in passes:
        columns = len(range(left, width, across))
        rows += [b"\0" + bytes([value]) * columns] * (len(range(top, height, down)) if columns else 0)
    packed = zlib.compress(b"".join(rows[: len(rows) - rows_missing]))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 3), (8, 8), (9, 17)])
def test_interlaced_pngs(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "whole.png").write_bytes(interlaced(*size))
    assert not decode_image(tmp_path / "whole.png", SMALL).any()
    for value in (0, 9):
        (tmp_path / "cut.png").write_bytes(interlaced(*size, rows_missing=1, value=value))
        with pytest.raises(DataError, match="cut off"):
            decode_image(tmp_path / "cut.png", SMALL)


def array_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


def bombs(side: int = 30_000) -> dict[str, Callable[[], bytes]]:
    """Small files that claim, or really unpack to, ``side`` x ``side`` pixels."""

    def png() -> bytes:
        packer, rows = zlib.compressobj(1), b""
        for _ in range(side):
            rows += packer.compress(bytes(side // 8 + 1))  # one bit a pixel
        rows += packer.flush()
        head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")

    def tiff() -> bytes:
        content = bytearray(encoded("TIFF", compression="tiff_lzw"))
        at = struct.unpack_from("<I", content, 4)[0] + 2
        for k in range(2):  # width and height are the first tags
            struct.pack_into("<HHII", content, at + 12 * k, 256 + k, 4, 1, side)
        return bytes(content)

    def webp() -> bytes:
        # An animation has a canvas that its frames need not fill.
        content = bytearray(encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (50, 40))]))
        content[24:30] = 2 * struct.pack("<I", side - 1)[:3]
        return bytes(content)

    def gif() -> bytes:
        content = bytearray(encoded("GIF", np.zeros((4, 4), np.uint8)))
        content[6:10] = struct.pack("<HH", side, side)
        return bytes(content)

    return {
        "jpg": lambda: frame_of(JPEG, side, side),
        "png": png,
        "tif": tiff,
        "webp": webp,
        "gif": gif,
        "npy": lambda: array_header((side, side)) + bytes(1000),
    }


@pytest.mark.parametrize("suffix", sorted(bombs()))
def test_a_bomb_is_refused_with_its_size_and_the_limit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.{suffix}"
    path.write_bytes(bombs()[suffix]())
    for exact in (True, False):
        with pytest.raises(DataError, match=r"bomb\.") as caught:
            decode_image(path, SMALL, exact_decode=exact)
    if suffix != "npy":  # whose file is shorter than it claims
        assert "900000000 pixels, above Pillow's limit of 178956970" in str(caught.value)


def test_an_array_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npy"
    with path.open("wb") as file:
        file.write(array_header((30_000, 30_000)))
        file.truncate(file.tell() + 900_000_000)  # a hole, which takes no disk
    refused(path, "30000 x 30000 = 900000000 pixels, above Pillow's limit of 178956970")


def test_a_file_larger_than_any_image(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)
    refused(path, "5000000000 bytes are no image")


def test_the_limit_is_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("JPEG", "PNG"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(encoded(kind))
        for limit, large in ((999, True), (1000, False), (None, False)):  # 2000 pixels, twice the setting are refused
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            if large:
                with pytest.raises(DataError, match="2000 pixels, above Pillow's limit of 1998"):
                    decode_image(path, SMALL)
            else:
                assert decode_image(path, SMALL).shape == (3, 8, 8)


def read_all(folder: Path) -> None:
    """Read every file; print by how much the highest memory of the process has grown."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(folder.iterdir()):
        for read in (read_header, lambda p: decode_image(p, Geometry(8, 8, 3))):
            with contextlib.suppress(DataError):
                read(path)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """In a process of its own, whose highest memory is measured."""
    for suffix, make in bombs().items():
        (tmp_path / f"bomb.{suffix}").write_bytes(make())
    output = Child(read_all, tmp_path).succeed()
    grown = int(output.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 50e6, "30000 x 30000 pixels would take 900 MB and more"


@pytest.fixture
def odd_files(tmp_path: Path) -> dict[str, Path]:
    """Files that make Pillow warn, each of which can be read."""
    broken_exif = (
        b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\x0f\x01\x02\0\xff\xff\0\0\xff\xff\xff\0"
    )
    contents = {
        "exif.jpg": JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(broken_exif) + 2) + broken_exif + JPEG[2:],
        "exif.png": encoded("PNG", exif=broken_exif),
        "exif.webp": encoded("WEBP", exif=broken_exif),
    }
    image = Image.fromarray(NOISE).convert("P")
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(range(200)))
    contents["palette.png"] = file.getvalue()
    paths = {}
    for name, content in contents.items():
        paths[name] = tmp_path / name
        paths[name].write_bytes(content)
    return paths


def test_pillows_warnings_are_neither_shown_nor_raised(
    odd_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # between it and twice of it Pillow warns
    heard = 0
    for path in odd_files.values():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Image.open(path) as image:
                image.getexif()
        heard += bool(caught)
    assert heard == len(odd_files), "these files make Pillow warn"
    for action in ("error", "always"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)  # type: ignore[arg-type]
            for path in odd_files.values():
                for channels in (3, 4):
                    assert read_header(path).width == 50
                    assert decode_image(path, Geometry(40, 50, channels)).shape == (channels, 40, 50)
        assert not caught


def test_other_warnings_are_left_alone() -> None:
    before = list(warnings.filters)
    with _without_warnings:
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
        with _without_warnings:
            pass
        assert len(warnings.filters) == len(before) + 1
    assert list(warnings.filters) == before
