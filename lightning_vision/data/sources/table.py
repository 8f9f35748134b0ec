"""A table that names images and their targets: CSV or TSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import (
    DEFAULTS,
    Problems,
    RawSamples,
    Source,
    TargetSettings,
    build_index,
    wrong_kind,
)
from lightning_vision.data.sources.delimited import Delimited
from lightning_vision.data.splits import split_id, unknown_split
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.overrides import override
from lightning_vision.types import Between, TargetKind

IMAGE_COLUMNS = (
    "image", "path", "file", "filename", "filepath", "file_name", "file_path", "image_path", "image_file", "img",
    "images",
)  # fmt: skip
TARGET_COLUMNS: dict[TargetKind, tuple[str, ...]] = {
    "label": ("label", "labels", "class", "target", "category", "y", "class_name", "label_name"),
    "mask": ("mask", "masks", "mask_path", "segmentation", "label_mask", "segmentation_mask", "annotation", "target"),
}
SPLIT_COLUMNS = ("split", "subset", "partition")


class TableSource(Source):
    """Images and targets from a CSV or TSV file with a header.

    A column of labels is told from one of masks by its cells: image file names are masks.

    Args:
        path: The table.
        image: Column of image paths. null = found among the usual names.
        inputs: Columns of images, where each sample has several (two views, before and after); in place of ``image``.
            A mask belongs to the first.
        target: Column of labels or of mask paths. null = found among the usual names.
        split: Column of train, val and test (or their synonyms). null = found, or else drawn by the fractions.
        root: Folder where relative paths start. null = the folder of the table.
        val_fraction: Share of val where there is no split column; where a split column has no val, drawn from train.
        test_fraction: Share of test where there is no split column.
        class_names: Names in the order of their ids: a list, or a file with one a line. null = found in the data.
        num_classes: Number of classes, compared with the data. null = found in the data.
        ignore_index: Mask value left out of loss and metrics.
        mask_values: ``index``: the value is the class id; ``binary``: 0 and 255; ``auto``: found in the files.
    """

    def __init__(
        self,
        path: str,
        image: str | None = None,
        inputs: list[str] | None = None,
        target: str | None = None,
        split: str | None = None,
        root: str | None = None,
        val_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        test_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        class_names: str | list[str] | None = None,
        num_classes: Annotated[int | None, Between(2, 65536)] = None,
        ignore_index: Annotated[int | None, Between(0, 255)] = None,
        mask_values: Literal["auto", "index", "binary"] = "auto",
    ) -> None:
        self.path = path
        self.image = image
        self.inputs = inputs
        self.target = target
        self.split = split
        self.root = root
        self.settings = TargetSettings(class_names, num_classes, ignore_index, mask_values, val_fraction, test_fraction)

    def read(
        self, wanted: TargetKind | None, seed: int, strict: bool = True, preprocessing: Preprocessing = DEFAULTS
    ) -> SampleIndex:
        """Read the table; see ``Source.read``."""
        if not self.path:
            raise ConfigError("data=table needs the path of a table", override="data.path=FILE.csv")
        table = Delimited(self.path)
        problems = Problems(strict)
        head = table.head(20)
        image, *others = self._image_columns(table, head)
        target = None if wanted is None else self._target_column(table, head, wanted, image)
        split = self._split_column(table)
        chosen = [name for name in (image, *others, target, split) if name is not None]
        columns, row, ragged = table.columns(list(dict.fromkeys(chosen)))
        if ragged:
            problems.error(
                DataError(
                    f"{table.path}: {len(ragged)} rows do not have the {len(table.header)} cells of the header",
                    given=listed(ragged, 5),
                    expected=f"{len(table.header)} cells: {listed(table.header)}; a delimiter in a cell needs quotes",
                )
            )
        by_name = dict(zip(dict.fromkeys(chosen), columns, strict=True))
        keep = self._complete(table.path, by_name, row, problems)
        if keep is not None:
            by_name = {name: column.take(keep) for name, column in by_name.items()}
            row = row[keep]
        split_ids, keep = self._splits(table.path, by_name.get(split or ""), row, problems)
        if keep is not None and split_ids is not None:
            by_name = {name: column.take(keep) for name, column in by_name.items()}
            row, split_ids = row[keep], split_ids[keep]
        base = os.path.dirname(table.path)
        root = os.path.abspath(os.path.join(base, os.path.expanduser(self.root))) if self.root else base
        targets = None if target is None else by_name[target]
        raw = RawSamples(
            image=_absolute(by_name[image], root),
            name=_joined([by_name[name] for name in (image, *others)]),
            target=_absolute(targets, root) if targets is not None and wanted == "mask" else targets,
            kind=wanted,
            split=split_ids,
            row=row,
            origin=table.path,
            folder=base,
            further=tuple(_absolute(by_name[name], root) for name in others),
        )
        return build_index(raw, self.settings, seed, problems, preprocessing)

    def _image_columns(self, table: Delimited, head: list[list[str]]) -> list[str]:
        if self.inputs is None:
            return [self._image_column(table, head)]
        names = [_existing(table, "inputs", name) for name in self.inputs]
        if self.image is not None or not names or len(set(names)) < len(names):
            given = f"data.inputs={listed(names)}" + (f", data.image={self.image}" if self.image is not None else "")
            raise ConfigError(
                "data.inputs names the columns of images, each once, in place of data.image",
                given=given,
                expected=f"some of {listed(table.header)}",
                override=["data.inputs=null", "data.image=null"],
            )
        return names

    def _image_column(self, table: Delimited, head: list[list[str]]) -> str:
        if self.image is not None:
            return _existing(table, "image", self.image)
        found = _usual(table.header, IMAGE_COLUMNS)
        if found is None and any(is_image_name(os.path.basename(cell)) for cell in table.header):
            raise DataError(
                f"{table.path}: the first row holds data, not the names of the columns",
                given=listed(table.header),
                expected="a header such as image,label",
            )
        if found is None:
            images = [name for name in table.header if _holds_images(table, head, name)]
            raise ConfigError(
                f"{table.path}: no column with a usual name for images",
                given=f"columns {listed(table.header)}",
                expected=listed(IMAGE_COLUMNS),
                override=override("data.image", (images or table.header)[0]),
            )
        return found

    def _target_column(self, table: Delimited, head: list[list[str]], wanted: TargetKind, image: str) -> str:
        if self.target is not None:
            name = _existing(table, "target", self.target)
            return self._of_kind(table, head, wanted, name)
        for candidate in _all_usual(table.header, TARGET_COLUMNS[wanted]):
            if candidate != image and (not head or _holds_images(table, head, candidate) == (wanted == "mask")):
                return candidate
        other: TargetKind = "mask" if wanted == "label" else "label"
        for candidate in _all_usual(table.header, TARGET_COLUMNS[other] + TARGET_COLUMNS[wanted]):
            if candidate != image:
                return self._of_kind(table, head, wanted, candidate)
        rest = [name for name in table.header if name not in (image, self.split) and name not in SPLIT_COLUMNS]
        raise ConfigError(
            f"{table.path}: no column with a usual name for {wanted}s",
            given=f"columns {listed(table.header)}",
            expected=listed(TARGET_COLUMNS[wanted]),
            override=override("data.target", rest[0] if rest else "COLUMN"),
        )

    def _of_kind(self, table: Delimited, head: list[list[str]], wanted: TargetKind, name: str) -> str:
        found: TargetKind = "mask" if _holds_images(table, head, name) else "label"
        if head and found != wanted:
            rest = [c for c in _all_usual(table.header, TARGET_COLUMNS[wanted]) if c != name]
            fitting = [f"data.target={c}" for c in rest if _holds_images(table, head, c) == (wanted == "mask")]
            raise wrong_kind(wanted, found, table.path, f"column {name} of {listed(table.header)}", fitting)
        return name

    def _split_column(self, table: Delimited) -> str | None:
        if self.split is not None:
            return _existing(table, "split", self.split)
        return _usual(table.header, SPLIT_COLUMNS)

    @staticmethod
    def _complete(
        origin: str, columns: dict[str, PackedStrings], row: npt.NDArray[np.int64], problems: Problems
    ) -> npt.NDArray[np.int64] | None:
        """Rows without an empty cell, or None if that is all."""
        empty = np.zeros(len(row), np.bool_)
        for name, column in columns.items():
            holes = np.diff(column.offsets) == 0
            if holes.any():
                numbers = row[np.flatnonzero(holes)]
                problems.error(
                    DataError(
                        f"{origin}: {len(numbers)} cells of column {name} are empty",
                        given=f"row {listed(numbers.tolist(), 10)}",
                        expected="a value in every row",
                    )
                )
            empty |= holes
        return np.flatnonzero(~empty) if empty.any() else None

    @staticmethod
    def _splits(
        origin: str, column: PackedStrings | None, row: npt.NDArray[np.int64], problems: Problems
    ) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.int64] | None]:
        """Split ids, and the rows whose split is known, or None if that is all."""
        if column is None:
            return None, None
        known: dict[str, int | None] = {}
        ids = np.zeros(len(column), np.uint8)
        unknown: dict[str, int] = {}
        for i, value in enumerate(column):
            if value not in known:
                known[value] = split_id(value)
            part = known[value]
            if part is None:
                unknown.setdefault(value, i)
                ids[i] = 255
            else:
                ids[i] = part
        for value, i in unknown.items():
            problems.error(unknown_split(value, f"{origin}: row {row[i]}"))
        return ids, np.flatnonzero(ids != 255) if unknown else None


def _usual(header: Sequence[str], names: Sequence[str]) -> str | None:
    return next(iter(_all_usual(header, names)), None)


def _all_usual(header: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns with one of these names in any case, in the order of ``names``."""
    lower = {name.lower(): name for name in reversed(header)}
    return [lower[name] for name in names if name in lower]


