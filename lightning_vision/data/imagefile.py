"""Image files are opened here: regular ones of bounded size, without Pillow's warnings, and with plain reasons."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from lightning_vision.data.png import has_all_rows, has_valid_checksums
from lightning_vision.data.webp import canvas, ends_in_zeros
from lightning_vision.errors import DataError

# Pillow knows more, among them EPS, whose pixels another program would compute. TGA goes last: it has no signature.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "WEBP", "TIFF", "ICO", "JPEG2000", "AVIF", "TGA")
_ORIENTATION = 0x0112
# Channels of pixels that no decoder wrote. Black will not do: many masks end in it.
_UNWRITTEN = 167
_PIXEL_BYTES = 16  # of the widest pixels that there are, four channels of 32 bits
_NOT_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# What lies under an image's name often enough to be called by its own.
_IMPOSTORS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), name)
    for pattern, name in (
        (rb"version https://git-lfs", "a Git LFS pointer, not the image itself: git lfs pull"),
        (
            rb"\s*(<\?xml.*)?(<!--.*-->\s*)?(<!doctype html|<html|<head|<body)",
            "an HTML page, perhaps a failed download",
        ),
        (rb"\s*(<\?xml.*)?(<!.*)?<svg", "an SVG drawing, which has no pixels: convert it to PNG"),
        (rb".{4}ftyp(hei|hev|mif1|msf1)", "a HEIC photo, which cannot be read: convert it to JPEG or PNG"),
        (rb"%PDF-", "a PDF document, not an image"),
        (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive: unpack it"),
        (rb"\0{64,}\Z", "nothing but zero bytes, perhaps a failed download or copy"),
        (rb"[\t\n\r -~]+\Z", "text, not an image"),
    )
)


class _WithoutWarnings:
    """Mutes the warnings of Pillow's modules meanwhile.

    They tell of oddities that change nothing here, and would be exceptions where warnings are errors.
    ``warnings.catch_warnings`` is not for threads: of two that overlap, one restores what the other changed. One rule
    more in the list of filters disturbs nobody, and no record of warnings that were shown is thrown away.
    """

    _rule = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            filters = cast("list[Any]", warnings.filters)
            if self._rule not in filters:
                filters.insert(0, self._rule)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            filters = cast("list[Any]", warnings.filters)
            if not self._users and self._rule in filters:
                filters.remove(self._rule)


_without_warnings = _WithoutWarnings()


def pixel_limit() -> int | None:
    """Largest number of pixels of an image, Pillow's against decompression bombs; None if Pillow's is switched off."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def check_pixels(path: str, height: int, width: int) -> None:
    """Refuse an image beyond ``pixel_limit`` before memory is taken for it.

    Raises:
        DataError: With the path, the size and the limit.
    """
    limit = pixel_limit()
    if limit is not None and height * width > limit:
        raise DataError(f"{path}: {_too_large(f'{height} x {width} = {height * width}')}")


def _too_large(pixels: str) -> str:
    return (
        f"{pixels} pixels, above Pillow's limit of {pixel_limit()} against decompression bombs; "
        "scale the image down or cut it into tiles"
    )


