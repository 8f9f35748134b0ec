"""What the pixel values of mask files mean: found by looking at all of them, not by guessing from one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.mask_classes import THRESHOLD, MaskClasses, jpeg_advice
from lightning_vision.data.mask_colors import MAX_COLORS, hex_color, unpack
from lightning_vision.data.mask_files import read_mask_file
from lightning_vision.data.mask_settings import MaskSettings
from lightning_vision.data.threads import each
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.types import MaskValues, Palette, TargetSpec

BINARY_NAMES = ("background", "foreground")
# Colour-coded masks bring no ids of their own, so this one is free for pixels that do not count.
IGNORED_COLORS = 255

Rows = npt.NDArray[np.int64]


@dataclass
class MaskScan:
    """What a scan of mask files found.

    Args:
        first: Each value that occurs (a colour as ``0xrrggbb``), ascending, with the first row that has it.
        read: Number of masks that were read.
        errors: Row and reason of files that could not be read.
        palette: The first palette found.
        other_palette: The first row with another palette, or None.
        one_bit: Every readable file has one bit a pixel.
        too_many: The scan ended at more than ``MAX_COLORS`` colours, in this row.
    """

    first: dict[int, int] = field(default_factory=dict)
    read: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)
    palette: Palette | None = None
    other_palette: int | None = None
    one_bit: bool = False
    too_many: int | None = None


def scan_masks(
    masks: PackedStrings, rows: Rows, colors: bool = False, threads: int | None = None, strict: bool = False
) -> MaskScan:
    """Read the masks of ``rows`` and note which values occur.

    Args:
        masks: Path of every mask.
        rows: Rows to read.
        colors: The values are colours; the scan ends when there are more than ``MAX_COLORS``.
        threads: Threads that read; None = all cores.
        strict: Raise the error of the first mask that cannot be read, in place of noting all.

    Raises:
        DataError: A mask cannot be read (``strict``); with the path.
    """
    seen = np.zeros(1 << 24 if colors else 256, np.bool_)

    def read(row: int) -> tuple[list[int], Palette | None, bool] | DataError:
        try:
            mask = read_mask_file(masks[row], colors)
            color_of = mask.colors(masks[row]) if colors and mask.values.dtype == np.uint8 else None
        except DataError as error:
            return error
        values: npt.NDArray[np.generic] = mask.values
        if values.dtype == np.uint8:
            values = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
            values = values if color_of is None else color_of[values]
        return np.unique(values[~seen[values]]).tolist(), mask.palette, mask.one_bit

    scan = MaskScan(one_bit=True)
    for row, found in zip(rows.tolist(), each(read, rows, threads, "reading masks"), strict=False):
        if isinstance(found, DataError):
            if strict:
                raise found
            # What to do about it is said once.
            scan.errors.append((row, found.summary if scan.errors else str(found)))
            continue
        values, palette, one_bit = found
        scan.read += 1
        for value in values:
            scan.first.setdefault(value, row)
        seen[values] = True
        scan.one_bit &= one_bit
        if scan.palette is None:
            scan.palette = palette
        elif palette is not None and palette != scan.palette and scan.other_palette is None:
            scan.other_palette = row
        if colors and len(scan.first) > MAX_COLORS:
            scan.too_many = row
            break
    scan.one_bit &= scan.read > 0
    scan.first = dict(sorted(scan.first.items()))
    return scan


def require_classes(masks: PackedStrings, rows: Rows, target: TargetSpec, threads: int | None = None) -> None:
    """Read the masks of ``rows`` and refuse the first that cannot be read, or has a pixel that is no class.

    Raises:
        DataError: With the path, the values or colours, and the number of pixels.
    """
    classes = MaskClasses(target)

    def read(row: int) -> None:
        classes.read(masks[row])

    for _ in each(read, rows, threads, "reading masks"):
        pass


def mask_target(scan: MaskScan, masks: PackedStrings, settings: MaskSettings) -> TargetSpec:
    """Decide what the values of the scanned masks mean.

    ``auto`` takes files that hold only 0 and 255 as ``binary``, unless 255 is ignored or they have a palette; all
    else is ``index``: the value is the class id. With ``binarize``, grey masks that hold more than 0 and 1 are
    ``threshold``. A last class name whose id is ``ignore_index`` is dropped; an ignored value among the others keeps
    its id and is never counted.

    Raises:
        ConfigError: Settings contradict each other, or the data.
        DataError: A value is no class and not ignored, or there is only one class.
    """
    if settings.mask_values == "color":
        return _color_target(scan, masks, settings)
    values = [v for v in scan.first if v != settings.ignore_index]
    kind = _kind(values, scan, settings)
    names = settings.class_names
    if names is not None and kind == "index" and settings.ignore_index == len(names) - 1:
        names = names[:-1]
    if kind != "index":
        names = _two_names(kind, values, scan, masks, names, settings)
    elif names is None:
        names = _index_names(values, scan, masks, settings)
    _require_count(names, settings)
    if kind == "index":
        _check_range(values, len(names), scan, masks, settings)
        sides: Collection[int] = values
    else:
        sides = {v == 1 if scan.one_bit else v >= THRESHOLD for v in values}
    _require_two(names, sides, scan, settings)
    palette = settings.palette or scan.palette
    palette = palette[: len(names)] if palette and len(palette) >= len(names) else None
    return TargetSpec("mask", names, settings.ignore_index, kind, palette)


def _kind(values: Sequence[int], scan: MaskScan, settings: MaskSettings) -> MaskValues:
    if settings.mask_values != "auto":
        return settings.mask_values
    if set(values) <= {0, 255} and 255 in values and scan.palette is None:
        return "binary"
    if not settings.binarize or scan.palette is not None or set(values) <= {0, 1}:
        return "index"
    low, high = [v for v in values if v < THRESHOLD], [v for v in values if v >= THRESHOLD]
    if high == [255] and len(low) >= 2 and low == list(range(len(low))):
        raise DataError(
            "the masks hold small class ids, and 255, which usually means pixels that do not count",
            given=f"mask values {listed(values, 12)}, and {settings.num_classes_key}=2",
            expected="which of both it is: ids from 0, or grey values of which those from 128 on are foreground",
            override=["data.ignore_index=255", "data.mask_values=threshold"],
        )
    return "threshold"


def _color_target(scan: MaskScan, masks: PackedStrings, settings: MaskSettings) -> TargetSpec:
    colors = settings.colors
    if colors is None:
        if scan.too_many is not None:
            path = masks[scan.too_many]
            raise DataError(
                f"{path}: with this mask there are more than {MAX_COLORS} colours, so they are no classes",
                given="masks that look like photos, JPEG files or drawings with smooth edges",
                expected="one colour for each class, and no mixed ones",
                override=[
                    *jpeg_advice(path),
                    "data.colors=LIST preprocessing.unseen_color=ignore  (all others do not count)",
                ],
            )
        colors = tuple(map(unpack, scan.first))
    ignore_index = settings.ignore_index
    # Colours that are given are like ids: nothing is ignored unless it is said, by the user or by a trained model.
    may_ignore = settings.colors is None or settings.ignore_unseen
    if ignore_index is None and may_ignore and len(colors) <= IGNORED_COLORS:
        ignore_index = IGNORED_COLORS
    if settings.ignore_unseen and ignore_index is None:
        raise ConfigError(
            f"{len(colors)} colours leave no id for pixels that do not count",
            given="preprocessing.unseen_color=ignore",
            override=["preprocessing.unseen_color=error", "data.ignore_index=0"],
        )
    shown = tuple(map(hex_color, colors))
    names = settings.class_names or shown
    if ignore_index == len(colors) - 1 and len(names) == len(colors):
        names = names[:-1]
    if len(names) + (ignore_index == len(colors) - 1) != len(colors):
        raise ConfigError(
            "data.class_names does not have a name for each colour",
            given=f"{len(names)} names, and {len(colors)} colours: {listed(shown, 16)}",
            expected="as many, in the order of data.colors, or else in ascending order of the colours; or a file with "
            "lines of red, green, blue and name",
            override=["data.class_names=null", "data.class_names=label_colors.txt"],
        )
    _require_count(names, settings, shown)
    target = TargetSpec("mask", names, ignore_index, "color", colors, settings.ignore_unseen)
    known = {v for v in scan.first if unpack(v) in set(colors)}
    if len(known) < len(scan.first) and not settings.ignore_unseen:
        rows = [row for value, row in scan.first.items() if value not in known]
        MaskClasses(target).read(masks[min(rows)])  # raises, with the number of pixels
    ignored = None if ignore_index is None or ignore_index >= len(colors) else colors[ignore_index]
    counted = [v for v in known if unpack(v) != ignored]
    if scan.too_many is None:
        _require_two(names, counted, scan, settings)
    return target


def _require_count(names: tuple[str, ...], settings: MaskSettings, colors: Sequence[str] = ()) -> None:
    """Refuse a number of classes that is not that of the names or of the colours found."""
    if settings.num_classes is None or settings.num_classes == len(names):
        return
    key, count = settings.num_classes_key, len(names)
    without = f" without the ignored {settings.ignore_index}" if settings.ignore_index is not None else ""
    drop = [] if settings.class_names is None else ["data.class_names=null"]
    if colors:
        given = f"{key}={settings.num_classes}, and {count} colours{without}: {listed(colors, 16)}"
        cut = f"preprocessing.infer_image_num_classes=false  (grey values from {THRESHOLD} on are foreground)"
        raise ConfigError(
            f"{key} contradicts the colours of the masks",
            given=given,
            override=[f"{key}={count}", *([cut] if settings.binarize else [])],
        )
    raise ConfigError(
        f"{key} contradicts the class names",
        given=f"{key.partition('.')[2]}={settings.num_classes}, and {count} class names{without}",
        override=[f"{key}={count}", *drop],
    )


def _require_two(names: tuple[str, ...], found: Collection[int], scan: MaskScan, settings: MaskSettings) -> None:
    """Refuse masks with nothing to tell apart; where all is said, one class in the files is none of our business."""
    said = settings.class_names is not None and (settings.mask_values != "auto" or settings.num_classes is None)
    if len(names) >= 2 and (len(found) >= 2 or said):
        return
    color = settings.mask_values == "color"
    values = [hex_color(v) for v in scan.first] if color else list(scan.first)
    raise DataError(
        "the masks have one class only, so there is nothing to tell apart",
        given=f"mask {'colours' if color else 'values'} {listed(values, 20)}"
        + (f", ignore_index={settings.ignore_index}" if settings.ignore_index is not None else ""),
        expected="at least two classes"
        + (f", values on both sides of {THRESHOLD}" if settings.binarize and settings.mask_values != "color" else ""),
    )


def _two_names(
    kind: MaskValues,
    values: Sequence[int],
    scan: MaskScan,
    masks: PackedStrings,
    names: tuple[str, ...] | None,
    settings: MaskSettings,
) -> tuple[str, ...]:
    """Names of background and foreground."""
    if settings.ignore_index in (0, 1):
        raise ConfigError(
            f"data.ignore_index={settings.ignore_index} would leave out one of both classes",
            given=f"masks that become 0 (background) and 1 (foreground), data.mask_values={kind}",
            expected="2 to 255, or null",
            override="data.ignore_index=null",
        )
    # One-bit files hold 0 and 1 by themselves, whatever Pillow shows.
    other = [v for v in values if v not in ((0, 1, 255) if scan.one_bit else (0, 255))]
    if other and kind == "binary":
        raise DataError(
            f"{masks[scan.first[other[0]]]}: the value {other[0]} in a binary mask",
            given="data.mask_values=binary",
            expected="0 and 255",
            override=["data.mask_values=index", "data.mask_values=threshold", f"data.ignore_index={other[0]}"],
        )
    count = len(names) if names is not None else settings.num_classes
    if count not in (None, 2):
        what = "hold only 0 and 255" if kind == "binary" else f"are cut at {THRESHOLD}"
        raise ConfigError(
            f"the masks {what}, which is two classes, but {count} are configured",
            given=f"data.class_names has {count} names" if names is not None else f"{settings.num_classes_key}={count}",
            expected="2",
            override=["data.mask_values=index data.ignore_index=255", f"{settings.num_classes_key}=2"],
        )
    return names or BINARY_NAMES


def _index_names(
    values: Sequence[int], scan: MaskScan, masks: PackedStrings, settings: MaskSettings
) -> tuple[str, ...]:
    if settings.num_classes is not None:
        return tuple(str(i) for i in range(settings.num_classes))
    count = max(values, default=0) + 1
    cut = "preprocessing.num_classes=2  (from 128 on is foreground)"
    if count == 256:
        path, ways = masks[scan.first[255]], ["data.ignore_index=255", cut]
        raise DataError(
            f"{path}: the mask value 255, which usually means pixels that do not count",
            given=f"mask values {listed(values, 12)}",
            expected="class ids from 0, or 0 and 255 alone",
            # Many values are no ids with one that does not count, but two classes with smooth edges.
            override=[*(ways if len(values) <= 32 else ways[::-1]), *jpeg_advice(path)],
        )
    if count > 32 and len(values) * 8 <= count:
        raise DataError(
            f"the mask values look like grey levels, not class ids: {len(values)} values, the largest is {values[-1]}",
            given=f"mask values {listed(values, 12)}",
            expected="class ids from 0",
            override=[
                "preprocessing.infer_image_num_classes=true  (every grey value is a class)",
                *([cut] if values[0] < THRESHOLD <= values[-1] else []),
                f"data.num_classes={count}",
                *jpeg_advice(masks[scan.first[values[-1]]]),
            ],
        )
    return BINARY_NAMES if scan.one_bit and count == 2 else tuple(str(i) for i in range(count))


def _check_range(
    values: Sequence[int], count: int, scan: MaskScan, masks: PackedStrings, settings: MaskSettings
) -> None:
    beyond = [v for v in values if v >= count]
    if not beyond:
        return
    names, number = settings.class_names, settings.num_classes
    value = beyond[-1]
    path = masks[scan.first[value]]
    # A value that is ignored already would be missed.
    overrides = [f"data.ignore_index={value}"] if len(beyond) == 1 and settings.ignore_index is None else []
    if names is None:
        overrides.append(f"{settings.num_classes_key}={value + 1}")
    raise DataError(
        f"{path}: the mask value {value} is no class",
        given=("" if number is None else f"{settings.num_classes_key}={number}, and ")
        + f"mask values {listed(values, 12)}; beyond the classes: {listed(beyond, 5)}",
        expected=f"0 to {count - 1} ({count} classes)" + (f": {listed(names, 12)}" if names else ""),
        override=overrides + jpeg_advice(path),
    )
