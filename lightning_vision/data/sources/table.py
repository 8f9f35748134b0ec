"""A table that names images and their targets: CSV, TSV or Parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

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
from lightning_vision.data.sources.fill import COPIED, check_fill_value, with_constants, without_images
from lightning_vision.data.sources.rows import DROPPED, Rows
from lightning_vision.data.sources.tabular import PARQUET_SUFFIXES, Table
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
_SPOOLED = re.compile(r"/.*/([0-9a-f]{40}\.[a-z0-9]+)", re.DOTALL)  # see sources/memory.py
SPLIT_COLUMNS = ("split", "subset", "partition")
USUAL_COLUMNS = frozenset((*IMAGE_COLUMNS, *TARGET_COLUMNS["label"], *TARGET_COLUMNS["mask"], *SPLIT_COLUMNS))


class TableSource(Source):
    """Images and targets from a CSV, TSV or Parquet file with named columns.

    A column of labels is told from one of masks by its cells: image file names are masks. A cell without text is a
    missing value; words such as ``nan`` are text. In a Parquet file images are paths, bytes, or structs of both, as
    Hugging Face's library writes them; bytes become files, once, below ``preprocessing.lazy_cache_dir``.

    Args:
        path: The table.
        image: Column of image paths. null = found among the usual names.
        inputs: Columns of images, where each sample has several (two views, before and after); in place of ``image``.
            A mask belongs to the first.
        target: Column of labels or of mask paths. null = found among the usual names.
        split: Column of train, val and test (or their synonyms). null = found, or else drawn by the fractions.
        group: Column of what must stay together in a random split (a patient, a video). With a split column: groups
            that are in several splits are named.
        root: Folder where relative paths start. null = the folder of the table.
        val_fraction: Share of val where there is no split column; where a split column has no val, drawn from train.
        test_fraction: Share of test where there is no split column.
        class_names: Names in the order of their ids: a list, or a file with one a line. null = found in the data.
        num_classes: Number of classes, compared with the data. null = found in the data.
        ignore_index: Mask value left out of loss and metrics.
        mask_values: ``index``: the value is the class id; ``binary``: 0 and 255; ``threshold``: from 128 on is
            foreground; ``color``: the colour names the class; ``auto``: found in the files.
        colors: Colours of the classes, ``#rrggbb``, in the order of their ids. null = found in the training masks, with
            ``preprocessing.infer_image_num_classes``.
    """

    def __init__(
        self,
        path: str,
        image: str | None = None,
        inputs: list[str] | None = None,
        target: str | None = None,
        split: str | None = None,
        group: str | None = None,
        root: str | None = None,
        val_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        test_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        class_names: str | list[str] | None = None,
        num_classes: Annotated[int | None, Between(2, 65536)] = None,
        ignore_index: Annotated[int | None, Between(0, 255)] = None,
        mask_values: Literal["auto", "index", "binary", "threshold", "color"] = "auto",
        colors: list[str] | None = None,
    ) -> None:
        self.path = path
        self.image = image
        self.inputs = inputs
        self.target = target
        self.split = split
        self.group = group
        self.root = root
        self.settings = TargetSettings(
            class_names, num_classes, ignore_index, mask_values, val_fraction, test_fraction, colors
        )

    def read(
        self, wanted: TargetKind | None, seed: int, strict: bool = True, preprocessing: Preprocessing = DEFAULTS
    ) -> SampleIndex:
        """Read the table; see ``Source.read``."""
        check_fill_value(preprocessing)
        table = self._open(preprocessing)
        problems = Problems(strict)
        for note in table.notes:
            problems.note(note)
        images = self._image_columns(table)
        target = None if wanted is None else self._target_column(table, wanted, images[0])
        split = self._split_column(table)
        group = None if self.group is None else _existing(table, "group", self.group)
        chosen = list(dict.fromkeys(name for name in (*images, target, split, group) if name is not None))
        columns, number, ragged = table.columns(chosen)
        if ragged:
            problems.error(
                DataError(
                    f"{table.path}: {len(ragged)} rows do not have the {len(table.header)} cells of the header",
                    given=listed(ragged, 5),
                    expected=f"{len(table.header)} cells: {listed(table.header)}; a delimiter in a cell needs quotes",
                )
            )
        rows = Rows(table, dict(zip(chosen, columns, strict=True)), number, PackedStrings.from_strings(()))
        strategy = preprocessing.missing_value_strategy
        rows = rows.complete([name for name in (split, group) if name is not None], False, problems)
        rows = rows.complete([] if target is None else [target], strategy == "drop_row", problems, [DROPPED])
        if split is not None:
            rows = rows.with_splits(split, problems)
        root = os.path.abspath(os.path.join(table.folder, os.path.expanduser(self.root or "")))
        masks = target if wanted == "mask" else None
        paths = {name: _absolute(rows.cells[name], root) for name in (*images, masks) if name is not None}
        rows = replace(rows, name=_joined([rows.cells[name] for name in images]), cells=rows.cells | paths)
        absent, filled = None, False
        if strategy in COPIED:
            rows, absent = without_images(rows, images, strategy)
        elif strategy == "fill_with_const":
            rows, filled = with_constants(rows, images, masks, target, root, preprocessing, problems)
        else:
            rows = rows.complete(images, strategy == "drop_row", problems, [DROPPED])
        settings = self.settings
        named = None if target is None or wanted != "label" else table.class_names(target)
        if named is not None and settings.class_names is None:
            settings = replace(settings, class_names=named)
        raw = RawSamples(
            image=rows.cells[images[0]],
            name=rows.name,
            target=None if target is None else rows.cells[target],
            kind=wanted,
            split=rows.split,
            row=rows.number,
            origin=table.path,
            folder=table.folder,
            further=tuple(rows.cells[name] for name in images[1:]),
            group=None if group is None else rows.cells[group],
            place=lambda row: table.places([row]),
            by_name=len(images) > 1 or filled,
        )
        if absent is not None:
            raw.copies = lambda final: absent.order(rows, target, final, problems)
        return build_index(raw, settings, seed, problems, preprocessing)

    def _open(self, preprocessing: Preprocessing) -> Table:
        if not self.path:
            raise ConfigError("data=table needs the path of a table", override="data.path=FILE.csv")
        if self.path.lower().endswith(PARQUET_SUFFIXES):
            from lightning_vision.data.sources.parquet import ParquetTable

            return ParquetTable(self.path, preprocessing.lazy_cache_dir)
        return Delimited(self.path)

    def _image_columns(self, table: Table) -> list[str]:
        if self.inputs is None:
            return [self._image_column(table)]
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

    def _image_column(self, table: Table) -> str:
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
            typed = [name for name in table.header if table.holds_pictures(name)]
            if len(typed) == 1:
                return typed[0]
            images = typed or [name for name in table.header if table.kind(name) == "mask"]
            raise ConfigError(
                f"{table.path}: no column with a usual name for images",
                given=f"columns {listed(table.header)}",
                expected=listed(IMAGE_COLUMNS),
                override=override("data.image", (images or table.header)[0]),
            )
        return found

    def _target_column(self, table: Table, wanted: TargetKind, image: str) -> str:
        if self.target is not None:
            name = _existing(table, "target", self.target)
            return self._of_kind(table, wanted, name)
        for candidate in _all_usual(table.header, TARGET_COLUMNS[wanted]):
            if candidate != image and table.kind(candidate) in (wanted, None):
                return candidate
        other: TargetKind = "mask" if wanted == "label" else "label"
        for candidate in _all_usual(table.header, TARGET_COLUMNS[other] + TARGET_COLUMNS[wanted]):
            if candidate != image:
                return self._of_kind(table, wanted, candidate)
        typed = [n for n in table.header if (table.class_names(n) if wanted == "label" else table.holds_pictures(n))]
        if len(typed := [name for name in typed if name != image]) == 1:
            return typed[0]
        known = (image, self.split, self.group, *SPLIT_COLUMNS)
        rest = typed or [name for name in table.header if name not in known]
        raise ConfigError(
            f"{table.path}: no column with a usual name for {wanted}s",
            given=f"columns {listed(table.header)}",
            expected=listed(TARGET_COLUMNS[wanted]),
            override=override("data.target", rest[0] if rest else "COLUMN"),
        )

    def _of_kind(self, table: Table, wanted: TargetKind, name: str) -> str:
        found = table.kind(name)
        if found is not None and found != wanted:
            rest = [c for c in _all_usual(table.header, TARGET_COLUMNS[wanted]) if c != name]
            fitting = [override("data.target", c) for c in rest if table.kind(c) == wanted]
            raise wrong_kind(wanted, found, table.path, f"column {name} of {listed(table.header)}", fitting)
        return name

    def _split_column(self, table: Table) -> str | None:
        if self.split is not None:
            return _existing(table, "split", self.split)
        return _usual(table.header, SPLIT_COLUMNS)


def _usual(header: Sequence[str], names: Sequence[str]) -> str | None:
    return next(iter(_all_usual(header, names)), None)


def _all_usual(header: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns with one of these names in any case, in the order of ``names``."""
    lower = {name.lower(): name for name in reversed(header)}
    return [lower[name] for name in names if name in lower]


