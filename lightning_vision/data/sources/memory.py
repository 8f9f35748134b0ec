"""Images in memory become files: written once under a digest of their content, and used like any other file."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from lightning_vision.data.headers import array_layout
from lightning_vision.data.imagefile import open_image
from lightning_vision.data.sources.base import cache_folder
from lightning_vision.errors import DataError


def spool(images: Iterable[Any], folder: str | os.PathLike[str] | None = None) -> list[str]:
    """Return a path for every image; what is not a file yet is written as one.

    A file is named by the digest of its content: the same image is written once, another image never overwrites it,
    and its number or order plays no part.

    Args:
        images: Any mix of paths; encoded bytes (kept as they are); Pillow images (one that was opened from a file and
            not touched since stands for that file; EXIF orientation is applied to the others); mappings with
            ``bytes``, or else ``path``; arrays or tensors ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, C from 1 to 4
            (see ``array_layout`` where both fit): uint8, uint16, bool, or floats from 0 (black) to 1 (white).
        folder: Where files are written. None = ``images`` in the user's cache folder.

    Raises:
        DataError: An item is no image; with its position.
    """
    target = _target_folder(folder)
    paths = []
    for position, image in enumerate(images):
        try:
            paths.append(spool_one(image, target))
        except DataError as error:
            raise DataError(f"image {position}: {error.summary}", given=error.given, expected=error.expected) from error
    return paths


def spool_one(image: Any, folder: str, keep_unknown: bool = False) -> str:
    """Return the path of one image, which is written into ``folder`` unless it is a file; see ``spool``.

    Args:
        image: Anything that ``spool`` takes.
        folder: An existing folder.
        keep_unknown: Write bytes that are no image too: then they are reported, or left out, like any unreadable file.

    Raises:
        DataError: It is no image.
    """
    if isinstance(image, str | os.PathLike):
        path = os.path.abspath(os.path.expanduser(os.fspath(image)))
        if not os.path.isfile(path):
            raise DataError("no such file", given=path)
        return path
    if isinstance(image, Mapping):
        known, content = image.get("path"), image.get("bytes")
        if content is None:
            if known and os.path.isfile(known):
                return os.path.abspath(str(known))
            raise DataError("a mapping without an existing path and without bytes", given=sorted(map(str, image)))
        image = content  # a path beside bytes may be their name on another machine, and another file here
    if isinstance(image, bytes | bytearray | memoryview):
        return _spool_bytes(bytes(image), folder, keep_unknown)
    if isinstance(image, Image.Image):
        source = _untouched_file(image)
        return source if source is not None else _spool_picture(ImageOps.exif_transpose(image), folder)
    return _spool_picture(_from_array(image), folder)


def _untouched_file(image: Image.Image) -> str | None:
    """Path of the file that an opened image still stands for, or None.

    Changing an image loads it, and loading empties its list of tiles: while tiles are left, it is what the file is.
    """
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or getattr(image, "tell", int)() != 0:
        return None
    name = os.fsdecode(image.filename) if image.filename else ""
    return os.path.abspath(name) if name and os.path.isfile(name) else None


def _spool_bytes(data: bytes, folder: str, keep_unknown: bool) -> str:
    try:
        with open_image(np.frombuffer(data, np.uint8)) as image:
            suffix = {"JPEG": "jpg"}.get(image.format or "", (image.format or "img").lower())
    except Exception as error:  # Pillow's plugins raise nearly every type on broken headers
        if not keep_unknown:
            raise DataError("bytes that are no image", given=f"{len(data)} bytes starting with {data[:8]!r}") from error
        suffix = "img"
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    return write_once(os.path.join(folder, f"{digest}.{suffix}"), data)


def _spool_picture(image: Image.Image, folder: str) -> str:
    image.load()
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        if image.mode in ("F", "I"):
            raise DataError(f"a picture of mode {image.mode}", expected="8 or 16 bit a channel")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")  # CMYK, YCbCr, HSV ...: none fits a PNG
    palette = image.getpalette() if image.mode == "P" else None
    transparency = image.info.get("transparency")
    about = f"{image.mode} {image.size} {palette} {transparency!r}".encode()
    digest = hashlib.blake2b(about + image.tobytes(), digest_size=20).hexdigest()
    plain = image.copy()
    plain.info = {} if transparency is None else {"transparency": transparency}  # no EXIF: it is applied already
    return write_picture(plain, os.path.join(folder, f"{digest}.png"))


def write_picture(image: Image.Image, path: str) -> str:
    """Write a PNG unless it is there; see ``write_once``."""
    if os.path.isfile(path):
        return path
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return write_once(path, buffer.getvalue())


def _from_array(image: Any) -> Image.Image:
    if hasattr(image, "detach"):  # a tensor, also one on a device or with a gradient
        image = image.detach().cpu().numpy()
    if not hasattr(image, "__array__"):
        raise DataError(
            "not an image", given=type(image).__name__, expected="path, bytes, Pillow image, array or tensor"
        )
    array: npt.NDArray[Any] = np.asarray(image)
    layout = array_layout(array.shape)
    if layout is None:
        raise DataError(
            "an array whose shape is no image", given=array.shape, expected="(H, W), (H, W, C) or (C, H, W)"
        )
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1 and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    height, width, channels, first = layout
    if first:
        array = array.transpose(1, 2, 0)
    if channels == 1:
        array = array.reshape(height, width)
    if array.dtype == np.uint16 and channels == 1:
        return Image.fromarray(array)
    if array.dtype != np.uint8:
        raise DataError(
            "an array whose type is no pixel type",
            given=f"{array.dtype} from {array.min()} to {array.max()}",
            expected="uint8 from 0 to 255, or floats from 0 to 1",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def write_once(path: str, data: bytes, again: bool = False) -> str:
    """Write a file unless it is there, in one step: nobody ever sees half of it. Returns its path.

    Args:
        path: The file, in an existing folder.
        data: Its content.
        again: Write it even if it is there.

    Raises:
        DataError: It cannot be written.
    """
    if os.path.isfile(path) and not again:
        return path
    try:
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".spool-")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except BaseException as error:
        os.unlink(draft)
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise
    return path


def _unwritable(path: str, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be written: {error.strerror}",
        expected="a folder that can be written, with room for the images",
        override="preprocessing.lazy_cache_dir=FOLDER",
    )


def _target_folder(folder: str | os.PathLike[str] | None) -> str:
    if folder is None:
        return cache_folder("images")
    target = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    os.makedirs(target, exist_ok=True)
    return target
