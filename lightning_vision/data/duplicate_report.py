"""What ``check`` says of pictures that are there more than once: above all, of those in two splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_vision.data.duplicates import Group, find_duplicates
from lightning_vision.data.image_scan import ImageScan
from lightning_vision.data.index import FurtherTarget, Problem, SampleIndex
from lightning_vision.types import SPLITS

if TYPE_CHECKING:
    from lightning_vision.data.report import Report

_SHOWN = 3  # groups that a warning names; the JSON report has all


def check_duplicates(index: SampleIndex, scan: ImageScan, report: Report, threads: int | None = None) -> None:
    """Add the pictures that are there more than once to the report, as data and as warnings.

    Args:
        index: The samples.
        scan: What their images hold, with thumbnails.
        report: Gets the groups and the warnings.
        threads: Threads that read; None = all cores.
    """
    groups = find_duplicates(index.images, scan, threads)
    report.duplicates = [_described(index, group) for group in groups]
    name = _short_names(index)
    for exact in (True, False):
        some = [group for group in groups if group.exact == exact]
        across = [group for group in some if len(_splits(index, group)) > 1]
        within = [group for group in some if len(_splits(index, group)) == 1]
        if across:
            report.problems.append(Problem("warning", _leak(index, across, exact, name)))
        if within:
            pictures = "1 picture is" if len(within) == 1 else f"{len(within)} pictures are"
            how = "the same file under several names" if exact else "saved again, resized, or next to equal"
            message = f"{pictures} more than once in one split ({how}); each copy counts\n{_pairs(within, name)}"
            report.problems.append(Problem("warning", message))
    for output, labels in _labels(index).items():
        torn = [group for group in groups if len({labels.key(row) for row in group.rows}) > 1]
        if torn:
            pictures = "1 picture has" if len(torn) == 1 else f"{len(torn)} pictures have"
            said = f"output {output}: " if output else ""
            text = _pairs(torn, lambda row, labels=labels: f"{name(row)} ({labels.text(row)})")  # type: ignore[misc]
            message = f"{said}{pictures} different labels in different files, of which one is probably wrong\n{text}"
            report.problems.append(Problem("warning", message))


def _labels(index: SampleIndex) -> dict[str, FurtherTarget]:
    """The labels of each output, those of the main one without a name."""
    main = index.main_labels
    return ({} if main is None else {"": main}) | dict(index.further_targets)


def _leak(index: SampleIndex, groups: Sequence[Group], exact: bool, name: Callable[[int], str]) -> str:
    """The warning of groups that straddle splits: how many rows of val and test are known from elsewhere."""
    seen = {split: 0 for split in SPLITS[1:]}
    groups = [replace(group, rows=_one_of_each_split_first(index, group.rows)) for group in groups]
    for group in groups:
        first = min(_splits(index, group))
        for row in group.rows:
            if index.split[row] > first:
                seen[SPLITS[index.split[row]]] += 1
    counts = " and ".join(f"{n} image{'s' * (n > 1)} of {split}" for split, n in seen.items() if n)
    verb = "is a copy" if sum(seen.values()) == 1 else "are copies"
    what = "a file" if exact else "a picture (saved again, resized, or next to equal)"
    trained = any(index.split[row] == 0 for group in groups for row in group.rows)
    where = "train" if trained else "another split"
    return (
        f"{counts} {verb} of {what} in {where}: scores will be too high. Remove the copies, or keep all of a picture "
        f"in one split\n{_pairs(groups, lambda row: f'{SPLITS[index.split[row]]}: {name(row)}')}"
    )


def _one_of_each_split_first(index: SampleIndex, rows: Sequence[int]) -> tuple[int, ...]:
    """Order rows so that those that are shown name each split, what is trained on first."""
    ordered = sorted(rows, key=lambda row: index.split[row])
    firsts = {int(index.split[row]): row for row in reversed(ordered)}
    shown = [firsts[split] for split in sorted(firsts)]
    return (*shown, *(row for row in ordered if row not in shown))


def _pairs(groups: Sequence[Group], name: Callable[[int], str]) -> str:
    lines = []
    for group in groups[:_SHOWN]:
        more = f" … and {len(group.rows) - 4} more" if len(group.rows) > 4 else ""
        lines.append(" = ".join(name(row) for row in group.rows[:4]) + more)
    if len(groups) > _SHOWN:
        lines.append(f"… and {len(groups) - _SHOWN} more pictures (report=FILE.json lists all)")
    return "\n".join(lines)


def _splits(index: SampleIndex, group: Group) -> set[int]:
    return {int(index.split[row]) for row in group.rows}


def _short_names(index: SampleIndex) -> Callable[[int], str]:
    """Names paths as the user knows them: from the folder of the data, where they are below it."""
    folder = index.origin if os.path.isdir(index.origin) else os.path.dirname(index.origin)
    start = os.path.join(os.path.abspath(folder), "") if folder else ""

    def name(row: int) -> str:
        return " + ".join(column[row].removeprefix(start) for column in index.images)

    return name


def _described(index: SampleIndex, group: Group) -> dict[str, Any]:
    """A group as plain data."""
    found: dict[str, Any] = {
        "exact": group.exact,
        "images": [[column[row] for column in index.images] for row in group.rows],
        "splits": [SPLITS[index.split[row]] for row in group.rows],
    }
    if len(index.images) == 1:
        found["images"] = [paths[0] for paths in found["images"]]
    for output, labels in _labels(index).items():
        found[f"labels {output}" if output else "labels"] = [labels.text(row) for row in group.rows]
    return found
