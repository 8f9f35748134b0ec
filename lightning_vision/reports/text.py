"""Names as they can be drawn: with the font that matplotlib brings along, and no wider than their place."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FAMILY = "DejaVu Sans"
_MISSING = "□"


@lru_cache(maxsize=2)
def font_path(bold: bool = False) -> Path:
    """Path of the DejaVu font inside the matplotlib package."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")


@lru_cache(maxsize=16)
def font(size: int, bold: bool = False) -> FreeTypeFont:
    """The font for drawing with Pillow, ``size`` in pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(str(font_path(bold)), size)


@lru_cache(maxsize=1)
def _drawable_codes() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    regular, bold = (set(FT2Font(str(font_path(b))).get_charmap()) for b in (False, True))
    return frozenset(regular & bold)


def drawable(text: str) -> str:
    """Replace white space by blanks and characters that the font lacks by a box, so that drawing never warns."""
    codes = _drawable_codes()
    return "".join(c if ord(c) in codes else " " if c.isspace() else _MISSING for c in text)


def class_label(index: int, name: str) -> str:
    """The name of a class for drawing; one that loses characters keeps its class id in front."""
    text = drawable(name)
    return f"{index} {text}" if _MISSING in text else text


def shorten(text: str, limit: int) -> str:
    """Cut the middle of a text of more than ``limit`` characters; both ends tell names apart."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return text[: limit - 1 - tail] + "…" + text[len(text) - tail :]


def fit(text: str, width: float, typeface: FreeTypeFont) -> str:
    """Cut the middle of a drawable text until it is at most ``width`` pixels wide."""
    text = drawable(text)
    # A long path would be measured once a character: cut it down to what could fit with the narrowest letters first.
    text = shorten(text, max(8, int(width // 2)))
    short, limit = text, len(text)
    while limit > 1 and typeface.getlength(short) > width:
        limit -= 1
        short = shorten(text, limit)
    return short
