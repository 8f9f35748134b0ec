"""Images side by side, for a notebook: as they are, or with their masks over them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.sheet import GAP, INK, MARGIN, PAGE, as_rgb, legend_of, overlay, scaled, tile_size
from lightning_vision.reports.text import fit, font

Shown = str | PathLike[str] | Image.Image | NDArray[Any]
_LINE = 20  # height of a caption


def show(
    images: Sequence[Shown],
    captions: Sequence[str] = (),
    masks: Sequence[NDArray[Any] | None] = (),
    class_names: Sequence[str] = (),
    *,
    palette: Sequence[Sequence[int]] | None = None,
    alpha: float = 0.5,
    columns: int | None = None,
    size: int = 180,
    ignore_index: int | None = 255,
) -> Image.Image:
    """Draw images in a grid; as the last line of a notebook's cell it is shown.

    Args:
        images: Paths, Pillow images or arrays, uint8 ``(H, W)`` or ``(H, W, C)`` of 1 to 4 channels.
        captions: A text below each, or none at all.
        masks: Class ids ``(H, W)`` to lay over each, None for an image that stays as it is, or none at all.
        class_names: Names of the classes of the masks, for colours and legend.
        palette: Colours of the classes, red, green and blue; None = those of every data set that has none of its own.
        alpha: Weight of these colours, 0 (image alone) to 1 (colours alone).
        columns: Images in a row; None = up to four in one row, of more as many as make the grid wider than high.
        size: Longest side of an image in the grid, in pixels.
        ignore_index: Mask value that is left out: the image alone is seen there.

    Raises:
        ValueError: There are no images, not as many captions or masks as images, a mask without names of its classes,
            or a mask that does not fit its image.
    """
    for name, given in (("captions", captions), ("masks", masks)):
        if given and len(given) != len(images):
            raise ValueError(f"{len(images)} images, but {len(given)} {name}")
    if not len(images):
        raise ValueError("no images to show")
    if masks and not class_names:
        raise ValueError("masks are shown with class_names=[NAME, ...], in the order of their ids")
    palette = class_palette(len(class_names), palette)
    pixels = [_pixels(image) for image in images]
    drawn = list(pixels)
    for i, mask in enumerate(masks):
        if mask is not None:
            drawn[i] = overlay(pixels[i], mask, palette, ignore_index, alpha)
    tiles = [scaled(rgb, tile_size(rgb.shape[1], rgb.shape[0], size)) for rgb in drawn]
    columns = columns or min(len(tiles), 6, max(4, round((1.6 * len(tiles)) ** 0.5)))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    cell = max(tile.width for tile in tiles)
    line = _LINE if captions else 0
    width = 2 * MARGIN + min(columns, len(tiles)) * (cell + GAP) - GAP
    samples = [(rgb, None, mask, "") for rgb, mask in zip(pixels, masks, strict=False) if mask is not None]
    legend = legend_of(samples, class_names, palette, ignore_index, width - 2 * MARGIN) if samples else None
    top = MARGIN + (legend.height + 6 if legend else 0)
    heights = [max(tile.height for tile in row) + line + GAP for row in rows]
    page = Image.new("RGB", (width, top + sum(heights) - GAP + MARGIN), PAGE)
    draw = ImageDraw.Draw(page)
    if legend:
        legend.paint(draw, MARGIN, MARGIN)
    y = top
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for column, tile in enumerate(row):
            x = MARGIN + column * (cell + GAP)
            page.paste(tile, (x, y))
            if captions:
                text = fit(captions[number * columns + column], cell, font(13))
                draw.text((x, y + height - GAP - line + 3), text, fill=INK, font=font(13))
        y += height
    return page


def _pixels(image: Shown) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return as_rgb(np.asarray(image.convert("RGB")))
    if isinstance(image, str | PathLike):
        with Image.open(image) as file:
            return as_rgb(np.asarray(ImageOps.exif_transpose(file).convert("RGB")))
    return as_rgb(image)