def file_size(path: str) -> int:
    """Return the bytes of a regular file. Anything else is refused before it is opened: a pipe would wait for a writer.

    Raises:
        DataError: Not a regular file, or larger than any image may be.
        OSError: There is none, or it cannot be looked at.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for is_kind, name in _NOT_FILES if is_kind(status.st_mode)), "no regular file")
        raise DataError(f"{path}: is {kind}, not an image")
    limit = pixel_limit()
    if limit is not None and status.st_size > limit * _PIXEL_BYTES:
        raise DataError(f"{path}: {status.st_size} bytes are no image of at most {limit} pixels, Pillow's limit")
    return status.st_size


def read_bytes(path: str) -> npt.NDArray[np.uint8]:
    """Return the content of a file.

    Raises:
        DataError: Empty, not a regular file, or too large.
        OSError: As ``open`` raises it.
    """
    if not file_size(path):
        raise DataError(f"{path}: the file is empty")
    return np.fromfile(path, np.uint8)


@contextmanager
def open_image(source: str | npt.NDArray[np.uint8]) -> Iterator[Image.Image]:
    """Open a path, or bytes that were read, with Pillow; its warnings are muted until it is closed.

    Raises:
        DataError: The path is no regular file.
        Exception: Whatever Pillow raises; ``reason`` explains it.
    """
    if isinstance(source, str):
        file_size(source)
        # A file, not its name: Pillow would map a TIFF without compression, and garbles it if its orientation swaps
        # the sides.
        file: BinaryIO = open(source, "rb")  # noqa: SIM115 - closed below
    else:
        file = io.BytesIO(source.data)
    with file:
        _check_canvas(file.read(30))
        with _without_warnings, Image.open(file, formats=_FORMATS) as image:
            yield image


def _check_canvas(head: bytes) -> None:
    """Refuse an animated WebP beyond the limit: Pillow looks at its size after the decoder took memory for it."""
    size, limit = canvas(head), pixel_limit()
    if size is not None and limit is not None and size[0] * size[1] > limit:
        raise Image.DecompressionBombError(f"{size[0] * size[1]} pixels")


def load_whole(image: Image.Image, path: str, data: npt.NDArray[np.uint8]) -> None:
    """Load the pixels; refuse those that are missing or damaged, also where Pillow says nothing of it.

    Args:
        image: As it was opened.
        path: Of the file, for the error.
        data: The file.

    Raises:
        DataError: A PNG whose checksums are wrong or that has too few rows; a WebP that ends in zero bytes.
        Exception: Whatever Pillow raises; ``reason`` explains it.
    """
    content = data.data
    if image.format == "PNG":
        if not has_valid_checksums(content):
            raise DataError(f"{path}: damaged: a checksum of the pixels is wrong")
        lacks = _may_lack_rows(image) and not has_all_rows(content)
    else:
        image.load()
        lacks = image.format == "WEBP" and ends_in_zeros(content)
    if lacks:
        raise DataError(f"{path}: cut off: the last part of the image is missing")


def _may_lack_rows(image: Image.Image) -> bool:
    """Load a PNG; True if its last row may not have been in the file. To count all rows would unpack them again."""
    mark = _UNWRITTEN if len(image.getbands()) == 1 else (_UNWRITTEN,) * len(image.getbands())
    canvas = Image.new(image.mode, image.size, mark)
    image.im = canvas.im  # which Pillow decodes into
    unwritten = canvas.crop((0, 0, 1, 1)).getextrema()
    image.load()
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    # The last row of an interlaced file is not the last that is decoded.
    return bool(image.info.get("interlace")) or last_row.getextrema() == unwritten


def orientation_to_apply(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, in which Pillow leaves the pixels; call it before they are loaded."""
    return 1 if image.format == "TIFF" else exif_orientation(image)  # Pillow turns TIFFs while it loads them


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is none. Call it before the pixels are loaded.

    Of a PNG, only a chunk before the pixels counts, where every writer of note puts it.
    """
    # PngImageFile.getexif() decodes the pixels to look for a late chunk.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    value: Any = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def load_array(path: str) -> npt.NDArray[Any]:
    """Map a ``.npy`` file: shape and type are there, and values are read when they are used.

    Raises:
        DataError: The path is no regular file.
        Exception: Whatever numpy raises; ``reason`` explains it.
    """
    file_size(path)
    with open(path, "rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise UnidentifiedImageError("no NumPy array")
    return cast("npt.NDArray[Any]", np.load(path, mmap_mode="r", allow_pickle=False))


def reason(path: str, error: Exception, damaged: str = "damaged or cut off") -> str:
    """Say in a few words why ``path`` could not be read.

    Args:
        path: The file.
        error: What its reader raised.
        damaged: What to say of a file that is an image, or was meant to be one.
    """
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", str(error))
        return _too_large(found.group() if found else "too many")
    try:
        if file_size(path) == 0:
            return "the file is empty"
        with open(path, "rb") as file:
            head = file.read(1024)
    except DataError as no_file:
        return no_file.summary.removeprefix(f"{path}: ")
    except FileNotFoundError:
        return "no such file"
    except PermissionError:
        return "no permission to read it"
    except (OSError, ValueError) as unreadable:  # ValueError: a null character in the path
        return getattr(unreadable, "strerror", None) or str(unreadable)
    for pattern, name in _IMPOSTORS:
        if pattern.match(head):
            return name
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read"
    if isinstance(error, OSError) and "truncated" in str(error).lower():
        return "cut off: the file ends before the image does"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    return f"{damaged} ({type(error).__name__}: {error})"
