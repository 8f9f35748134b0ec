"""What becomes of rows without an image: ``preprocessing.missing_value_strategy``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_vision.data.geometry import first_readable
from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.memory import write_picture
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.sources.rows import DROPPED, Rows
from lightning_vision.data.sources.spooled import own_folder
from lightning_vision.errors import ConfigError, DataError, VisionError
from lightning_vision.types import SPLITS

COPIED = {"bfill": "the next row", "ffill": "the previous row", "fill_with_mode": "the most frequent row"}
_FILE = "preprocessing.fill_value=IMAGE.png"
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass
class Absent:
    """Rows that repeat another row of their split, image and target, once the splits are known.

    Args:
        strategy: ``bfill``, ``ffill`` or ``fill_with_mode``.
        before: int64 ``(M,)``, ascending: how many rows with an image stand before each.
        split: uint8 ``(M,)``, the split that the table gives each; None: a random split, in which each goes where the
            row that it repeats goes.
        number: int64 ``(M,)``, the number of each in the table.
        columns: The columns of images.
    """

    strategy: str
    before: npt.NDArray[np.int64]
    split: npt.NDArray[np.uint8] | None
    number: npt.NDArray[np.int64]
    columns: Sequence[str]

    def donors(
        self, given: npt.NDArray[np.uint8] | None, split: npt.NDArray[np.uint8], contents: PackedStrings
    ) -> npt.NDArray[np.int64]:
        """Find the row that each repeats, int64 ``(M,)``; -1 where there is none.

        Args:
            given: uint8 ``(N,)`` split of the rows with an image in the table, or None for a random split.
            split: uint8 ``(N,)`` split in the end; differs from ``given`` where val was drawn from train.
            contents: What tells rows with the same image and target, for the most frequent one: of train where the
                split is random.
        """
        found = np.full(len(self.before), -1, np.int64)
        parts = range(1) if self.split is None else range(len(SPLITS))
        for part in parts:
            mine = np.arange(len(found)) if self.split is None else np.flatnonzero(self.split == part)
            if self.strategy == "fill_with_mode":
                rows = np.flatnonzero(split == part)
                if len(rows) and len(mine):
                    found[mine] = _most_frequent(rows, contents)
                continue
            rows = np.arange(len(split)) if given is None else np.flatnonzero(given == part)
            at = np.searchsorted(rows, self.before[mine]) - (self.strategy == "ffill")
            there = (at >= 0) & (at < len(rows))
            found[mine[there]] = rows[at[there]]
        return found

    def order(
        self, rows: Rows, targets: Sequence[str], split: npt.NDArray[np.uint8], problems: Problems
    ) -> npt.NDArray[np.int64]:
        """Return the rows of the whole table in their order, int64: those with an image, and those that are repeated.

        Args:
            rows: The rows with an image.
            targets: Columns of their targets.
            split: The split of each in the end.
            problems: Gets a note of what is repeated, and an error where there is nothing to repeat.
        """
        content = [*self.columns, *targets]
        texts = zip(*(rows.cells[name] for name in content), strict=True)
        contents = PackedStrings.from_strings(map("\0".join, texts if self.strategy == "fill_with_mode" else ()))
        donors = self.donors(rows.split, split, contents)
        setting = f"preprocessing.missing_value_strategy={self.strategy}"
        for none, numbers in ((True, self.number[donors < 0]), (False, self.number[donors >= 0])):
            if not len(numbers):
                continue
            where = rows.table.places(numbers.tolist())
            what = f"{rows.table.path}: {len(numbers)} rows have no image in column {' or '.join(self.columns)}"
            if none:
                problems.error(
                    DataError(
                        f"{what}, and none with an image in their split could be {COPIED[self.strategy]}",
                        given=f"{where}; {setting}",
                        override=DROPPED,
                    )
                )
            else:
                problems.note(f"{what}; each repeats {COPIED[self.strategy]} of its split ({setting}): {where}")
        order = np.insert(np.arange(len(split), dtype=np.int64), self.before, donors)
        return order[order >= 0]


def without_images(rows: Rows, columns: Sequence[str], strategy: str) -> tuple[Rows, Absent | None]:
    """Take out the rows that lack an image; return the others, and what is to be put back (None: there are none)."""
    empty = np.logical_or.reduce([rows.cells[name].empty for name in columns])
    if not empty.any():
        return rows, None
    at = np.flatnonzero(empty)
    split = None if rows.split is None else rows.split[at]
    absent = Absent(strategy, at - np.arange(len(at)), split, rows.number[at], columns)
    return rows.take(~empty), absent


def _most_frequent(rows: npt.NDArray[np.int64], contents: PackedStrings) -> int:
    """The row whose content occurs most often; of several, the first in the table."""
    counts: Counter[int] = Counter()
    first: dict[int, int] = {}
    for row in rows.tolist():
        key = hash(contents[row])
        counts[key] += 1
        first.setdefault(key, row)
    return first[counts.most_common(1)[0][0]]


def check_fill_value(preprocessing: Preprocessing) -> None:
    """Refuse a fill value that nothing uses, none where one is needed, and one that is no grey value.

    Raises:
        ConfigError: With what to type.
    """
    strategy, value = preprocessing.missing_value_strategy, preprocessing.fill_value
    if (strategy == "fill_with_const") == (value is not None):
        if not isinstance(value, int) or 0 <= value <= 255:
            return
        raise ConfigError(
            "preprocessing.fill_value is no grey value",
            given=value,
            expected="0 (black) to 255 (white), or the path of an image",
            override=f"preprocessing.fill_value={min(max(value, 0), 255)}",
        )
    if value is None:
        raise ConfigError(
            "missing_value_strategy=fill_with_const needs preprocessing.fill_value",
            expected="a grey value, 0 (black) to 255 (white), or the path of an image",
            override="preprocessing.fill_value=0",
        )
    raise ConfigError(
        "preprocessing.fill_value is used by missing_value_strategy=fill_with_const alone",
        given=f"preprocessing.fill_value={value}, preprocessing.missing_value_strategy={strategy}",
        override=["preprocessing.missing_value_strategy=fill_with_const", "preprocessing.fill_value=null"],
    )


def with_constants(
    rows: Rows,
    columns: Sequence[str],
    masks: str | None,
    targets: Sequence[str],
    root: str,
    preprocessing: Preprocessing,
    problems: Problems,
) -> tuple[Rows, bool]:
    """Put a constant image wherever one is missing, and say whether one was.

    A grey value becomes a file of the size of the row's mask, or else of the first image of the column that can be
    read, with the channels of that image.

    Args:
        rows: With absolute paths.
        columns: The columns of images.
        masks: Column of masks, or None.
        targets: Columns of targets.
        root: Where a relative ``fill_value`` may also start.
        preprocessing: Says what is filled in.
        problems: Gets a note of what was filled, or an error, and the rows are left out: ``fill_value`` is a path that
            leads nowhere, or no image tells size and channels.
    """
    holes = np.logical_or.reduce([rows.cells[name].empty for name in columns])
    if not holes.any():
        return rows, False
    cells, value = dict(rows.cells), preprocessing.fill_value
    try:
        file = None if isinstance(value, int) else _fill_file(str(value), root)
        for name in columns:
            cells[name] = _filled(rows, name, masks, file, preprocessing)
    except VisionError as error:
        problems.error(error)
        return rows.take(~holes), False
    setting = f"preprocessing.missing_value_strategy=fill_with_const fill_value={value}"
    what = f"{rows.table.path}: {int(holes.sum())} rows have no image in column {' or '.join(columns)}"
    problems.note(f"{what}; they get a constant one ({setting}): {rows.places(holes)}")
    return replace(rows, cells=cells, name=_names_of_holes(rows, holes, targets)), True


def _filled(rows: Rows, name: str, masks: str | None, file: str | None, preprocessing: Preprocessing) -> PackedStrings:
    """Return a column of images, with ``file`` or a constant image in its empty cells.

    Raises:
        DataError: No image of the column can be read.
    """
    paths = list(rows.cells[name])
    empty = np.flatnonzero(rows.cells[name].empty).tolist()
    if file is not None or not empty:
        return PackedStrings.from_strings(path or str(file) for path in paths)
    if len(empty) == len(paths):
        raise DataError(
            f"{rows.table.path}: column {name} has no image at all, so nothing tells the size of a constant one",
            override=_FILE,
        )
    model = first_readable(filter(None, paths), f"{rows.table.path}, column {name}", _FILE)
    for i in empty:
        size = model if masks is None else _size_of_mask(rows.cells[masks][i], model)
        paths[i] = _constant(preprocessing, int(preprocessing.fill_value or 0), size, model)
    return PackedStrings.from_strings(paths)


def _size_of_mask(path: str, otherwise: Header) -> Header:
    try:
        return read_header(path)
    except DataError:
        return otherwise  # whoever reads the masks names it


def _names_of_holes(rows: Rows, holes: npt.NDArray[np.bool_], targets: Sequence[str]) -> PackedStrings:
    """Give each filled row a name of its own: by the constant image, all would be one row for the random split."""
    seen: Counter[str] = Counter()
    names = []
    labels = map(" ".join, zip(*(rows.cells[name] for name in targets), strict=True)) if targets else rows.name
    for name, hole, label in zip(rows.name, holes, labels, strict=True):
        if hole:
            seen[f"{name} {label}"] += 1
            name = f"{name} {label} without image {seen[f'{name} {label}']}"
        names.append(name)
    return PackedStrings.from_strings(names)


def _fill_file(value: str, root: str) -> str:
    tried = [os.path.abspath(os.path.expanduser(value)), os.path.join(root, os.path.expanduser(value))]
    for path in tried:
        if os.path.isfile(path):
            return path
    raise ConfigError(
        "preprocessing.fill_value is no file",
        given=value,
        expected="a grey value, or " + " or ".join(dict.fromkeys(tried)),
        override="preprocessing.fill_value=0",
    )


def _constant(preprocessing: Preprocessing, grey: int, size: Header, model: Header) -> str:
    folder = own_folder(preprocessing.lazy_cache_dir, os.path.join("images", "constant"))
    path = os.path.join(folder, f"grey{grey}-{size.height}x{size.width}x{model.num_channels}.png")
    if os.path.isfile(path):
        return path
    colour = (
        (grey,) * model.num_channels if model.num_channels in (1, 3) else (grey,) * (model.num_channels - 1) + (255,)
    )
    picture = Image.new(_MODES[model.num_channels], (size.width, size.height), colour if len(colour) > 1 else grey)
    return write_picture(picture, path)
