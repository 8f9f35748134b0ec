"""Images in memory become files: written once under a digest of their content, and used like any other file."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from lightning_vision.data.headers import array_layout, is_image_name
from lightning_vision.data.sources.base import cache_folder
from lightning_vision.errors import ConfigError, DataError


def spool(images: Iterable[Any], folder: str | os.PathLike[str] | None = None) -> list[str]:
    """Return a path for every image; what is not a file yet is written as one.

    A file is named by the digest of its content: the same image is written once, another image never overwrites it,
    and its number or order plays no part.

    Args:
        images: Any mix of paths; encoded bytes (kept as they are); Pillow images (one that was opened from a file and
            not touched since stands for that file; EXIF orientation is applied to the others); mappings with
            ``path`` or ``bytes``; uint8, uint16 or bool arrays or tensors ``(H, W)``, ``(H, W, C)`` or
            ``(C, H, W)``, C from 1 to 4 (see ``array_layout`` where both fit).
        folder: Where files are written. None = ``images`` in the user's cache folder.

    Raises:
        DataError: An item is no image; with its position.
    """
    target = _target_folder(folder)
    paths = []
    for position, image in enumerate(images):
        try:
            paths.append(_spool_one(image, target))
        except DataError as error:
            raise DataError(f"image {position}: {error.summary}", given=error.given, expected=error.expected) from error
    return paths


def _spool_one(image: Any, folder: str) -> str:
    if isinstance(image, str | os.PathLike):
        path = os.path.abspath(os.path.expanduser(os.fspath(image)))
        if not os.path.isfile(path):
            raise DataError("no such file", given=path)
        return path
    if isinstance(image, Mapping):
        known = image.get("path")
        if known and os.path.isfile(known):
            return os.path.abspath(str(known))
        if image.get("bytes") is None:
            raise DataError("a mapping without an existing path and without bytes", given=sorted(map(str, image)))
        image = image["bytes"]
    if isinstance(image, bytes | bytearray | memoryview):
        return _spool_bytes(bytes(image), folder)
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


def _spool_bytes(data: bytes, folder: str) -> str:
    try:
        with Image.open(io.BytesIO(data)) as image:
            suffix = {"JPEG": "jpg"}.get(image.format or "", (image.format or "img").lower())
    except Exception as error:  # Pillow's plugins raise nearly every type on broken headers
        raise DataError("bytes that are no image", given=f"{len(data)} bytes starting with {data[:8]!r}") from error
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    return _write(os.path.join(folder, f"{digest}.{suffix}"), data)


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
    path = os.path.join(folder, f"{digest}.png")
    if os.path.isfile(path):
        return path
    buffer = io.BytesIO()
    plain = image.copy()
    plain.info = {} if transparency is None else {"transparency": transparency}  # no EXIF: it is applied already
    plain.save(buffer, "PNG", compress_level=1)
    return _write(path, buffer.getvalue())


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
            given=array.dtype,
            expected="uint8 from 0 to 255 (scale floats first)",
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _write(path: str, data: bytes) -> str:
    if os.path.isfile(path):
        return path
    handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".spool-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except OSError as error:
        os.unlink(draft)
        raise DataError(f"{path} cannot be written: {error.strerror}", expected="another folder") from error
    return path


def table_of(
    images: Sequence[Any],
    targets: Sequence[Any],
    split: Sequence[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> str:
    """Return the path of a table of images and targets from Python, written once under a digest of its content.

    Args:
        images: As ``spool`` takes them.
        targets: Labels (text or integers), or masks: arrays ``(H, W)`` of class ids, Pillow images or paths.
        split: train, val or test for each image, or None.
        folder: Where the table and the images are written. None = in the user's cache folder.

    Raises:
        ConfigError: Columns of different length, or labels and masks mixed.
        DataError: An image or a mask is none.
    """
    for name, column in (("targets", targets), ("split", split)):
        if column is not None and len(column) != len(images):
            raise ConfigError(f"{name} and images differ in length", given=f"{len(column)} and {len(images)}")
    labels = [_is_label(target) for target in targets]
    if any(labels) and not all(labels):
        raise ConfigError("targets mix labels and masks", given=f"{sum(labels)} labels among {len(labels)} targets")
    columns = {
        "image": spool(images, folder),
        "label" if all(labels) else "mask": [str(t) for t in targets] if all(labels) else spool(targets, folder),
    }
    if split is not None:
        columns["split"] = [str(name) for name in split]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    data = text.getvalue().encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    return _write(os.path.join(_target_folder(folder), f"{digest}.csv"), data)


def _is_label(target: Any) -> bool:
    if isinstance(target, str):
        return not is_image_name(os.path.basename(target))
    return isinstance(target, int | np.integer) or getattr(target, "ndim", None) == 0


def _target_folder(folder: str | os.PathLike[str] | None) -> str:
    if folder is None:
        return cache_folder("images")
    target = os.path.abspath(os.path.expanduser(os.fspath(folder)))
    os.makedirs(target, exist_ok=True)
    return target
