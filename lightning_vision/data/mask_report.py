"""What ``check`` says of masks: values that are no class, shapes that do not fit, pixels of each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import PackedStrings, Problem, SampleIndex, Severity
from lightning_vision.data.mask_classes import Foreign, MaskClasses
from lightning_vision.data.mask_colors import hex_color
from lightning_vision.data.mask_files import read_mask_file
from lightning_vision.data.mask_shape import same_aspect
from lightning_vision.data.threads import each
from lightning_vision.errors import DataError, listed
from lightning_vision.types import SPLITS, TargetSpec

if TYPE_CHECKING:
    from lightning_vision.data.report import Report


_DETAILED = 1000


@dataclass
class MaskCounts:
    """What the masks of an index hold: arrays, and objects only for some masks with something wrong.

    Args:
        pixels: int64 ``(3, 256)``: pixels of each class id in each split.
        size: int32 ``(N, 2)``: height and width of each mask as stored, 0 if it could not be read.
        foreign: Row, and what is no class there, of the first ``_DETAILED`` masks that have such pixels.
        masks: int64 ``(3, 256)``: masks in each split that have pixels of each class id.
        with_foreign: int64 ``(3, 2)``: masks and pixels in each split that are no class.
        errors: Row and reason of masks that could not be read.
    """

    pixels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    with_foreign: npt.NDArray[np.int64]
    foreign: list[tuple[int, Foreign]] = field(default_factory=list)
    errors: list[tuple[int, str]] = field(default_factory=list)


def count_masks(
    masks: PackedStrings, split: npt.NDArray[np.uint8], target: TargetSpec | None, threads: int | None = None
) -> MaskCounts:
    """Read every mask and count the pixels of each class.

    Args:
        masks: Path of every mask.
        split: uint8 ``(N,)``, 0 to 2.
        target: What the pixels mean; None = undecided, so that only sizes are noted.
        threads: Threads that read; None = all cores.
    """
    # Pixels that the target ignores for want of a class are counted, too.
    classes = None if target is None else MaskClasses(replace(target, ignore_unseen=False))
    counted = MaskCounts(
        pixels=np.zeros((len(SPLITS), 256), np.int64),
        masks=np.zeros((len(SPLITS), 256), np.int64),
        size=np.zeros((len(masks), 2), np.int32),
        with_foreign=np.zeros((len(SPLITS), 2), np.int64),
    )

    def read(row: int) -> tuple[tuple[int, ...], npt.NDArray[np.int64] | None, Foreign | None] | str:
        try:
            if classes is None:
                return read_mask_file(masks[row], colors=True).values.shape, None, None
            ids, foreign, _ = classes.look(masks[row])
        except DataError as error:
            return error.summary
        pixels = np.bincount(ids.ravel(), minlength=256)
        if foreign is not None:
            pixels[255] -= foreign.pixels
        return ids.shape, pixels, foreign

    for row, found in enumerate(each(read, np.arange(len(masks)), threads)):
        if isinstance(found, str):
            counted.errors.append((row, found))
            continue
        shape, pixels, foreign = found
        counted.size[row] = shape
        if pixels is not None:
            counted.pixels[split[row]] += pixels
            counted.masks[split[row]] += pixels > 0
        if foreign is not None:
            counted.with_foreign[split[row]] += 1, foreign.pixels
            if len(counted.foreign) < _DETAILED:
                counted.foreign.append((row, foreign))
    return counted


def check_masks(
    index: SampleIndex,
    counted: MaskCounts,
    headers: Sequence[Header | None],
    report: Report,
    unreadable: Severity = "error",
) -> None:
    """Add what is wrong with the masks to the report, and the share of pixels of each class.

    Args:
        index: The samples.
        counted: What their masks hold.
        headers: Header of each image, None where it cannot be read.
        report: Gets the problems.
        unreadable: How bad a mask is that cannot be read.
    """
    known = {problem.message.partition("\n")[0] for problem in report.problems}
    for _, message in counted.errors:
        if message not in known and not message.endswith(": no such file"):
            report.problems.append(Problem(unreadable, message))
    for row, image in enumerate(headers):
        height, width = counted.size[row].tolist()
        if image is None or not height or same_aspect((height, width), (image.height, image.width)):
            continue
        mask = read_header(index.mask_path(row))  # the mask may have an orientation of its own, which is rare
        if not same_aspect((mask.height, mask.width), (image.height, image.width)):
            report.problems.append(
                Problem(
                    "error",
                    f"{index.mask_path(row)}: the mask is {mask.height} x {mask.width}, "
                    f"the image {image.height} x {image.width}, another shape",
                )
            )
    if index.target is None:
        return  # what the values mean could not be decided, and the reason is a problem already
    target = index.target
    report.problems += _ignored_foreign(index, counted) if target.ignore_unseen else _foreign(index, counted, target)
    report.classes = pixel_shares(counted.pixels, target)
    report.masks = masks_with(counted, target)
    unseen = [c["name"] for i, c in enumerate(report.classes) if not c["train"] and i != target.ignore_index]
    if report.counts["train"] and sum(bool(c["train"]) for c in report.classes) == 1:
        message = "all pixels of train that count are of one class, so there is nothing to tell apart"
        report.problems.append(Problem("error", message))
    if unseen and report.counts["train"]:
        report.problems.append(Problem("warning", f"classes without a pixel in train: {listed(unseen, 10)}"))


def _foreign(index: SampleIndex, counted: MaskCounts, target: TargetSpec) -> Iterator[Problem]:
    color = target.mask_values == "color"
    for row, foreign in counted.foreign:
        values = listed(map(hex_color, foreign.values) if color else foreign.values, 10)
        yield Problem(
            "error",
            f"{index.mask_path(row)} ({SPLITS[index.split[row]]}): mask {'colours' if color else 'values'} that are no "
            f"class: {values} in {foreign.pixels} of {int(counted.size[row].prod())} pixels",
        )
    more = int(counted.with_foreign[:, 0].sum()) - len(counted.foreign)
    if more:
        yield Problem("error", f"{more} more masks with such values")


def _ignored_foreign(index: SampleIndex, counted: MaskCounts) -> Iterator[Problem]:
    for s, split in enumerate(SPLITS):
        masks, pixels = counted.with_foreign[s].tolist()
        if masks:
            share = pixels / int(counted.size[index.split == s].astype(np.int64).prod(axis=1).sum())
            first = next((f": {index.mask_path(r)}" for r, _ in counted.foreign if index.split[r] == s), "")
            yield Problem(
                "warning", f"colours that are no class in {masks} masks of {split}, {share:.2%} of its pixels{first}"
            )


def pixel_shares(pixels: npt.NDArray[np.int64], target: TargetSpec) -> list[dict[str, Any]]:
    """Share of each class among the pixels that count."""
    counted = pixels[:, : target.num_classes].copy()
    if target.ignore_index is not None and target.ignore_index < target.num_classes:
        counted[:, target.ignore_index] = 0
    total = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    shares = counted / total
    return [
        {"name": name} | {split: float(shares[s, c]) if c < 256 else 0.0 for s, split in enumerate(SPLITS)}
        for c, name in enumerate(target.class_names)
    ]


def masks_with(counted: MaskCounts, target: TargetSpec) -> list[dict[str, Any]]:
    """Number of masks in each split that have pixels of each class."""
    return [
        {"name": name} | {split: int(counted.masks[s, c]) if c < 256 else 0 for s, split in enumerate(SPLITS)}
        for c, name in enumerate(target.class_names)
    ]
