"""The report of ``check``: everything about the data that can be known before training, all problems at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vision.data.duplicate_report import check_duplicates
from lightning_vision.data.geometry import infer_geometry, training_geometry
from lightning_vision.data.image_scan import ImageScan, scan_images
from lightning_vision.data.index import FurtherTarget, Problem, SampleIndex, Severity
from lightning_vision.data.mask_report import check_masks, count_masks
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, VisionError, listed
from lightning_vision.reports.files import whole_file
from lightning_vision.types import SPLITS, Geometry, TargetKind, TargetSpec

TASK_OF_KIND: dict[TargetKind, str] = {"label": "classification", "labels": "multilabel", "mask": "segmentation"}


@dataclass
class FurtherReport:
    """What a further output predicts.

    Args:
        target: The classes.
        classes: As in ``Report``.
        unknown: As in ``Report``.
    """

    target: TargetSpec
    classes: list[dict[str, Any]]
    unknown: dict[str, int]


@dataclass
class Report:
    """What was found.

    Args:
        origin: Where the data come from.
        counts: Number of samples of each split.
        target: What is predicted, or None.
        task: Name of the task, or None.
        classes: Per class a dict with ``name`` and, for train, val and test, the number of images that have it (labels
            and sets of labels) or the share of all pixels that count, 0 to 1 (masks).
        masks: As ``classes``, the number of masks that have each class; empty where there are no masks.
        unknown: For train, val and test, the number of images of none of the classes (labels), or of labels of which
            nobody knows (sets of labels).
        further: What further outputs predict, by their names.
        geometry: What would be inferred, or None if it cannot be.
        train_geometry: What training images are brought to, or None if it is not known.
        standardize_image: The setting: ``encoder``, ``imagenet1k``, or None for pixels in [0, 1].
        sizes: Number of images of each ``"height x width"``, after EXIF orientation, the most frequent first.
        channels: Number of images of each number of channels.
        formats: Number of images of each file format.
        duplicates: Pictures that are there more than once. Each is a dict with ``exact`` (the same bytes, or only the
            same picture), and, for each of its samples, ``images`` (the path, or one for each input), ``splits`` and,
            where there are any, ``labels``. None if they were not looked for.
        problems: Errors, warnings and notes.
    """

    origin: str
    counts: dict[str, int]
    target: TargetSpec | None = None
    task: str | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    masks: list[dict[str, Any]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    further: dict[str, FurtherReport] = field(default_factory=dict)
    geometry: Geometry | None = None
    train_geometry: Geometry | None = None
    standardize_image: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    duplicates: list[dict[str, Any]] | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing was found that stops a run."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        data["target"] = None if self.target is None else self.target.to_dict()
        data["further"] = {
            name: asdict(found) | {"target": found.target.to_dict()} for name, found in self.further.items()
        }
        data["channels"] = {str(k): v for k, v in self.channels.items()}
        return data | {"ok": self.ok}

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def write(self, path: Path) -> None:
        """Write the JSON to a file, which appears whole or not at all.

        Raises:
            DataError: The folder cannot be written.
        """
        with whole_file(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")


def check_index(
    index: SampleIndex,
    preprocessing: Preprocessing,
    image_size: int | Sequence[int] | None = None,
    quick: bool = False,
    task: str | None = None,
) -> Report:
    """Decode every image and read every mask of an index that was read with ``strict=False``.

    Args:
        index: The samples, with the problems that were found so far.
        preprocessing: Its settings.
        image_size: The root setting: pixels of both sides, or ``[height, width]``, or None.
        quick: Of images, read headers alone: damaged pixels and duplicates are not looked for.
        task: Name of the task; None = the usual one of the target.
    """
    counts: dict[str, int] = {str(name): count for name, count in index.counts().items()}
    report = Report(index.origin, counts, index.target, problems=list(index.problems))
    report.task = None if index.target is None else task or TASK_OF_KIND[index.target.kind]
    report.standardize_image = preprocessing.standardize_image
    try:
        preprocessing.require_unlabelled(index.target, [found.target for found in index.further_targets.values()])
    except ConfigError as error:
        report.problems.append(Problem("error", str(error)))
    unreadable: Severity = "error" if preprocessing.on_bad_image == "error" else "warning"
    scan = scan_images(index, preprocessing, quick)
    report.sizes = dict(scan.sizes.most_common())
    report.channels, report.formats = dict(sorted(scan.channels.items())), dict(scan.formats.most_common())
    if len(index):  # that there are none is a problem already
        try:
            report.geometry = infer_geometry(index, preprocessing, image_size)
            report.train_geometry = training_geometry(report.geometry, preprocessing)
        except VisionError as error:
            report.problems.append(Problem("error", str(error)))
        if not counts["train"]:
            report.problems.append(Problem("error", "there are no samples in train: nothing can be learned"))
    if index.target is not None and counts["train"] and not counts["val"]:
        report.problems.append(Problem("warning", "there are no samples in val: nothing tells which epoch was best"))
    main = index.main_labels
    for name, further in index.further_targets.items():
        found = FurtherReport(further.target, *class_counts(index, further))
        report.further[name] = found
        report.problems += _imbalance(found.classes, f"output {name}: ", further.labels is None)
    if main is not None:
        report.classes, report.unknown = class_counts(index, main)
        report.problems += _imbalance(report.classes, "", main.labels is None)
    elif index.mask is not None:
        counted = count_masks(index.mask, index.split, index.target, preprocessing.num_processes)
        check_masks(index, counted, scan.headers, report, unreadable)
    if quick:
        message = "quick=true: headers alone were read; damaged images and duplicates were not looked for"
        report.problems.append(Problem("note", message))
    else:
        check_duplicates(index, scan, report, preprocessing.num_processes)
    # Missing files are one problem already where they were found while the index was read.
    told = any("do not exist" in problem.message for problem in index.problems)
    damaged = [message for _, message in scan.errors if not (told and message.endswith(": no such file"))]
    report.problems += _nearly_black(scan)
    report.problems += [Problem(unreadable, message) for message in damaged]
    if damaged and unreadable == "error":
        count = "the image" if len(damaged) == 1 else f"the {len(damaged)} images"
        message = f"preprocessing.on_bad_image=skip leaves out {count} that cannot be read; blank makes them black"
        report.problems.append(Problem("note", message))
    return report


def _nearly_black(scan: ImageScan) -> list[Problem]:
    """Warn of 16-bit files that use the lowest of their 16 bits alone: of 12-bit data the eye would see nothing."""
    if scan.thumbnails is None:
        return []
    deep = np.array([header is not None and header.bits == 16 for header in scan.headers], np.bool_)
    brightest = int(scan.thumbnails[deep].max(initial=0))
    if not deep.any() or brightest >= 16:
        return []
    message = (
        f"{int(deep.sum())} images of 16 bits are nearly black: the brightest has about {brightest + 1} of 256 levels. "
        "16 bits are taken as 0 to 65535; scale 12-bit data to that range (times 16)"
    )
    return [Problem("warning", message)]


def _imbalance(classes: Sequence[Mapping[str, Any]], prefix: str, one_each: bool) -> list[Problem]:
    """Warn of classes with hardly an image to learn from; that a class has none in train is found elsewhere.

    Args:
        classes: The images of each.
        prefix: What stands before each warning.
        one_each: An image has one class, and not a set of labels.
    """
    problems = []
    what = "classes" if one_each else "labels"
    single = [c["name"] for c in classes if c["train"] == 1]
    if single:
        problems.append(Problem("warning", f"{prefix}{what} with one image in train: {listed(single, 10)}"))
    total = sum(c["train"] for c in classes)
    # Of ten classes 1 % of all images, of a thousand 0.01 %: a tenth of what each would have if all had as many.
    few = total / max(len(classes), 1) / 10
    rare = sorted((c["train"], c["name"]) for c in classes if 1 < c["train"] < few)
    if rare:
        shown = listed((f"{name} ({count}, {count / total:.2%})" for count, name in rare), 10)
        message = f"{prefix}rare {what} in train: {shown}"
        if one_each:
            message += ". Accuracy hides them; see val/accuracy_macro"
        problems.append(Problem("warning", message))
    return problems


def class_counts(index: SampleIndex, found: FurtherTarget) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The images of each class in each split, and what is unknown there; no entry for a split without any."""
    size = found.target.num_classes
    per_split, unknown = [], {}
    for split in SPLITS:
        rows = index.rows(split)
        if found.labels is not None:
            per_split.append(found.labels.counts(rows)[0])
        else:
            assert found.label is not None
            per_split.append(np.bincount(found.label[rows], minlength=size))
        if count := found.unknown(rows):
            unknown[str(split)] = count
    names = enumerate(found.target.class_names)
    classes = [{"name": name} | {split: int(per_split[s][c]) for s, split in enumerate(SPLITS)} for c, name in names]
    return classes, unknown
