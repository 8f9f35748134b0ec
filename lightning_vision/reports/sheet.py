"""Sheets of samples: images beside their masks, images with their labels; drawn pixel by pixel with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_vision.reports.files import save_image
from lightning_vision.reports.palette import IGNORED, checked_ids, colorize
from lightning_vision.reports.text import class_label, drawable, fit, font

MaskSample = tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any], str]
LabelSample = tuple[NDArray[Any], str | None, str, float | str, str]

RIGHT, WRONG, UNKNOWN = (0, 128, 80), (200, 40, 30), (60, 60, 70)
INK, PALE, PAGE = (30, 30, 34), (110, 110, 118), (255, 255, 255)
MARGIN, GAP = 16, 10
_CELL = 340  # longest side of an image on a mask sheet
_TILE = 200  # longest side of an image on a label sheet
_MAX_LEGEND = 40
_LEGEND_ROWS = 24


def as_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring ``(H, W)`` or ``(H, W, C)`` uint8 to ``(H, W, 3)``: grey is repeated, alpha is dropped.

    Raises:
        ValueError: The array is no uint8 image of one to four channels.
    """
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.dtype != np.uint8 or not 1 <= image.shape[2] <= 4:
        raise ValueError(f"an image is uint8 (H, W, 1 to 4 channels), got {image.dtype} {image.shape}")
    rgb: NDArray[np.uint8] = np.repeat(image[..., :1], 3, axis=2) if image.shape[2] < 3 else image[..., :3]
    return rgb


def overlay(
    image: NDArray[Any],
    mask: NDArray[Any],
    palette: Sequence[Sequence[int]],
    ignore_index: int | None = None,
    alpha: float = 0.5,
) -> NDArray[np.uint8]:
    """Blend the colours of a class map over its image; ignored pixels show the image alone.

    Args:
        image: ``(H, W, C)`` or ``(H, W)`` uint8 with 1 to 4 channels.
        mask: Class ids ``(H, W)``.
        palette: One RGB triple a class.
        ignore_index: Mask value that is left out, or None.
        alpha: Weight of the colours, 0 (image alone) to 1 (colours alone).

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        ValueError: Sizes differ, ``alpha`` is out of range, or a mask value is no class.
    """
    rgb = as_rgb(image)
    if rgb.shape[:2] != mask.shape:
        raise ValueError(f"image {rgb.shape[:2]} and mask {mask.shape} differ in size")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be within 0 and 1, got {alpha}")
    ids = checked_ids(mask, len(palette), ignore_index)
    # Fixed point in 16 bits: a third of the memory that floats take with large photographs.
    weight = round(alpha * 256)
    tint = np.array([*palette, (0, 0, 0)], dtype=np.uint16) * np.uint16(weight) + np.uint16(128)
    blended = ((rgb.astype(np.uint16) * np.uint16(256 - weight) + tint[ids]) >> 8).astype(np.uint8)
    return np.where((ids == len(palette))[..., None], rgb, blended)


def mask_sheet(
    samples: Sequence[MaskSample],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int | None,
    out: Path,
) -> None:
    """Write a PNG with a row for each sample: image, truth (where any sample has one), prediction.

    Args:
        samples: ``(image (H, W, C) uint8, truth (H, W) or None, prediction (H, W), title)``; sizes may differ from
            sample to sample, and masks from their image.
        class_names: Names of the classes; the legend shows those that occur.
        palette: One RGB triple a class.
        ignore_index: Mask value that is left out, or None; drawn light grey.
        out: PNG file to write; its folder is made.

    Raises:
        ValueError: A mask value is no class.
        DataError: The picture cannot be written.
    """
    _save(mask_sheet_image(samples, class_names, palette, ignore_index), out)


