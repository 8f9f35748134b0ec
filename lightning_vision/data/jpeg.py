"""What the markers of a JPEG tell: size, components and orientation, without a decoder."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_ORIENTATION = 0x0112
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# SOF0 to SOF15 without DHT, JPG and DAC, which lie between them.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_END = b"\xff\xd9"
# In a scan, 0xff stands before 0 where it is data, and before the restart markers.
_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]", re.DOTALL)
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class JpegInfo:
    """The frame of a JPEG.

    Args:
        height: Pixels as stored, before the orientation is applied.
        width: Pixels as stored, before the orientation is applied.
        components: 1 grey, 3 colour, 4 CMYK.
        orientation: EXIF orientation, 1 to 8; None if it stands in XMP only, which takes a real parser.
        scan: Where the first scan begins, bytes from the start of the file.
    """

    height: int
    width: int
    components: int
    orientation: int | None
    scan: int


def jpeg_info(data: memoryview | bytes) -> JpegInfo | None:
    """Read the markers up to the first scan; None if ``data`` is no JPEG or its markers are damaged."""
    if bytes(data[:3]) != b"\xff\xd8\xff":
        return None
    frame: tuple[int, int, int] | None = None
    orientation, in_xmp = None, False
    i, n = 2, len(data)
    while i + 4 <= n and data[i] == 0xFF:
        marker = data[i + 1]
        if marker == 0xFF:
            i += 1
            continue
        if marker in _STANDALONE:
            i += 2
            continue
        if marker in (0xD9, 0xDA):
            break
        end = i + 2 + int.from_bytes(data[i + 2 : i + 4], "big")
        segment = data[i + 4 : end]
        if marker in _FRAMES and len(segment) >= 6:
            frame = (int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big"), segment[5])
        elif marker == 0xE1 and orientation is None:
            if bytes(segment[:6]) == b"Exif\0\0":
                orientation = _exif_orientation(segment[6:])
            elif bytes(segment[: len(_XMP)]) == _XMP:
                in_xmp = in_xmp or b"Orientation" in bytes(segment)
        i = end
    if frame is None or 0 in frame:
        return None
    return JpegInfo(*frame, orientation=None if in_xmp and orientation is None else orientation or 1, scan=i)


def has_end(data: npt.NDArray[np.uint8], info: JpegInfo) -> bool:
    """True if an end-of-image marker follows the first scan: a file whose tail is missing, or zero bytes, has none."""
    return data.tobytes().rfind(_END) > info.scan


def without_end(data: npt.NDArray[np.uint8], info: JpegInfo) -> bytes | None:
    """Return the file as if it were cut off where its only scan ends; None if it has several scans.

    Decoders take an end-of-image marker that comes too early for the end, and fill what is missing with grey. Without
    the marker they tell whether data are missing.
    """
    content = data.tobytes()
    marker = _MARKER.search(content, info.scan + 2)
    if marker is None or marker.group() != _END:
        return None
    # The decoder looks a few bytes ahead; what follows is no code, so it makes up for a few blocks at most.
    return content[: marker.start()] + b"\xff\0" * 16


def _exif_orientation(tiff: memoryview | bytes) -> int | None:
    order = {b"II": "little", b"MM": "big"}.get(bytes(tiff[:2]))
    if order is None:
        return None

    def number(start: int, size: int) -> int:
        return int.from_bytes(tiff[start : start + size], order)  # type: ignore[arg-type]

    table = number(4, 4)
    for k in range(min(number(table, 2), (len(tiff) - table) // 12)):
        entry = table + 2 + 12 * k
        if number(entry, 2) == _ORIENTATION:
            # type 3 = SHORT, 4 = LONG
            value = number(entry + 8, 2 if number(entry + 2, 2) == 3 else 4)
            return value if 1 <= value <= 8 else None
    return None