def _existing(table: Table, argument: str, name: str) -> str:
    if str(name) in table.header:
        return str(name)
    near = nearest(str(name), table.header)
    if argument == "inputs":
        way = f"data.inputs=[{','.join(table.header[:2])}]"
    elif near is None and argument in ("group", "split"):
        way = f"data.{argument}=null"  # any other column would be taken without a word, and mean nothing
    else:
        way = override(f"data.{argument}", near or table.header[0])
    raise ConfigError(
        f"{table.path}: data.{argument} is no column of the table",
        given=name,
        expected=listed(table.header),
        nearest=near,
        override=way,
    )


def _joined(columns: Sequence[PackedStrings]) -> PackedStrings:
    """What tells a row apart: the paths of all of its images."""
    names = [_portable(column) for column in columns]
    return names[0] if len(names) == 1 else PackedStrings.from_strings(map(" + ".join, zip(*names, strict=True)))


def _portable(paths: PackedStrings) -> PackedStrings:
    """Take the folder from images that were spooled: it differs from machine to machine, their names do not."""
    first = paths.data[paths.offsets[:-1][~paths.empty]]
    if not (first == ord("/")).any():
        return paths
    return PackedStrings.from_strings(m[1] if (m := _SPOOLED.fullmatch(path)) else path for path in paths)


def _absolute(paths: PackedStrings, root: str) -> PackedStrings:
    """Resolve paths; an empty cell stays empty."""

    def resolve(path: str) -> str:
        if path.startswith("~"):
            path = os.path.expanduser(path)
        full = os.path.join(root, path)
        return os.path.normpath(full) if "./" in path or "//" in path else full

    return PackedStrings.from_strings(resolve(path) if path else "" for path in paths)