def _existing(table: Delimited, argument: str, name: str) -> str:
    if str(name) in table.header:
        return str(name)
    near = nearest(str(name), table.header)
    raise ConfigError(
        f"{table.path}: data.{argument} is no column of the table",
        given=name,
        expected=listed(table.header),
        nearest=near,
        override=override(f"data.{argument}", near or table.header[0])
        if argument != "inputs"
        else f"data.inputs=[{','.join(table.header[:2])}]",
    )


def _holds_images(table: Delimited, head: list[list[str]], name: str) -> bool:
    """True if all filled cells of the first rows are names of image files."""
    at = table.header.index(name)
    cells = [record[at].strip() for record in head if len(record) > at and record[at].strip()]
    return bool(cells) and all(is_image_name(os.path.basename(cell)) for cell in cells)


def _joined(columns: Sequence[PackedStrings]) -> PackedStrings:
    """What tells a row apart: the paths of all of its images."""
    return columns[0] if len(columns) == 1 else PackedStrings.from_strings(map(" + ".join, zip(*columns, strict=True)))


def _absolute(paths: PackedStrings, root: str) -> PackedStrings:
    def resolve(path: str) -> str:
        if path.startswith("~"):
            path = os.path.expanduser(path)
        full = os.path.join(root, path)
        return os.path.normpath(full) if "./" in path or "//" in path else full

    return PackedStrings.from_strings(resolve(path) for path in paths)
