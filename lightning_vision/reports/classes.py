"""The class balance of data: how often each class occurs in each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lightning_vision.data.index import FurtherTarget, SampleIndex
from lightning_vision.data.label_sets import YES
from lightning_vision.data.mask_report import count_masks, masks_with, pixel_shares
from lightning_vision.data.report import Report, class_counts
from lightning_vision.reports.confusion import percent, short_count
from lightning_vision.reports.files import save_image
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.sheet import GAP, INK, MARGIN, PAGE, PALE, WRONG
from lightning_vision.reports.text import class_label, fit, font
from lightning_vision.types import SPLITS

# Masks of a split that a fit reads for the picture, where it does not know them from the check.
MASKS = 40
ROWS = 20_000  # whose pairs of labels are counted
IN_ORDER = 30  # classes that stand in the order of their ids; more in that of their frequency
COLUMN = 50  # classes below each other
MOST = 148  # classes that are shown; of more the most and the least frequent
PAIRED = 30  # labels of which pairs are shown
NAME, BAR, VALUE = 150, 96, 62  # widths: of a name, of the longest bar, of a figure
LINE, CELL = 19, 19
BLUE, THIN = (0, 114, 178), (140, 140, 148)

Counts = Sequence[Mapping[str, Any]]


@dataclass
class Balance:
    """How often each class occurs.

    Args:
        classes: Per class a dict with ``name`` and, for each split, the number of images that have it, or the share of
            all pixels.
        rows: Images of each split.
        masks: Per class the number of masks of each split that have it, of masks alone.
        pairs: Of sets of labels, ``(C, C)``: training images that have both labels, on the diagonal that have one.
        palette: Colours of the classes of masks.
        note: How it was counted.
    """

    classes: Counts
    rows: Mapping[str, int]
    masks: Counts = ()
    pairs: NDArray[np.int64] | None = None
    palette: Sequence[Sequence[int]] | None = None
    note: str = ""


def balance_of(index: SampleIndex, target: FurtherTarget | None, threads: int | None = None) -> Balance | None:
    """Count the classes of a target; of masks those of some files, evenly over each split.

    Args:
        index: The samples.
        target: Labels or sets of labels; None = the masks.
        threads: Threads that read masks; None = all cores.

    Returns:
        None where there is nothing to count.
    """
    rows: dict[str, int] = {str(split): count for split, count in index.counts().items()}
    if target is not None:
        pairs = None if target.labels is None else _pairs(target, index.rows("train"))
        return Balance(class_counts(index, target)[0], rows, pairs=pairs) if target.target.class_names else None
    if index.mask is None or index.target is None:
        return None
    parts = [index.rows(split) for split in SPLITS]
    read = np.sort(
        np.concatenate(
            [part[np.unique(np.linspace(0, len(part) - 1, MASKS).astype(int))] for part in parts if len(part)]
        )
    )
    counted = count_masks(index.mask.take(read), index.split[read], index.target, threads)
    taken = {split: int((index.split[read] == s).sum()) for s, split in enumerate(SPLITS)}
    note = "" if len(read) == len(index) else f"of {len(read)} masks, evenly over all {len(index)}"
    shares, masks = pixel_shares(counted.pixels, index.target), masks_with(counted, index.target)
    palette = class_palette(index.target.num_classes, index.target.palette)
    return Balance(shares, {str(k): v for k, v in taken.items()}, masks, None, palette, note)


def balance_of_report(report: Report, index: SampleIndex) -> Balance:
    """The balance of the main target, where a check has counted all of it."""
    target, labels = report.target, index.main_labels
    pairs = None if labels is None or labels.labels is None else _pairs(labels, index.rows("train"))
    palette = class_palette(target.num_classes, target.palette) if report.masks and target is not None else None
    return Balance(report.classes, report.counts, report.masks, pairs, palette)


def _pairs(target: FurtherTarget, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = rows[np.unique(np.linspace(0, max(0, len(rows) - 1), ROWS).astype(int))] if len(rows) else rows
    chosen = (target.values(rows) == YES).astype(np.float32)
    return (chosen.T @ chosen).round().astype(np.int64)


def draw_classes(balance: Balance, out: Path) -> None:
    """Write a PNG of bars, a panel for each split, and of sets of labels which of them occur together.

    Args:
        balance: What was counted.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    page = classes_image(balance)
    save_image(page, out)


