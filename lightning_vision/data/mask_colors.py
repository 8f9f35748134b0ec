"""Colours of masks: ``#rrggbb`` in settings and messages, 24-bit numbers where pixels are looked up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override
from lightning_vision.types import Color, Palette

Packed = npt.NDArray[np.uint32]

# Class ids are uint8.
MAX_COLORS = 256
GREYS: Packed = np.arange(256, dtype=np.uint32) * 0x010101
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")


def pack(rgb: npt.NDArray[np.uint8]) -> Packed:
    """Pack ``(..., 3)`` uint8 to ``0xrrggbb``, so that numbers are in the order of the colours."""
    packed = rgb[..., 0].astype(np.uint32)
    for channel in (1, 2):
        packed <<= np.uint32(8)
        packed |= rgb[..., channel]
    return packed


def unpack(color: int) -> Color:
    """Return red, green and blue of ``0xrrggbb``."""
    return (color >> 16, color >> 8 & 255, color & 255)


def hex_color(color: int | Sequence[int]) -> str:
    """Write ``0xrrggbb``, or red, green and blue, as ``#rrggbb``."""
    number = color if isinstance(color, int) else color[0] << 16 | color[1] << 8 | color[2]
    return f"#{number:06x}"


def parse_colors(colors: Sequence[object], key: str = "data.colors") -> Palette:
    """Read ``#rrggbb`` or ``rrggbb``, one a class; six digits may have been read as a number.

    Raises:
        ConfigError: An entry is no colour, or a colour stands twice.
    """
    found: list[Color] = []
    for entry in colors:
        match = _HEX.fullmatch(str(entry))
        if match is None:
            raise ConfigError(
                f"{key} holds what is no colour",
                given=entry,
                expected="rrggbb, or #rrggbb in quotes",
                override=override("data.colors", ["#000000", "#ff0000"]),
            )
        found.append(unpack(int(match[1], 16)))
    require_different(found, key)
    if len(found) > MAX_COLORS:
        raise ConfigError(f"{key} holds too many colours", given=len(found), expected=f"at most {MAX_COLORS}")
    return tuple(found)


def require_different(colors: Sequence[Color], key: str) -> None:
    """Refuse a colour that stands for two classes."""
    twice = sorted({hex_color(c) for c in colors if colors.count(c) > 1})
    if twice:
        raise ConfigError(f"{key} holds a colour twice", given=listed(twice), expected="another colour for each class")


@lru_cache(maxsize=8)
def positions(palette: Palette) -> npt.NDArray[np.uint16]:
    """Table of all 2**24 packed colours: position in the palette plus 1, or 0.

    Nearly all of its 32 MiB are pages that are never touched, and take no memory.
    """
    table = np.zeros(1 << 24, np.uint16)
    table[pack(np.array(palette, np.uint8))] = np.arange(1, len(palette) + 1)
    return table
