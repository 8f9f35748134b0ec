"""The report of ``check`` as one page of text, however many problems there are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_vision.data.report import Report
from lightning_vision.types import SPLITS, TargetSpec

_CHANNELS = {1: "grey", 2: "grey + alpha", 3: "colour", 4: "colour + alpha"}
_STANDARDIZED = {
    "encoder": "standardised as the encoder's weights were trained",
    "imagenet1k": "standardised by ImageNet's mean and deviation",
    None: "not standardised: pixels in [0, 1]",
}
_NUMBERS = re.compile(r"\d+")


def render(report: Report, limit: int = 8) -> str:
    """Return the report as text.

    Args:
        report: What was found.
        limit: Problems of each severity that are written out; the rest is counted. Problems of many files that differ
            in the file alone are one.
    """
    lines = [report.origin, "", *_overview(report)]
    if report.classes:
        lines += ["", *_table(report.classes)]
    for name, further in report.further.items():
        title = f"output {name}: {_target(further.target)}" + _unknown(further.target, further.unknown, "; ")
        lines += ["", title, *_table(further.classes)]
    for severity, title in (("error", "ERRORS"), ("warning", "WARNINGS"), ("note", "NOTES")):
        messages = [problem.message for problem in report.problems if problem.severity == severity]
        if not messages:
            continue
        shown = _joined(messages)
        lines += ["", f"{title} ({len(messages)})"]
        lines += ["- " + message.replace("\n", "\n  ") for message in shown[:limit]]
        if len(shown) > limit:
            lines.append(f"… and {len(shown) - limit} more of other kinds (report=FILE.json lists all)")
    lines += ["", "The data can be trained on." if report.ok else "The data cannot be trained on as they are."]
    return "\n".join(lines)


def _overview(report: Report) -> list[str]:
    rows = [("images", ", ".join(f"{name} {count}" for name, count in report.counts.items()))]
    if report.sizes:
        rows.append(("size", _sizes(report.sizes)))
        rows.append(("channels", ", ".join(f"{_CHANNELS.get(c, c)} ({n})" for c, n in report.channels.items())))
        rows.append(("format", ", ".join(f"{name} ({count})" for name, count in report.formats.items())))
    if report.target is not None:
        rows.append(("target", _target(report.target)))
        if report.unknown:
            rows.append(("unknown", _unknown(report.target, report.unknown)))
    if report.task is not None:
        rows.append(("task", report.task))
    if report.geometry is not None:
        g = report.geometry
        several = f"{g.num_inputs} images of " if g.num_inputs > 1 else ""
        channels = "1 channel" if g.num_channels == 1 else f"{g.num_channels} channels"
        how = _STANDARDIZED.get(report.standardize_image, report.standardize_image)
        rows.append(("input", f"{several}{g.height} x {g.width}, {channels}, {how}"))
        train = report.train_geometry
        if train is not None and train != g:
            rows.append(("training", f"{train.height} x {train.width}, from which the augmentation cuts the input"))
    if report.duplicates is not None:
        count = len(report.duplicates)
        rows.append(("copies", "none" if not count else f"{count} picture{'s' * (count > 1)} more than once"))
    return [f"{name:<8} {text}" for name, text in rows]


def _sizes(sizes: Mapping[str, int]) -> str:
    """All sizes if they are few, else their range and the most frequent."""
    if len(sizes) <= 4:
        return ", ".join(f"{size} ({count})" for size, count in sizes.items()) + "  (height x width)"

    def pixels(size: str) -> int:
        height, width = size.split(" x ")
        return int(height) * int(width)

    extremes = f"{min(sizes, key=pixels)} to {max(sizes, key=pixels)}"
    most = next(iter(sizes))
    return f"{len(sizes)} sizes (height x width), {extremes}, most often {most} ({sizes[most]})"


def _target(target: TargetSpec) -> str:
    ignored = "" if target.ignore_index is None else f", {target.ignore_index} is ignored"
    kinds = {
        "label": "one label an image",
        "labels": "any number of labels an image",
        "mask": f"masks, values are {target.mask_values}{ignored}",
    }
    return f"{kinds[target.kind]}; {target.num_classes} {'labels' if target.kind == 'labels' else 'classes'}"


def _unknown(target: TargetSpec, unknown: Mapping[str, int], before: str = "") -> str:
    """How many images are of none of the classes, or how many labels of images nobody knows; nothing if none."""
    if not unknown:
        return ""
    what = "labels of images" if target.kind == "labels" else "images of none of the classes"
    return f"{before}{', '.join(f'{split} {count}' for split, count in unknown.items())} {what}"


def _table(classes: Sequence[Mapping[str, Any]], limit: int = 20) -> list[str]:
    """Counts or shares of each class; of many classes, the most and the least frequent in train."""

    def text(value: int | float) -> str:
        return f"{value:.2%}" if isinstance(value, float) else str(value)

    shown, cut = list(classes), len(classes) > limit
    if cut:
        shown.sort(key=lambda c: -c["train"])
        shown = shown[: limit // 2] + shown[-(limit // 2) :]
    rows = [["class", *SPLITS]] + [[c["name"], *(text(c[s]) for s in SPLITS)] for c in shown]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [row[0].ljust(widths[0]) + "".join(f"  {row[i].rjust(widths[i])}" for i in (1, 2, 3)) for row in rows]
    if cut:
        lines.insert(1 + limit // 2, f"… {len(classes) - limit} classes between these, in the order of train …")
    return lines


def _joined(messages: Sequence[str], examples: int = 3) -> list[str]:
    """Join what differs in the file (and in numbers) alone; what is said of the data as a whole comes first."""
    single: list[str] = []
    by_reason: dict[str, list[tuple[str, str]]] = {}
    for message in messages:
        path, colon, reason = message.partition(": ")
        if colon and os.path.isabs(path) and "\n" not in message:
            by_reason.setdefault(_NUMBERS.sub("", reason), []).append((path, reason))
        else:
            single.append(message)
    joined = []
    for files in sorted(by_reason.values(), key=len, reverse=True):
        if len(files) <= examples:
            single += [f"{path}: {reason}" for path, reason in files]
            continue
        more = [f"… and {len(files) - examples} more"]
        joined.append("\n".join([f"{len(files)} files: {files[0][1]}", *(p for p, _ in files[:examples]), *more]))
    return single + joined