def mask_sheet_image(
    samples: Sequence[MaskSample],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int | None,
) -> Image.Image:
    """Draw the picture of ``mask_sheet``."""
    if not samples:
        return _empty_sheet()
    with_truth = any(truth is not None for _, truth, _, _ in samples)
    heads = ("image", "truth", "prediction") if with_truth else ("image", "prediction")
    rows: list[tuple[str, list[Image.Image | None]]] = []
    for image, truth, prediction, title in samples:
        rgb = as_rgb(image)
        size = tile_size(rgb.shape[1], rgb.shape[0], _CELL)
        masks = (truth, prediction) if with_truth else (prediction,)
        drawn = [
            None
            if m is None
            else Image.fromarray(colorize(m, palette, ignore_index)).resize(size, Image.Resampling.NEAREST)
            for m in masks
        ]
        rows.append((title, [scaled(rgb, size), *drawn]))
    cell = max(120, *(tiles[0].width for _, tiles in rows if tiles[0] is not None))
    width = 2 * MARGIN + len(heads) * cell + (len(heads) - 1) * GAP
    legend = legend_of(samples, class_names, palette, ignore_index, width - 2 * MARGIN)
    line = 20
    top = MARGIN + legend.height + 6
    height = top + line + sum(line + max(t.height for t in tiles if t) + GAP for _, tiles in rows) + MARGIN - GAP
    page = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(page)
    legend.paint(draw, MARGIN, MARGIN)
    for i, head in enumerate(heads):
        draw.text((MARGIN + i * (cell + GAP), top), head, fill=INK, font=font(14, True))
    y = top + line
    for title, tiles in rows:
        draw.text((MARGIN, y + 2), fit(title, width - 2 * MARGIN, font(12)), fill=PALE, font=font(12))
        for i, tile in enumerate(tiles):
            x = MARGIN + i * (cell + GAP)
            if tile is None:
                draw.text((x, y + line + 2), "no truth", fill=PALE, font=font(12))
            else:
                page.paste(tile, (x, y + line))
        y += line + max(t.height for t in tiles if t) + GAP
    return page


def label_sheet(samples: Sequence[LabelSample], out: Path) -> None:
    """Write a PNG with a grid of images and what was predicted: green with a tick if right, red with a cross if wrong.

    Args:
        samples: ``(image (H, W, C) uint8, truth or None, predicted class, probability or a text in its place, title)``.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    _save(label_sheet_image(samples), out)


def label_sheet_image(samples: Sequence[LabelSample]) -> Image.Image:
    """Draw the picture of ``label_sheet``."""
    if not samples:
        return _empty_sheet()
    columns = min(len(samples), max(2, min(6, round((1.3 * len(samples)) ** 0.5))))
    grid = [samples[i : i + columns] for i in range(0, len(samples), columns)]
    text_height, frame = 54, 3
    box = _TILE + 2 * frame
    width = 2 * MARGIN + columns * box + (columns - 1) * GAP
    page = Image.new("RGB", (width, 2 * MARGIN + len(grid) * (box + text_height + GAP) - GAP), PAGE)
    draw = ImageDraw.Draw(page)
    for row, line in enumerate(grid):
        for column, (image, truth, predicted, probability, title) in enumerate(line):
            x = MARGIN + column * (box + GAP)
            y = MARGIN + row * (box + text_height + GAP)
            colour, mark = UNKNOWN, ""
            if truth is not None:
                colour, mark = (RIGHT, "✓ ") if truth == predicted else (WRONG, "✗ ")
            draw.rectangle((x, y, x + box - 1, y + box - 1), fill=(244, 244, 246), outline=colour, width=frame)
            rgb = as_rgb(image)
            tile = scaled(rgb, tile_size(rgb.shape[1], rgb.shape[0], _TILE))
            page.paste(tile, (x + (box - tile.width) // 2, y + (box - tile.height) // 2))
            share = f"  {probability}" if isinstance(probability, str) else f"  {100 * probability:.0f} %"
            bold = font(14, True)
            name = fit(mark + predicted, box - bold.getlength(share), bold)
            draw.text((x, y + box + 4), name, fill=colour, font=bold)
            draw.text((x + box, y + box + 5), share, fill=colour, font=font(13), anchor="ra")
            small, below = font(12), y + box + 22
            if truth is not None and truth != predicted:
                draw.text((x, below), fit(f"truth: {truth}", box, small), fill=INK, font=small)
                below += 15
            draw.text((x, below), fit(title, box, small), fill=PALE, font=small)
    return page


def tile_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size at which an image is shown: shrunk to fit, small ones enlarged by a whole factor."""
    scale = longest / max(width, height)
    scale = float(int(scale)) if scale >= 1 else scale
    return max(1, round(width * scale)), max(1, round(height * scale))