def classes_image(balance: Balance) -> Image.Image:
    """Draw the picture of ``draw_classes``."""
    splits = [split for split in SPLITS if balance.rows.get(split)]
    order, title = _order(balance)
    columns = max(1, -(-len(order) // COLUMN))
    deep = -(-len(order) // columns) if order else 0
    panel = BAR + VALUE + GAP
    wide = NAME + GAP + len(splits) * panel
    pairs = _pairs_image(balance) if balance.pairs is not None and len(balance.classes) > 1 else None
    top = MARGIN + 2 * LINE + (LINE if balance.masks else 0) + 8
    height = top + LINE + deep * LINE + MARGIN
    width = 2 * MARGIN + columns * wide + (columns - 1) * 2 * GAP
    page = Image.new(
        "RGB", (max(width, 480) + (pairs.width if pairs else 0), max(height, pairs.height if pairs else 0)), PAGE
    )
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, MARGIN), title, INK, font(14, True))
    what = "share of the pixels" if balance.masks else "images"
    draw.text(
        (MARGIN, MARGIN + LINE + 2), f"{what} of each class{', ' if balance.note else ''}{balance.note}", PALE, font(12)
    )
    if balance.masks:
        draw.text((MARGIN, MARGIN + 2 * LINE), "thin line and number: images that have the class", PALE, font(12))
    for i, c in enumerate(order):
        left, y = MARGIN + (i // deep) * (wide + 2 * GAP), top + LINE + (i % deep) * LINE
        if i % deep == 0:
            for s, split in enumerate(splits):
                head = f"{split}: {balance.rows[split]}"
                draw.text((left + NAME + GAP + s * panel, top - 2), head, INK, font(12, True))
        if c < 0:
            draw.text((left, y + 2), f"… {len(balance.classes) - MOST} classes between these", PALE, font(12))
            continue
        _name(draw, balance, c, (left, y))
        for s, split in enumerate(splits):
            _bar(draw, balance, c, split, (left + NAME + GAP + s * panel, y))
    if pairs:
        page.paste(pairs, (max(width, 480), 0))
    return page


def _order(balance: Balance) -> tuple[list[int], str]:
    """The classes that are shown, -1 for a gap, and the heading."""
    count = len(balance.classes)
    title = f"{count} class{'es' * (count != 1)}" if balance.pairs is None else f"{count} label{'s' * (count != 1)}"
    if count <= IN_ORDER:
        return list(range(count)), title
    order = sorted(range(count), key=lambda c: (-balance.classes[c]["train"], c))
    if count > MOST:
        order = [*order[: MOST // 2], -1, *order[-(MOST // 2) :]]
    return order, f"{title}, the most frequent in train first"


def _name(draw: ImageDraw.ImageDraw, balance: Balance, c: int, place: tuple[int, int]) -> None:
    x, y = place
    space = NAME
    if balance.palette is not None:
        draw.rectangle((x, y + 2, x + 12, y + 14), fill=tuple(balance.palette[c]), outline=PALE)
        x, space = x + 18, NAME - 18
    colour = INK if balance.classes[c]["train"] or not balance.rows.get("train") else WRONG
    draw.text(
        (x, y + 8), fit(class_label(c, balance.classes[c]["name"]), space, font(12)), colour, font(12), anchor="lm"
    )


def _bar(draw: ImageDraw.ImageDraw, balance: Balance, c: int, split: str, place: tuple[int, int]) -> None:
    x, y = place
    value, largest = balance.classes[c][split], max(found[split] for found in balance.classes)
    long = round(BAR * value / largest) if largest else 0
    draw.rectangle((x, y + 2, x + BAR, y + 14), fill=(243, 243, 246))
    if value:
        draw.rectangle((x, y + 2, x + max(1, long), y + (10 if balance.masks else 14)), fill=BLUE)
    text = percent(value) if balance.masks else short_count(value)
    if balance.masks:
        count = balance.masks[c][split]
        if count:
            draw.rectangle((x, y + 12, x + max(1, round(BAR * count / balance.rows[split])), y + 14), fill=THIN)
        text = f"{text}  {short_count(count)}"
    shade = PALE if value else WRONG if split == "train" else THIN
    draw.text((x + BAR + 5, y + 8), text, shade, font(11), anchor="lm")


def _pairs_image(balance: Balance) -> Image.Image:
    """A matrix: of the training images with the label of a row, the share that has that of a column too."""
    assert balance.pairs is not None
    counts = np.diag(balance.pairs)
    shown = np.sort(np.argsort(-counts, kind="stable")[:PAIRED])
    labels = [fit(class_label(int(c), balance.classes[c]["name"]), NAME - 20, font(12)) for c in shown]
    cell = 30 if len(shown) <= 12 else CELL
    side = cell * len(shown)
    top = MARGIN + 2 * LINE + 8 + round(max(font(12).getlength(label) for label in labels)) + 6
    page = Image.new("RGB", (max(NAME + GAP + side, 380) + 2 * MARGIN, top + side + MARGIN), PAGE)
    draw = ImageDraw.Draw(page)
    more = f", of the {len(shown)} most frequent" if len(shown) < len(counts) else ""
    draw.text((MARGIN, MARGIN), f"labels together, in train{more}", INK, font(14, True))
    draw.text((MARGIN, MARGIN + LINE + 2), "share of a row's images that have the column's label too", PALE, font(12))
    left = MARGIN + NAME + GAP
    for i, (c, label) in enumerate(zip(shown, labels, strict=True)):
        y = top + i * cell
        draw.text((left - 6, y + cell // 2), label, INK, font(12), anchor="rm")
        turned = Image.new("RGB", (top - MARGIN - 2 * LINE, cell), PAGE)
        ImageDraw.Draw(turned).text((2, cell // 2), label, INK, font(12), anchor="lm")
        turned = turned.rotate(90, expand=True)
        page.paste(turned, (left + i * cell, top - turned.height - 2))
        for j, d in enumerate(shown):
            share = balance.pairs[c, d] / counts[c] if counts[c] else 0.0
            x = left + j * cell
            shade = tuple(round(255 + (end - 255) * share) for end in BLUE)
            fill = (236, 236, 240) if i == j or not counts[c] else shade
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=fill)
            if cell == 30 and i != j and counts[c]:
                ink = PAGE if share > 0.55 else INK
                draw.text((x + cell // 2 - 1, y + cell // 2 - 1), f"{100 * share:.0f}", ink, font(11), anchor="mm")
    return page
