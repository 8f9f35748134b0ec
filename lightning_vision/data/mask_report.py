"""What ``check`` says of masks: values that are no class, shapes that do not fit, pixels of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.data.mask_values import MaskScan
from lightning_vision.errors import listed
from lightning_vision.types import SPLITS, TargetSpec

if TYPE_CHECKING:
    from lightning_vision.data.report import Report


def check_masks(index: SampleIndex, scan: MaskScan, headers: list[Header | None], report: Report) -> None:
    """Add what is wrong with the masks to the report, and the share of pixels of each class."""
    known = {problem.message for problem in report.problems}
    for _, message in scan.errors:
        if message not in known and not message.endswith(": no such file"):
            report.problems.append(Problem("error", message))
    for row, image in enumerate(headers):
        height, width = scan.size[row].tolist()
        if image is None or not height or _fits(height, width, image):
            continue
        mask = read_header(index.mask_path(row))  # the mask may have an orientation of its own, which is rare
        if not _fits(mask.height, mask.width, image):
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
    class_of = _class_of_value(target, scan.one_bit)
    allowed = class_of >= 0
    if target.ignore_index is not None:
        allowed[target.ignore_index] = True
        class_of[target.ignore_index] = -1
    for row in np.flatnonzero((scan.present & ~allowed).any(axis=1)).tolist():
        values = np.flatnonzero(scan.present[row] & ~allowed)
        report.problems.append(
            Problem("error", f"{index.mask_path(row)}: mask values that are no class: {listed(values, 10)}")
        )
    report.classes = _pixel_shares(scan.counts, class_of, target)
    unseen = [c["name"] for c in report.classes if not c["train"]]
    if unseen and report.counts["train"]:
        report.problems.append(Problem("warning", f"classes without a pixel in train: {listed(unseen, 10)}"))


def _fits(height: int, width: int, header: Header) -> bool:
    """True if the mask, scaled to the image, is off by one pixel at most, of the coarser of both."""
    off_height = abs(height * header.width / width - header.height)
    off_width = abs(width * header.height / height - header.width)
    return off_height <= max(header.height / height, 1) or off_width <= max(header.width / width, 1)


def _class_of_value(target: TargetSpec, one_bit: bool) -> npt.NDArray[np.int64]:
    """Class id of each of the 256 values, -1 for none."""
    class_of = np.full(256, -1, np.int64)
    if target.mask_values == "binary":
        class_of[[0, 255]] = [0, 1]
        if one_bit:
            class_of[1] = 1
    else:
        class_of[: min(target.num_classes, 256)] = np.arange(min(target.num_classes, 256))
    return class_of


def _pixel_shares(
    counts: npt.NDArray[np.int64], class_of: npt.NDArray[np.int64], target: TargetSpec
) -> list[dict[str, Any]]:
    pixels = np.stack([counts[:, class_of == c].sum(axis=1) for c in range(target.num_classes)])
    total = np.maximum(pixels.sum(axis=0), 1)
    return [
        {"name": name} | {split: float(pixels[c, s] / total[s]) for s, split in enumerate(SPLITS)}
        for c, name in enumerate(target.class_names)
    ]
