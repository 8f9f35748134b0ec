"""Whether a PNG holds the pixels that were written: Pillow compares no checksums of them, and fills missing rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of each colour type
# First column and row, and steps, of the seven passes of an interlaced file.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def has_valid_checksums(data: memoryview) -> bool:
    """True if the checksums of the compressed pixels are right."""
    return all(
        zlib.crc32(chunk, zlib.crc32(b"IDAT")) == int.from_bytes(checksum, "big") for chunk, checksum in _pixels(data)
    )


def has_all_rows(data: memoryview) -> bool:
    """True if the compressed pixels of a valid PNG are as many as its header announces. Memory stays bounded."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits = data[24] * _SAMPLES.get(data[25], 1)
    expected = 0
    for left, top, across, down in _ADAM7 if data[28] else ((0, 0, 1, 1),):
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            expected += rows * (1 + (columns * bits + 7) // 8)
    unpacker, found = zlib.decompressobj(), 0
    for chunk, _ in _pixels(data):
        packed: memoryview | bytes = chunk
        while packed and found < expected and not unpacker.eof:
            found += len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
    return found >= expected


def _pixels(data: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """The content and the checksum of each chunk of pixels."""
    at = 8
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"IDAT":
            yield data[at + 8 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        at += 12 + size
