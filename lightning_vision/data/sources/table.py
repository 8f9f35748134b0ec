"""A table that names images and their targets: CSV, TSV or Parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.label_cells import has_lists
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import (
    DEFAULTS,
    NO_FURTHER,
    FurtherColumns,
    RawSamples,
    Source,
    TargetSettings,
    build_index,
)
from lightning_vision.data.sources.columns import (
    SPLIT_COLUMNS,
    TargetColumns,
    existing,
    flag_columns,
    found_target,
    further_column,
    image_columns,
    target_columns,
    usual,
)
from lightning_vision.data.sources.delimited import Delimited
from lightning_vision.data.sources.fill import COPIED, check_fill_value, with_constants, without_images
from lightning_vision.data.sources.labels import RawLabels
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.sources.rows import DROPPED, Rows
from lightning_vision.data.sources.tabular import PARQUET_SUFFIXES, Table
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.types import Between, TargetKind

_SPOOLED = re.compile(r"/.*/([0-9a-f]{40}\.[a-z0-9]+)", re.DOTALL)  # see sources/memory.py


class TableSource(Source):
    """Images and targets from a CSV, TSV or Parquet file with named columns.

    A column of labels is told from one of masks by its cells: image file names are masks. A cell without text is a
    missing value; words such as ``nan`` are text. Sets of labels are a column of names joined by ``separator`` (an
    empty cell is an empty set), a column of lists in a Parquet file, or a column of yes and no for each label. In a
    Parquet file images are paths, bytes, or structs of both, as Hugging Face's library writes them; bytes become files,
    once, below ``preprocessing.lazy_cache_dir``.

    Args:
        path: The table.
        image: Column of image paths. null = found among the usual names.
        inputs: Columns of images, where each sample has several (two views, before and after); in place of ``image``.
            A mask belongs to the first.
        target: Column of labels or of mask paths, or a list of columns, one for each label, with 1 or 0, true or false,
            yes or no (empty = unknown). null = found among the usual names.
        separator: What stands between the labels of a cell, where an image has any number of them.
        split: Column of train, val and test (or their synonyms). null = found, or else drawn by the fractions.
        group: Column of what must stay together in a random split (a patient, a video). With a split column: groups
            that are in several splits are named.
        root: Folder where relative paths start. null = the folder of the table.
        val_fraction: Share of val where there is no split column; where a split column has no val, drawn from train.
        test_fraction: Share of test where there is no split column.
        class_names: Names in the order of their ids: a list, or a file with one a line. null = found in the data.
        num_classes: Number of classes, compared with the data. null = found in the data.
        unknown: Labels that mean none of the classes, in any split (open-set recognition).
        label_map: From labels as they are written to class names: a map, or a file (JSON, YAML, or lines
            ``label,name``). Several labels may have one name.
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
        target: str | list[str] | None = None,
        separator: str = "|",
        split: str | None = None,
        group: str | None = None,
        root: str | None = None,
        val_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        test_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        class_names: str | list[str] | None = None,
        num_classes: Annotated[int | None, Between(2, 65536)] = None,
        unknown: list[str] | None = None,
        label_map: str | dict[str, str] | None = None,
        ignore_index: Annotated[int | None, Between(0, 255)] = None,
        mask_values: Literal["auto", "index", "binary", "threshold", "color"] = "auto",
        colors: list[str] | None = None,
    ) -> None:
        self.path = path
        self.image = image
        self.inputs = inputs
        self.target = target
        self.separator = str(separator)  # a number on the command line
        self.split = split
        self.group = group
        self.root = root
        self.settings = TargetSettings(
            class_names, num_classes, ignore_index, mask_values, val_fraction, test_fraction, colors, unknown, label_map
        )
        self._opened: Table | None = None

    def target_kind(self, wanted: TargetKind) -> TargetKind | None:
        """Look at the names of the columns and at their first cells; see ``Source.target_kind``."""
        self._opened = table = self._open()
        images = image_columns(table, self.image, self.inputs)
        if self.target is not None and not isinstance(self.target, str):
            several = flag_columns(table, self.target)
            if len(several) > 1:
                return wanted if wanted == "mask" else "labels"
            name: str | None = several[0]
        elif self.target is not None:
            name = existing(table, "target", self.target)
        else:
            name = found_target(table, wanted, self.separator, images)
            if name is None and wanted == "label":
                name = found_target(table, "labels", self.separator, images)
                return "labels" if name is not None and table.holds_sets(name, self.separator) else None
        if name is None:
            return None
        return "labels" if wanted == "label" and table.holds_sets(name, self.separator) else wanted

    def read(
        self,
        wanted: TargetKind | None,
        seed: int,
        strict: bool = True,
        preprocessing: Preprocessing = DEFAULTS,
        coverage: bool = True,
        further: FurtherColumns = NO_FURTHER,
    ) -> SampleIndex:
        """Read the table; see ``Source.read``."""
        check_fill_value(preprocessing)
        if not self.separator:
            raise ConfigError(
                "data.separator is empty", expected="what stands between labels", override="data.separator='|'"
            )
        table, self._opened = self._opened or self._open(), None
        table.base = preprocessing.lazy_cache_dir
        problems = Problems(strict)
        for note in table.notes:
            problems.note(note)
        images = image_columns(table, self.image, self.inputs)
        main = None
        if wanted is not None:
            main = target_columns(table, wanted, self.target, self.separator, images[0], (self.split, self.group))
        others = self._further(table, further, [*images, *(main.names if main is not None else ())])
        targets = [columns for columns in (main, *others.values()) if columns is not None]
        split = self._split_column(table)
        group = None if self.group is None else existing(table, "group", self.group)
        target_names = [name for columns in targets for name in columns.names]
        chosen = list(dict.fromkeys(name for name in (*images, *target_names, split, group) if name is not None))
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
        kinds = {name: kind for name, (_, kind, _) in further.items()}
        filled_in = [] if main is None or wanted is None else _never_empty(main, wanted, rows)
        filled_in += [name for output, found in others.items() for name in _never_empty(found, kinds[output], rows)]
        rows = rows.complete(list(dict.fromkeys(filled_in)), strategy == "drop_row", problems, [DROPPED])
        if split is not None:
            rows = rows.with_splits(split, problems)
        root = os.path.abspath(os.path.join(table.folder, os.path.expanduser(self.root or "")))
        masks = main.names[0] if main is not None and wanted == "mask" else None
        paths = {name: _absolute(rows.cells[name], root) for name in (*images, masks) if name is not None}
        rows = replace(rows, name=_joined([rows.cells[name] for name in images]), cells=rows.cells | paths)
        absent, filled = None, False
        if strategy in COPIED:
            rows, absent = without_images(rows, images, strategy)
        elif strategy == "fill_with_const":
            rows, filled = with_constants(rows, images, masks, target_names, root, preprocessing, problems)
        else:
            rows = rows.complete(images, strategy == "drop_row", problems, [DROPPED])
        raw = RawSamples(
            image=rows.cells[images[0]],
            name=rows.name,
            mask=None if masks is None else rows.cells[masks],
            labels=None if main is None or wanted is None or wanted == "mask" else self._labels(rows, wanted, main),
            split=rows.split,
            row=rows.number,
            origin=table.path,
            folder=table.folder,
            further=tuple(rows.cells[name] for name in images[1:]),
            group=None if group is None else rows.cells[group],
            place=lambda row: table.places([row]),
            by_name=len(images) > 1 or filled,
            further_labels=self._further_labels(rows, others, further),
        )
        if absent is not None:
            raw.copies = lambda final: absent.order(rows, target_names, final, problems)
        return build_index(raw, self.settings, seed, problems, preprocessing, coverage)

    def _open(self) -> Table:
        if not self.path:
            raise ConfigError("data=table needs the path of a table", override="data.path=FILE.csv")
        if self.path.lower().endswith(PARQUET_SUFFIXES):
            from lightning_vision.data.sources.parquet import ParquetTable

            return ParquetTable(self.path)
        return Delimited(self.path)

    def _split_column(self, table: Table) -> str | None:
        if self.split is not None:
            return existing(table, "split", self.split)
        return usual(table.header, SPLIT_COLUMNS)

    def _labels(self, rows: Rows, kind: TargetKind, columns: TargetColumns) -> RawLabels:
        cells = {name: rows.cells[name] for name in columns.names}
        names = None if columns.flags else rows.table.class_names(columns.names[0])
        return self.settings.labels(kind, cells, columns.flags, self.separator, names)

    def _further(self, table: Table, further: FurtherColumns, taken: Sequence[str]) -> dict[str, TargetColumns]:
        """The columns of each further output; those that are named go before those that are found."""
        found: dict[str, TargetColumns] = {}
        used = list(taken)
        for output, (column, kind, _) in sorted(further.items(), key=lambda item: item[1][0] is None):
            found[output] = further_column(table, output, column, kind, self.separator, used)
            used += found[output].names
        return {output: found[output] for output in further}

    def _further_labels(
        self, rows: Rows, columns: Mapping[str, TargetColumns], further: FurtherColumns
    ) -> dict[str, RawLabels]:
        found = {}
        for output, (_, kind, names) in further.items():
            of = columns[output]
            if names is None and not of.flags:
                names = rows.table.class_names(of.names[0])
            cells = {name: rows.cells[name] for name in of.names}
            found[output] = RawLabels(kind, cells, of.flags, self.separator, names)
        return found


def _never_empty(columns: TargetColumns, kind: TargetKind, rows: Rows) -> list[str]:
    """The columns in which an empty cell is a missing value: not an empty set, and no unknown yes or no."""
    if columns.flags or (kind == "labels" and not has_lists(rows.cells[columns.names[0]])):
        return []
    return list(columns.names)


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
