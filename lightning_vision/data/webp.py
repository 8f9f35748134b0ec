"""What the chunks of a WebP file tell before a decoder is asked, or better than it."""

from __future__ import annotations

_ZEROS = bytes(64)


def canvas(head: bytes) -> tuple[int, int] | None:
    """Height and width of an extended file (animated, or with metadata) from its first 30 bytes; None for others."""
    if head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or len(head) < 30:
        return None
    width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
    return height, width


def ends_in_zeros(data: memoryview) -> bool:
    """True if compressed pixels end in a run of zero bytes, such as a copy that did not finish leaves.

    No encoder writes them, and the decoder takes them for codes.
    """
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return data[at + 8 : at + 8 + size][-len(_ZEROS) :] == _ZEROS
        at += 8 + size + size % 2
    return False
