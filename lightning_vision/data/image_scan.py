"""One pass over all images before training: every header, and every image decoded to a thumbnail."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.progress import progress
from lightning_vision.data.threads import each
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry

THUMBNAIL = 16  # pixels a side
# Pixels a side of the decoded image, of which a thumbnail holds the means of blocks. At the size of the thumbnail
# itself, a JPEG that the decoder shrinks would differ from the same picture in another format.
DECODED = 128


@dataclass
class ImageScan:
    """What all images of an index hold, row by row.

    Args:
        headers: Header of the first image of each sample; None where an image of the sample cannot be read.
        sizes: Number of images of each ``"height x width"``, after EXIF orientation.
        channels: Number of images of each number of channels.
        formats: Number of images of each file format.
        errors: Row and reason of images that cannot be read.
        thumbnails: uint8 ``(N, inputs, 16, 16)``, grey, 0 where an image cannot be read; None if only headers were.
        bytes: int64 ``(N, inputs)``: size of each file, 0 where an image cannot be read.
    """

    headers: list[Header | None]
    sizes: Counter[str] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[int, str]] = field(default_factory=list)
    thumbnails: npt.NDArray[np.uint8] | None = None
    bytes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 1), np.int64))

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """Which samples have images that can all be read, bool ``(N,)``."""
        return np.fromiter((header is not None for header in self.headers), np.bool_, len(self.headers))


def scan_images(index: SampleIndex, preprocessing: Preprocessing, quick: bool = False) -> ImageScan:
    """Read all images, with the threads of ``preprocessing.num_processes``.

    Every image is decoded as for training, though to few pixels, so that cut off and damaged files are found. A JPEG
    may be shrunk by its decoder, which reads its data to the end all the same.

    Args:
        index: The samples; all of their images are read.
        preprocessing: Its number of threads.
        quick: Read headers alone.
    """
    scan = ImageScan([])
    count, inputs = len(index), len(index.images)
    if not quick:
        scan.thumbnails = np.zeros((count, inputs, THUMBNAIL, THUMBNAIL), np.uint8)
        scan.bytes = np.zeros((count, inputs), np.int64)

    def read(row: int) -> list[Header] | str:
        headers = []
        try:
            for i, column in enumerate(index.images):
                path = column[row]
                headers.append(read_header(path))
                if scan.thumbnails is not None:
                    scan.thumbnails[row, i] = thumbnail(path)
                    scan.bytes[row, i] = os.path.getsize(path)
        except DataError as error:
            return error.summary
        except OSError as error:  # removed meanwhile
            return f"{path}: {error.strerror or error}"
        return headers

    known: dict[Header, Header] = {}  # a million images have few different headers
    with progress("reading headers" if quick else "decoding images", count) as advance:
        for row, found in enumerate(each(read, np.arange(count), preprocessing.num_processes)):
            advance(1)
            if isinstance(found, str):
                scan.errors.append((row, found))
                scan.headers.append(None)
                continue
            scan.headers.append(known.setdefault(found[0], found[0]))
            for header in found:
                scan.sizes[f"{header.height} x {header.width}"] += 1
                scan.channels[header.num_channels] += 1
                scan.formats[header.format] += 1
    if scan.thumbnails is not None:
        unreadable = ~scan.readable
        scan.thumbnails[unreadable] = 0
        scan.bytes[unreadable] = 0
    return scan


def thumbnail(path: str) -> npt.NDArray[np.uint8]:
    """Decode an image to a grey thumbnail.

    Returns:
        uint8 ``(16, 16)``, whatever the aspect of the image.

    Raises:
        DataError: The image cannot be decoded.
    """
    pixels = decoded(path, DECODED, 1, exact=False)[0]
    block = DECODED // THUMBNAIL
    means = pixels.reshape(THUMBNAIL, block, THUMBNAIL, block).mean((1, 3), dtype=np.float32)
    return np.rint(means).astype(np.uint8)


def decoded(path: str, side: int, num_channels: int, exact: bool) -> npt.NDArray[Any]:
    """Decode an image to uint8 ``(num_channels, side, side)``, whatever its aspect.

    Raises:
        DataError: The image cannot be decoded.
    """
    from lightning_vision.data.decode import decode_image  # torch: headers alone do without

    return decode_image(path, Geometry(side, side, num_channels), exact_decode=exact).numpy()
