"""The report of ``check``: everything about the data that can be known before training, all problems at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np

from lightning_vision.config import instantiate
from lightning_vision.data.geometry import infer_geometry
from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import Problem, SampleIndex, Severity
from lightning_vision.data.mask_report import check_masks
from lightning_vision.data.mask_values import scan_masks
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import Source
from lightning_vision.data.threads import available_cores
from lightning_vision.errors import DataError, VisionError, listed
from lightning_vision.types import SPLITS, Geometry, TargetKind, TargetSpec


@dataclass
class Report:
    """What was found.

    Args:
        origin: Where the data come from.
        counts: Number of samples of each split.
        target: What is predicted, or None.
        classes: Per class a dict with ``name`` and, for train, val and test, the number of images (labels) or the
            share of all pixels that count, 0 to 1 (masks).
        geometry: What would be inferred, or None if it cannot be.
        sizes: Number of images of each ``"height x width"``, after EXIF orientation.
        channels: Number of images of each number of channels.
        formats: Number of images of each file format.
        problems: Errors, warnings and notes.
    """

    origin: str
    counts: dict[str, int]
    target: TargetSpec | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    geometry: Geometry | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if nothing was found that stops a run."""
        return not any(problem.severity == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        data = asdict(self)
        data["target"] = None if self.target is None else self.target.to_dict()
        data["channels"] = {str(k): v for k, v in self.channels.items()}
        return data | {"ok": self.ok}


def check_data(config: Mapping[str, Any]) -> Report:
    """Check the data of a composed config (plain data): the target is the one that the decoder needs.

    Raises:
        ConfigError: A setting with which nothing can be read at all.
        DataError: The table or folder cannot be read at all.
    """
    from lightning_vision.signatures import class_constants

    wanted = cast(TargetKind, class_constants(config["decoder"]["_target_"])["output"])
    source = cast(Source, instantiate(config["data"]))
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    index = source.read(wanted, config["seed"], strict=False, preprocessing=preprocessing)
    return check_index(index, preprocessing, config["image_size"])


def check_index(
    index: SampleIndex, preprocessing: Preprocessing, image_size: int | Sequence[int] | None = None
) -> Report:
    """Read every image header and every mask of an index that was read with ``strict=False``."""
    counts: dict[str, int] = {str(name): count for name, count in index.counts().items()}
    report = Report(index.origin, counts, index.target, problems=list(index.problems))
    headers = _headers(index, preprocessing, report)
    if len(index):  # that there are none is a problem already
        try:
            report.geometry = infer_geometry(index, preprocessing, image_size)
        except VisionError as error:
            report.problems.append(Problem("error", str(error)))
    if index.label is not None and index.target is not None:
        report.classes = _label_counts(index, index.target)
    elif index.mask is not None:
        scan = scan_masks(index.mask, np.arange(len(index), dtype=np.int64), index.split)
        check_masks(index, scan, headers, report)
    if len(index) and not counts["train"]:
        report.problems.append(Problem("error", "there are no samples in train: nothing can be learned"))
    if index.target is not None and counts["train"] and not counts["val"]:
        report.problems.append(Problem("warning", "there are no samples in val: nothing tells which epoch was best"))
    return report


def _headers(index: SampleIndex, preprocessing: Preprocessing, report: Report) -> list[Header | None]:
    def read(row: int) -> Header | str:
        try:
            header, *_ = (read_header(column[row]) for column in index.images)
            return header
        except DataError as error:
            return error.summary

    headers: list[Header | None] = []
    unreadable = []
    sizes: Counter[str] = Counter()
    channels: Counter[int] = Counter()
    formats: Counter[str] = Counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        for found in pool.map(read, range(len(index))):
            if isinstance(found, str):
                unreadable.append(found)
                headers.append(None)
                continue
            headers.append(found)
            sizes[f"{found.height} x {found.width}"] += 1
            channels[found.num_channels] += 1
            formats[found.format] += 1
    severity: Severity = "warning" if preprocessing.on_bad_image == "skip" else "error"
    # Missing files are one problem already, found while the index was read.
    report.problems += [Problem(severity, text) for text in unreadable if not text.endswith(": no such file")]
    report.sizes, report.channels, report.formats = dict(sizes.most_common()), dict(channels), dict(formats)
    return headers


def _label_counts(index: SampleIndex, target: TargetSpec) -> list[dict[str, Any]]:
    assert index.label is not None
    per_split = [np.bincount(index.label[index.split == s], minlength=target.num_classes) for s in range(len(SPLITS))]
    return [
        {"name": name} | {split: int(per_split[s][c]) for s, split in enumerate(SPLITS)}
        for c, name in enumerate(target.class_names)
    ]


def render(report: Report, limit: int = 20) -> str:
    """Return the report as text; at most ``limit`` problems of a kind are written out, the rest is counted."""
    lines = [report.origin, ""]
    lines += ["images   " + ", ".join(f"{name} {count}" for name, count in report.counts.items())]
    if report.sizes:
        sizes = listed((f"{size} ({count})" for size, count in report.sizes.items()), 4)
        lines.append(f"size     {sizes}  (height x width)")
        names = {1: "grey", 2: "grey + alpha", 3: "colour", 4: "colour + alpha"}
        lines.append("channels " + ", ".join(f"{names.get(c, c)} ({n})" for c, n in sorted(report.channels.items())))
        lines.append("format   " + ", ".join(f"{name} ({count})" for name, count in report.formats.items()))
    if report.geometry is not None:
        g = report.geometry
        lines.append(f"network  {g.height} x {g.width}, {g.num_channels} channels")
    if report.target is not None:
        t = report.target
        ignored = "" if t.ignore_index is None else f", {t.ignore_index} is ignored"
        kind = "one label an image" if t.kind == "label" else f"masks, values are {t.mask_values}{ignored}"
        lines.append(f"target   {kind}; {t.num_classes} classes")
    if report.classes:
        lines += ["", *_table(report.classes)]
    for severity, title in (("error", "ERRORS"), ("warning", "WARNINGS"), ("note", "NOTES")):
        messages = [problem.message for problem in report.problems if problem.severity == severity]
        if messages:
            lines += ["", f"{title} ({len(messages)})"]
            lines += ["- " + message.replace("\n", "\n  ") for message in messages[:limit]]
            if len(messages) > limit:
                lines.append(f"… and {len(messages) - limit} more")
    lines += ["", "The data can be trained on." if report.ok else "The data cannot be trained on as they are."]
    return "\n".join(lines)


def _table(classes: list[dict[str, Any]], limit: int = 50) -> list[str]:
    def text(value: int | float) -> str:
        return f"{value:.2%}" if isinstance(value, float) else str(value)

    rows = [["class", *SPLITS]] + [[c["name"], *(text(c[s]) for s in SPLITS)] for c in classes[:limit]]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [row[0].ljust(widths[0]) + "".join(f"  {row[i].rjust(widths[i])}" for i in (1, 2, 3)) for row in rows]
    return lines + ([f"… and {len(classes) - limit} more classes"] if len(classes) > limit else [])
