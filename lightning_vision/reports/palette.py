"""Colours of classes: the data set's own, else distinct ones that stay the same when classes are added."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# Pixels left out of loss and metrics: light grey, visible on a white page and unlike any generated colour.
IGNORED: Colour = (224, 224, 224)
# Class 0 of a mask is the background in most data sets: dark, so that the others stand out.
BACKGROUND: Colour = (32, 32, 38)
# Okabe and Ito, "Color Universal Design" (2008), without black: told apart with the common colour deficiencies.
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_GRID = 16  # steps per channel of the colours to choose from


def class_palette(
    num_classes: int, given: Sequence[Sequence[int]] | None = None, *, dark_background: bool = True
) -> tuple[Colour, ...]:
    """Return one RGB triple a class, values 0 to 255.

    Given colours are kept for the classes that have one. The others take the seven colours of Okabe and Ito, then
    always the colour farthest (in OKLab) from all that are taken, so that they spread evenly over hue and lightness.
    The colour of a class does not depend on how many classes follow it.

    Args:
        num_classes: Number of classes C.
        given: Palette of the data set, of any length, or None.
        dark_background: Without a given palette, and with two or more classes, make class 0 dark.
    """
    kept: list[Colour] = [(int(c[0]), int(c[1]), int(c[2])) for c in (given or ())][:num_classes]
    if not kept and dark_background and num_classes > 1:
        kept = [BACKGROUND]
    return (*kept, *_distinct(num_classes - len(kept), tuple(kept)))


@lru_cache(maxsize=16)
def _distinct(count: int, taken: tuple[Colour, ...]) -> tuple[Colour, ...]:
    """Return ``count`` colours that are far from each other, from ``taken`` and from the colour of ignored pixels."""
    if count <= 0:
        return ()
    steps = np.linspace(0, 255, _GRID).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    lightness = oklab(grid)[:, 0]
    grid = grid[(lightness > 0.35) & (lightness < 0.93)]
    candidates = np.concatenate([np.array(OKABE_ITO, dtype=np.uint8), grid])
    space = oklab(candidates)
    anchors = oklab(np.array([*taken, IGNORED], dtype=np.uint8))
    distance = np.linalg.norm(space[:, None] - anchors[None], axis=-1).min(1)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        # 0.08 is about four just-noticeable differences: below it two colours are taken for one another in a legend.
        few = [i for i in range(len(OKABE_ITO)) if i not in chosen and distance[i] > 0.08]
        best = few[0] if few else int(distance.argmax())
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm(space - space[best], axis=-1))
    # More classes than colours to choose from: they repeat.
    colours = [(int(r), int(g), int(b)) for r, g, b in candidates[chosen]]
    return tuple(colours[i % len(colours)] for i in range(count))


def oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Convert sRGB ``(..., 3)``, 0 to 255, to OKLab, where distance goes with perceived difference.

    Source: Ottosson, "A perceptual color space for image processing" (2020).
    """
    s = rgb.astype(np.float64) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: NDArray[np.float64] = np.cbrt(linear @ to_lms.T) @ to_lab.T
    return lab


def colorize(
    mask: NDArray[Any], palette: Sequence[Sequence[int]], ignore_index: int | None = None
) -> NDArray[np.uint8]:
    """Paint a class map ``(H, W)`` of any integer type as RGB ``(H, W, 3)`` uint8; ignored pixels become light grey.

    Raises:
        ValueError: A value is neither a class of the palette nor ``ignore_index``.
    """
    ids = checked_ids(mask, len(palette), ignore_index)
    table = np.array([*palette, IGNORED], dtype=np.uint8)
    return table[ids]


def checked_ids(mask: NDArray[Any], num_classes: int, ignore_index: int | None) -> NDArray[np.intp]:
    """Return the class ids ``(H, W)`` with ignored pixels set to ``num_classes``.

    Raises:
        ValueError: The mask is not two-dimensional, or a value is neither a class nor ``ignore_index``.
    """
    if mask.ndim != 2:
        raise ValueError(f"a mask has the shape (H, W), got {mask.shape}")
    ids = mask.astype(np.intp)
    if ignore_index is not None:
        ids[mask == ignore_index] = num_classes
    wrong = (ids < 0) | (ids > num_classes) | ((ids == num_classes) & (mask != ignore_index))
    if wrong.any():
        values = np.unique(mask[wrong])[:8].tolist()
        raise ValueError(f"mask values {values} are no classes: 0 to {num_classes - 1}, ignored {ignore_index}")
    return ids
