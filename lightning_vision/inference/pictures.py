"""Images as they are drawn on: three channels of eight bits, at their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lightning_vision.data.decode import decode_image
from lightning_vision.data.headers import read_header
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as ``(H, W, 3)`` uint8 at its original size, turned as its EXIF orientation says.

    Images of 16 bits are scaled to 8; alpha is dropped.

    Raises:
        DataError: The file is missing or no readable image.
    """
    try:
        if path.suffix.lower() == ".npy":
            header = read_header(str(path))
            pixels = decode_image(path, Geometry(header.height, header.width, 3))
            return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            # Palettes with transparency go by RGBA: Pillow warns about the direct way.
            image = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read the image {path}", given=error, expected="an image that Pillow reads") from error
