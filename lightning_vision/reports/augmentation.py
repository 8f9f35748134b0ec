"""A sheet of training images as the augmentation changes them, masks and labels with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from lightning_vision.augmentation.batches import augmented
from lightning_vision.augmentation.mixing import largest_share
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.reports.files import save_image
from lightning_vision.reports.palette import class_palette, colorize
from lightning_vision.reports.sheet import GAP, INK, MARGIN, PAGE, PALE, as_rgb, legend_of, scaled, tile_size
from lightning_vision.reports.text import class_label, fit, font
from lightning_vision.types import Batch, TargetSpec

SAMPLES, DRAWS = 6, 8
MOST_LABELS = 4  # that are written below an image
TILE = 168  # longest side of an image
LINE = 18

Picture = tuple[NDArray[np.uint8], NDArray[np.uint8] | None, str]


def draw_augmentation(
    data: VisionDataModule, transforms: Sequence[nn.Module], target: TargetSpec, uncovered: int | None, out: Path
) -> None:
    """Draw training images, each with some draws of the augmentation that it gets in training.

    Args:
        data: The data of a run.
        transforms: What changes its training batches.
        target: What the main output predicts.
        uncovered: The value of mask pixels that no image pixel covers, or None.
        out: PNG file to write.

    Raises:
        DataError: An image is unreadable, or the picture cannot be written.
    """
    rows = data.index.rows("train")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).round().astype(int))]
    batch = data.batch(rows, training=True)
    specs: dict[str | None, TargetSpec] = {None: target}
    specs |= {name: further.target for name, further in data.index.further_targets.items()}
    generator = torch.Generator().manual_seed(data.seed)
    num_inputs = data.geometry.num_inputs
    drawn = [batch] + [augmented(batch, transforms, generator, 1, num_inputs, specs) for _ in range(DRAWS)]
    pictures = [_pictures(one, target, num_inputs) for one in drawn]
    titles = [Path(data.index.image_path(int(row))).name for row in rows]
    if (labels := data.index.main_labels) is not None:
        titles = [f"{title}: {labels.text(int(row))}" for title, row in zip(titles, rows, strict=True)]
    palette = class_palette(target.num_classes, target.palette)
    names = [type(transform).__name__ for transform in transforms]
    table = [(title, [one[i] for one in pictures]) for i, title in enumerate(titles)]
    ignored = target.ignore_index if uncovered is None else uncovered
    augmentation_sheet(table, names, target.class_names, palette, ignored, out)


def _pictures(batch: Batch, target: TargetSpec, num_inputs: int) -> list[Picture]:
    """Of each sample the image, its class map, and its labels where images were mixed."""
    images = batch["image"].unflatten(1, (num_inputs, -1)).permute(0, 3, 1, 4, 2).flatten(2, 3).numpy()
    found = batch.get("target")
    masks: list[NDArray[np.uint8] | None] = [None] * len(images)
    texts = [""] * len(images)
    if found is not None and target.kind == "mask":
        masks = list(largest_share(found, target).to(torch.uint8).numpy())
    elif found is not None and found.is_floating_point():
        texts = [_shares(shares, target.class_names) for shares in found]
    return list(zip(images, masks, texts, strict=True))


def _shares(shares: Tensor, class_names: Sequence[str]) -> str:
    """The labels of a mixed image, a line each, those with the largest shares first."""
    found = [(share, i) for i, share in enumerate(shares.tolist()) if 0.005 <= share <= 1]
    lines = [f"{share:.2f} {class_label(i, class_names[i])}" for share, i in sorted(found, reverse=True)]
    more = [f"and {len(lines) - MOST_LABELS} more"] if len(lines) > MOST_LABELS else []
    return "\n".join([*lines[:MOST_LABELS], *more]) or "no label"


def augmentation_sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    transforms: Sequence[str],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    ignore_index: int | None,
    out: Path,
) -> None:
    """Write a PNG with a row for each sample: the original, then its draws; masks stand below their images.

    Args:
        rows: Of each sample its title, and its pictures, the original first: image ``(H, W, C)`` uint8, class map
            ``(H, W)`` or None, and what is written below.
        transforms: What changes the images, in its order.
        class_names: Names of the classes of masks.
        palette: One RGB triple a class.
        ignore_index: Mask value that is left out, or None; drawn light grey.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    pictures = [picture for _, drawn in rows for picture in drawn]
    sizes = [tile_size(image.shape[1], image.shape[0], TILE) for image, _, _ in pictures]
    wide, high = max(w for w, _ in sizes), max(h for _, h in sizes)
    masked = any(mask is not None for _, mask, _ in pictures)
    said = max(len(text.splitlines()) for _, _, text in pictures)
    columns = max(len(drawn) for _, drawn in rows)
    width = 2 * MARGIN + columns * wide + (columns - 1) * GAP
    deep = LINE + high * (1 + masked) + (4 if masked else 0) + said * LINE + GAP

    samples = [(image, mask, mask, "") for image, mask, _ in pictures if mask is not None]
    legend = legend_of(samples, class_names, palette, ignore_index, width - 2 * MARGIN)
    top = MARGIN + LINE + (legend.height + 6 if masked else 0)
    page = Image.new("RGB", (width, top + LINE + len(rows) * deep + MARGIN - GAP), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), fit(" > ".join(transforms), width - 2 * MARGIN, font(13, True)), INK, font(13, True))
    if masked:
        legend.paint(draw, MARGIN, MARGIN + LINE + 4)
    for column in range(columns):
        head = "original" if column == 0 else f"draw {column}"
        draw.text((MARGIN + column * (wide + GAP), top), head, fill=INK, font=font(13))
    y = top + LINE
    for title, drawn in rows:
        draw.text((MARGIN, y + 2), fit(title, width - 2 * MARGIN, font(12)), fill=PALE, font=font(12))
        for column, (image, mask, text) in enumerate(drawn):
            x, below = MARGIN + column * (wide + GAP), y + LINE
            size = tile_size(image.shape[1], image.shape[0], TILE)
            page.paste(scaled(as_rgb(image), size), (x, below))
            below += high
            if mask is not None:
                tile = Image.fromarray(colorize(mask, palette, ignore_index))
                page.paste(tile.resize(size, Image.Resampling.NEAREST), (x, below + 4))
            below += high + 4 if masked else 0
            for line in text.splitlines():
                draw.text((x, below + 2), fit(line, wide, font(12)), fill=INK, font=font(12))
                below += LINE - 2
        y += deep
    save_image(page, out)