def scaled(rgb: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """The image at the size at which it is shown; enlarged pixels stay square."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    return image.resize(size, Image.Resampling.NEAREST if size[0] >= image.width else Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Legend:
    """Names of classes beside their colours, in lines.

    Args:
        entries: Name and colour of each.
        places: Where each begins, in pixels.
        height: Of all lines, in pixels.
    """

    entries: list[tuple[str, tuple[int, ...]]]
    places: list[tuple[int, int]]
    height: int

    def paint(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw it on a page."""
        for (name, colour), (x, y) in zip(self.entries, self.places, strict=True):
            box = (left + x, top + y + 2, left + x + 14, top + y + 16)
            draw.rectangle(box, fill=colour, outline=PALE)
            draw.text((left + x + 20, top + y + 9), name, fill=INK, font=font(13), anchor="lm")


def legend_of(
    samples: Sequence[MaskSample],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int | None,
    width: int,
) -> Legend:
    """The classes that occur in samples, in the order of their ids, in lines of at most ``width`` pixels."""
    classes = len(class_names)
    counts = np.zeros(classes + 1, dtype=np.int64)
    for _, truth, prediction, _ in samples:
        for mask in (truth, prediction):
            if mask is not None:
                counts += np.bincount(checked_ids(mask, classes, ignore_index).ravel(), minlength=classes + 1)
    present = np.flatnonzero(counts[:classes])
    largest = present[np.argsort(-counts[present], kind="stable")][:_MAX_LEGEND]
    typeface = font(13)
    entries: list[tuple[str, tuple[int, ...]]] = [
        (fit(class_label(int(i), class_names[i]), 200, typeface), tuple(palette[i])) for i in np.sort(largest)
    ]
    if len(present) > len(largest):
        entries.append((f"{len(present) - len(largest)} more classes", PAGE))
    if counts[classes]:
        entries.append(("ignored", IGNORED))
    return Legend(entries, *_flow([name for name, _ in entries], width))


def legend_image(class_names: Sequence[str], palette: Sequence[Sequence[int]], ignored: bool = False) -> Image.Image:
    """Draw the names of all classes beside their colours, in columns from top to bottom.

    Args:
        class_names: Name of every class.
        palette: One RGB triple a class.
        ignored: Name the colour of pixels that belong to none, too.
    """
    typeface = font(13)
    entries = [(fit(class_label(i, name), 260, typeface), tuple(palette[i])) for i, name in enumerate(class_names)]
    entries += [("ignored", IGNORED)] if ignored else []
    deep = min(len(entries), max(_LEGEND_ROWS, -(-len(entries) // 4)))
    columns = [entries[i : i + deep] for i in range(0, len(entries), deep)]
    widths = [20 + max(int(typeface.getlength(name)) for name, _ in column) + 24 for column in columns]
    places = [(sum(widths[:c]), 22 * r) for c, column in enumerate(columns) for r in range(len(column))]
    page = Image.new("RGB", (2 * MARGIN + sum(widths) - 24, 2 * MARGIN + 22 * deep - 4), PAGE)
    Legend(entries, places, 22 * deep).paint(ImageDraw.Draw(page), MARGIN, MARGIN)
    return page


def _flow(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Place legend entries in lines of at most ``width`` pixels; return the places and the height of all lines."""
    places, x, y = [], 0, 0
    for name in names:
        wide = 20 + int(font(13).getlength(name)) + 18
        if x and x + wide - 18 > width:
            x, y = 0, y + 22
        places.append((x, y))
        x += wide
    return places, y + 22


def _empty_sheet() -> Image.Image:
    page = Image.new("RGB", (320, 80), PAGE)
    ImageDraw.Draw(page).text((160, 40), drawable("no samples"), fill=PALE, font=font(14), anchor="mm")
    return page


def _save(page: Image.Image, out: Path) -> None:
    save_image(page, out)
