"""The picture of a model: a lane for each part, with its stages as blocks."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw

from lightning_vision.reports.architecture import Part, Row
from lightning_vision.reports.files import save_image
from lightning_vision.reports.sheet import GAP, INK, MARGIN, PAGE, PALE
from lightning_vision.reports.summary import Summary, scaled_count, share
from lightning_vision.reports.text import drawable, fit, font

# Of Okabe and Ito, told apart with the common colour deficiencies; frozen weights are grey.
COLOURS = {"encoder": (0, 114, 178), "inlet": (204, 121, 167), "neck": (0, 158, 115), "decoder": (213, 94, 0)}
OTHER, FROZEN = (110, 110, 118), (176, 180, 188)
BLOCK = 104  # width of a block's place
TALLEST, LOWEST = 112, 14  # height of a block of the image's own size, and of one of a single cell
COLUMNS = 8  # blocks side by side
LINE = 16


def draw_architecture(summary: Summary, out: Path) -> None:
    """Write a PNG with a lane for each part of a model.

    The height of a block goes with the logarithm of its map's size, its width with that of its channels; a block is
    coloured as far as its weights are trained.

    Args:
        summary: Of the model.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    page = architecture_image(summary)
    save_image(page, out)


def architecture_image(summary: Summary) -> Image.Image:
    """Draw the picture of ``draw_architecture``."""
    lanes = [
        (part, part.rows[i : i + COLUMNS], i == 0) for part in summary.parts for i in range(0, len(part.rows), COLUMNS)
    ]
    trained = share(summary.trained, summary.parameters)
    totals = f"{scaled_count(summary.parameters)} parameters ({trained} trained), "
    totals += f"{scaled_count(summary.multiply_adds)} multiply-adds an image"
    headings = [_texts(part) for part in summary.parts]
    texts = [font(14, True).getlength(drawable(summary.title)), font(12).getlength(totals)]
    texts += [font(13, True).getlength(drawable(name)) + 24 + font(12).getlength(fig) for name, fig in headings]
    blocks = [len(rows) * (BLOCK + GAP) for _, rows, _ in lanes]
    width = 2 * MARGIN + min(COLUMNS * (BLOCK + GAP), max(4 * (BLOCK + GAP), *blocks, *map(math.ceil, texts)))
    largest = max(summary.geometry.height, summary.geometry.width)
    tops = [max(_height(row, largest) for row in rows) for _, rows, _ in lanes]
    heights = [t + 4 * LINE + 3 * GAP + (LINE + 8) * first for t, (_, _, first) in zip(tops, lanes, strict=True)]
    page = Image.new("RGB", (width, 2 * MARGIN + 2 * LINE + 12 + sum(heights)), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), fit(summary.title, width - 2 * MARGIN, font(14, True)), INK, font(14, True))
    draw.text((MARGIN, MARGIN + LINE + 4), fit(totals, width - 2 * MARGIN, font(12)), PALE, font(12))
    y = MARGIN + 2 * LINE + 12
    for (part, rows, first), tallest, height in zip(lanes, tops, heights, strict=True):
        top = y
        if first:
            _heading(draw, part, y + GAP, width)
            top += LINE + 8
        for column, row in enumerate(rows):
            x = MARGIN + column * (BLOCK + GAP)
            _block(draw, part, row, (x, top + GAP + tallest), _height(row, largest))
        y += height
    return page


def _texts(part: Part) -> tuple[str, str]:
    """The heading of a lane: what the part is, and its figures."""
    total = part.total
    name = f"{part.role} of {part.output}: {part.kind}" if part.output else f"{part.role}: {part.kind}"
    figures = f"{scaled_count(total.parameters) or 0} parameters"
    if total.parameters:
        figures += f", {share(total.trained, total.parameters)} trained"
    if total.multiply_adds:
        figures += f", {scaled_count(total.multiply_adds)} multiply-adds"
    return name, figures


def _heading(draw: ImageDraw.ImageDraw, part: Part, y: int, width: int) -> None:
    name, figures = _texts(part)
    draw.line((MARGIN, y - 5, width - MARGIN, y - 5), fill=(226, 226, 230))
    space = width - 2 * MARGIN
    colour = COLOURS.get(part.role, OTHER)
    shown = fit(name, space - 24 - font(12).getlength(figures), font(13, True))
    draw.text((MARGIN, y), shown, colour, font(13, True))
    draw.text((width - MARGIN, y + 1), figures, PALE, font(12), anchor="ra")


def _height(row: Row, largest: int) -> int:
    """Of a block, in pixels, where the longest side of an image is ``largest``."""
    cells = max(row.size) if row.size else 1
    share_of_image = math.log2(cells) / math.log2(max(2, largest))
    return LOWEST + round((TALLEST - LOWEST) * min(1.0, share_of_image))


def _block(draw: ImageDraw.ImageDraw, part: Part, row: Row, place: tuple[int, int], high: int) -> None:
    """Draw a block whose place begins at the left and ends at the bottom of ``place``, with its figures below."""
    x, bottom = place
    wide = min(BLOCK, 14 + round(7.5 * math.log2(max(1, row.channels or 1))))
    left, top = x + (BLOCK - wide) // 2, bottom - high
    colour = COLOURS.get(part.role, OTHER)
    draw.rectangle((left, top, left + wide, bottom), fill=FROZEN if row.parameters else (236, 236, 240))
    if row.trained:
        part_trained = row.trained / row.parameters
        draw.rectangle((left, bottom - max(3, round((bottom - top) * part_trained)), left + wide, bottom), fill=colour)
    lines = [(fit(row.name, BLOCK, font(12, True)), INK, font(12, True))]
    shape = [str(row.channels)] if row.channels else []
    shape += [f"{row.size[0]} x {row.size[1]}"] if row.size else []
    lines.append((fit(", ".join(shape), BLOCK, font(11)), INK, font(11)))
    lines.append(("" if row.stride is None else f"stride {row.stride:.3g}", PALE, font(11)))
    lines.append((f"{scaled_count(row.parameters)} weights" if row.parameters else "", PALE, font(11)))
    for i, (text, shade, typeface) in enumerate(lines):
        draw.text((x + BLOCK // 2, bottom + 6 + i * LINE), text, shade, typeface, anchor="ma")
