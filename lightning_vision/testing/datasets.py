"""Small data sets for tests: well-formed ones, every odd kind of image file, and broken files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_vision.data.headers import Header


def write_image(
    path: Path,
    height: int = 20,
    width: int = 30,
    mode: str = "RGB",
    orientation: int | None = None,
    seed: int = 0,
) -> Path:
    """Write random pixels; folders are made, and the suffix chooses the format.

    Args:
        path: The file.
        height: Pixels, as stored.
        width: Pixels, as stored.
        mode: Pillow's mode.
        orientation: EXIF orientation, or None for no EXIF.
        seed: Of the pixels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 65536, (height, width), dtype=np.uint16))
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode) if mode not in ("LA",) else image.convert("LA")
    options: dict[str, Any] = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(path, **options)
    return path


def write_mask(path: Path, values: npt.ArrayLike, palette: Sequence[int] | None = None) -> Path:
    """Write class ids ``(H, W)`` as a grey PNG, or as a palette PNG if colours (flat RGB) are given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, np.uint8)
    if palette is None:
        Image.fromarray(array).save(path)
    else:
        image = Image.frombytes("P", (array.shape[1], array.shape[0]), array.tobytes())
        image.putpalette(list(palette))
        image.save(path)
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, object]], delimiter: str = ",") -> Path:
    """Write rows as CSV; the keys of the first are the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def class_folders(
    folder: Path, classes: Sequence[str] = ("cat", "dog"), count: int = 3, splits: Sequence[str] = ()
) -> Path:
    """Write ``[split/]class/0.png`` and so on, ``count`` images of each class in each split."""
    for s, split in enumerate(splits or [""]):
        for c, name in enumerate(classes):
            for i in range(count):
                write_image(folder / split / name / f"{i}.png", seed=100 * s + 10 * c + i)
    return folder


def mask_table(folder: Path, count: int = 10, num_classes: int = 3, height: int = 20, width: int = 30) -> Path:
    """Write images, grey masks in which every class occurs, and a table ``image,mask,split``; return the table."""
    rows = []
    for i in range(count):
        write_image(folder / "images" / f"{i}.png", height, width, seed=i)
        values = (np.arange(height * width).reshape(height, width) // 7 + i) % num_classes
        write_mask(folder / "masks" / f"{i}.png", values)
        split = "val" if i % 5 == 3 else "test" if i % 5 == 4 else "train"
        rows.append({"image": f"images/{i}.png", "mask": f"masks/{i}.png", "split": split})
    return write_table(folder / "index.csv", rows)


def odd_images(folder: Path) -> dict[Path, Header]:
    """Write one file of every kind that must be read, with the header that must be found; all hold 20 x 30 pixels."""
    kinds: list[tuple[str, str, int | None, int, int]] = [
        # name, mode, orientation, channels, bits
        ("rgb.jpg", "RGB", None, 3, 8),
        ("grey.jpg", "L", None, 1, 8),
        ("cmyk.jpg", "CMYK", None, 3, 8),
        ("turned.jpg", "RGB", 6, 3, 8),
        ("mirrored.jpg", "RGB", 2, 3, 8),
        ("turned.png", "RGB", 8, 3, 8),
        ("turned.webp", "RGB", 5, 3, 8),
        ("turned.tif", "RGB", 6, 3, 8),
        ("rgb.png", "RGB", None, 3, 8),
        ("rgba.png", "RGBA", None, 4, 8),
        ("grey_alpha.png", "LA", None, 2, 8),
        ("palette.png", "P", None, 3, 8),
        ("one_bit.png", "1", None, 1, 1),
        ("sixteen.png", "I;16", None, 1, 16),
        ("float.tif", "F", None, 1, 32),
        ("rgb.bmp", "RGB", None, 3, 8),
        ("rgb.gif", "RGB", None, 3, 8),
        ("rgb.ppm", "RGB", None, 3, 8),
    ]
    found = {}
    formats = {"jpg": "JPEG", "tif": "TIFF"}
    for name, mode, orientation, channels, bits in kinds:
        path = write_image(folder / name, mode=mode, orientation=orientation)
        turned = orientation is not None and orientation >= 5
        size = (30, 20) if turned else (20, 30)
        suffix = path.suffix[1:]
        stored = {"gif": "P"}.get(suffix, mode)
        found[path] = Header(*size, channels, stored, bits, formats.get(suffix, suffix.upper()), orientation or 1)
    for name, shape, channels in (("a.npy", (20, 30), 1), ("b.npy", (20, 30, 3), 3), ("c.npy", (4, 20, 30), 4)):
        np.save(folder / name, np.zeros(shape, np.uint8))
        found[folder / name] = Header(20, 30, channels, "uint8", 8, "NPY")
    return found


def broken_images(folder: Path) -> dict[Path, str]:
    """Write files that cannot be read, with a word that the error must hold."""
    whole = write_image(folder / "whole.jpg").read_bytes()
    contents = {
        "empty.jpg": b"",
        "text.png": b"not an image at all",
        "cut.jpg": whole[:40],
        "cut.npy": b"\x93NUMPY\x01",
    }
    words = {"empty.jpg": "empty", "text.png": "not an image", "cut.jpg": "", "cut.npy": ""}
    found = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        found[folder / name] = words[name]
    found[folder / "absent.jpg"] = "no such file"
    (folder / "folder.png").mkdir()
    found[folder / "folder.png"] = "folder"
    return found
