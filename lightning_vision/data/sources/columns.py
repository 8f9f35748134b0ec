"""Which column of a table is what: named by a setting, or found by its name and its first cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.sources.base import wrong_kind
from lightning_vision.data.sources.tabular import Table
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.overrides import override
from lightning_vision.types import TargetKind

IMAGE_COLUMNS = (
    "image", "path", "file", "filename", "filepath", "file_name", "file_path", "image_path", "image_file", "img",
    "images",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "y", "class_name", "label_name")
_SET_COLUMNS = ("labels", "tags", "concepts", "attributes", "classes", "categories")
TARGET_COLUMNS: dict[TargetKind, tuple[str, ...]] = {
    "label": _LABEL_COLUMNS,
    "labels": tuple(dict.fromkeys((*_SET_COLUMNS, *_LABEL_COLUMNS))),
    "mask": ("mask", "masks", "mask_path", "segmentation", "label_mask", "segmentation_mask", "annotation", "target"),
}
SPLIT_COLUMNS = ("split", "subset", "partition")
USUAL_COLUMNS = frozenset((*IMAGE_COLUMNS, *TARGET_COLUMNS["label"], *TARGET_COLUMNS["mask"], *SPLIT_COLUMNS))


@dataclass(frozen=True)
class TargetColumns:
    """The columns of a target.

    Args:
        names: One column; with ``flags`` one for each label.
        flags: Their cells say yes or no.
    """

    names: tuple[str, ...]
    flags: bool = False


def image_columns(table: Table, image: str | None, inputs: Sequence[str] | None) -> list[str]:
    """The columns of images, the main one first.

    Raises:
        ConfigError: A named column is not there, or there is none with a usual name.
        DataError: The first row holds no names of columns.
    """
    if inputs is None:
        return [_image_column(table, image)]
    names = [existing(table, "inputs", name) for name in inputs]
    if image is not None or not names or len(set(names)) < len(names):
        given = f"data.inputs={listed(names)}" + (f", data.image={image}" if image is not None else "")
        raise ConfigError(
            "data.inputs names the columns of images, each once, in place of data.image",
            given=given,
            expected=f"some of {listed(table.header)}",
            override=["data.inputs=null", "data.image=null"],
        )
    return names


def _image_column(table: Table, image: str | None) -> str:
    if image is not None:
        return existing(table, "image", image)
    found = usual(table.header, IMAGE_COLUMNS)
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


def target_columns(
    table: Table,
    wanted: TargetKind,
    target: str | Sequence[str] | None,
    separator: str,
    image: str,
    others: Sequence[str | None],
) -> TargetColumns:
    """The columns of the main target.

    Args:
        table: The table.
        wanted: What they hold.
        target: The setting.
        separator: What stands between the labels of a cell.
        image: The main column of images.
        others: Columns that are named for something else.

    Raises:
        ConfigError: They are not there, or hold something else.
    """
    if target is not None and not isinstance(target, str):
        several = flag_columns(table, target)
        if wanted == "labels":
            return TargetColumns(several, flags=True)
        if len(several) > 1:
            raise ConfigError(
                f"{table.path}: several columns of yes and no are a set of labels, and one "
                f"{'mask' if wanted == 'mask' else 'label'} an image is wanted",
                given=f"data.target=[{','.join(several)}]",
                override=["task=multilabel", override("data.target", several[0])],
            )
        target = several[0]
    if target is not None:
        return TargetColumns((_of_kind(table, wanted, existing(table, "target", target)),))
    found = found_target(table, wanted, separator, [image])
    if found is not None:
        return TargetColumns((found,))
    other: TargetKind = "label" if wanted == "mask" else "mask"
    for candidate in all_usual(table.header, TARGET_COLUMNS[other] + TARGET_COLUMNS[wanted]):
        if candidate != image:
            return TargetColumns((_of_kind(table, wanted, candidate),))
    known = (image, *others, *SPLIT_COLUMNS)
    rest = typed_targets(table, wanted, [image]) or [name for name in table.header if name not in known]
    raise ConfigError(
        f"{table.path}: no column with a usual name for {'masks' if wanted == 'mask' else 'labels'}",
        given=f"columns {listed(table.header)}",
        expected=listed(TARGET_COLUMNS[wanted]),
        override=override("data.target", rest[0] if rest else "COLUMN"),
    )


def flag_columns(table: Table, names: Sequence[str], argument: str = "target") -> tuple[str, ...]:
    """The named columns of yes and no.

    Raises:
        ConfigError: One is not there, or is named twice, or there is none.
    """
    found = tuple(existing(table, argument, str(name), names) for name in names)
    if not found or len(set(found)) < len(found):
        raise ConfigError(
            f"data.{argument} names columns of yes and no, each once",
            given=f"data.{argument}=[{','.join(found)}]",
            expected=f"some of {listed(table.header)}",
            override=f"data.{argument}=null",
        )
    return found


def found_target(table: Table, wanted: TargetKind, separator: str, taken: Sequence[str]) -> str | None:
    """The column with a usual name, or else of a fitting type, that holds what is wanted; None if there is none.

    Where sets of labels are wanted, columns go first in whose first rows there are some.
    """
    candidates = [
        name
        for name in all_usual(table.header, TARGET_COLUMNS[wanted])
        if name not in taken and table.kind(name) in (_kind(wanted), None)
    ]
    if wanted == "labels":
        # In the order of what is found where one label is wanted: whoever asks what that column holds gets this one.
        by_label = [name for name in all_usual(table.header, _LABEL_COLUMNS + _SET_COLUMNS) if name in candidates]
        candidates = [*(name for name in by_label if table.holds_sets(name, separator)), *candidates]
    if candidates:
        return candidates[0]
    others = all_usual(table.header, TARGET_COLUMNS["label" if wanted == "mask" else "mask"] + TARGET_COLUMNS[wanted])
    if any(candidate not in taken for candidate in others):
        return None  # a column that is probably meant, and holds something else
    typed = typed_targets(table, wanted, taken)
    return typed[0] if len(typed) == 1 else None


def typed_targets(table: Table, wanted: TargetKind, taken: Sequence[str]) -> list[str]:
    """Columns whose type says that they hold what is wanted."""
    names = [name for name in table.header if name not in taken]
    return [name for name in names if (table.holds_pictures(name) if wanted == "mask" else table.class_names(name))]


def further_column(
    table: Table,
    output: str,
    column: str | Sequence[str] | None,
    kind: TargetKind,
    separator: str,
    taken: Sequence[str],
) -> TargetColumns:
    """The columns of a further output.

    Args:
        table: The table.
        output: Its name.
        column: Its columns as they were named, or None.
        kind: What they hold: ``label`` or ``labels``.
        separator: What stands between the labels of a cell.
        taken: Columns that hold something else, and are not found for it.

    Raises:
        ConfigError: They are not there, hold something else, or a mask is wanted.
    """
    if kind == "mask":
        raise ConfigError(
            f"output {output}: a mask is the main target, and further outputs are labels",
            expected="one output with masks at most, as the first",
        )
    if column is not None and not isinstance(column, str):
        names = list(map(str, column))
        wrong = [name for name in names if name not in table.header]
        if wrong or not names or len(set(names)) < len(names) or (kind == "label" and len(names) > 1):
            raise ConfigError(
                f"{table.path}: output {output} has no such columns",
                given=listed(names),
                expected=("one of " if kind == "label" else "each once, some of ") + listed(table.header),
                nearest=nearest(wrong[0], table.header) if wrong else None,
            )
        if kind == "labels":
            return TargetColumns(tuple(names), flags=True)
        column = names[0]
    if column is None:
        column = found_target(table, kind, separator, taken)
        if column is None:
            raise ConfigError(
                f"{table.path}: output {output} names no column, and none with a usual name is left",
                given=f"columns {listed(table.header)}, of which {listed(taken)} are taken",
                expected=listed(TARGET_COLUMNS[kind]),
            )
    if column not in table.header:
        raise ConfigError(
            f"{table.path}: output {output} has no such column",
            given=column,
            expected=listed(table.header),
            nearest=nearest(column, table.header),
        )
    if table.kind(column) == "mask":
        raise ConfigError(
            f"{table.path}: output {output} is to be labels, and its column holds masks", given=f"column {column}"
        )
    return TargetColumns((column,))


def _kind(wanted: TargetKind) -> TargetKind:
    """What ``Table.kind`` calls it: whether labels are sets is another question."""
    return "mask" if wanted == "mask" else "label"


def _of_kind(table: Table, wanted: TargetKind, name: str) -> str:
    found = table.kind(name)
    if found is not None and found != _kind(wanted):
        rest = [c for c in all_usual(table.header, TARGET_COLUMNS[wanted]) if c != name]
        fitting = [override("data.target", c) for c in rest if table.kind(c) == _kind(wanted)]
        raise wrong_kind(wanted, found, table.path, f"column {name} of {listed(table.header)}", fitting)
    return name


def usual(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The first column with one of these names."""
    return next(iter(all_usual(header, names)), None)


def all_usual(header: Sequence[str], names: Sequence[str]) -> list[str]:
    """Columns with one of these names in any case, in the order of ``names``."""
    lower = {name.lower(): name for name in reversed(header)}
    return [lower[name] for name in names if name in lower]


def existing(table: Table, argument: str, name: str, among: Sequence[str] = ()) -> str:
    """The name of a column that a setting names; ``among``: all that it names, where these are several.

    Raises:
        ConfigError: There is none of this name.
    """
    if str(name) in table.header:
        return str(name)
    near = nearest(str(name), table.header)
    if argument == "inputs":
        way = f"data.inputs=[{','.join(table.header[:2])}]"
    elif near is None and argument in ("group", "split"):
        way = f"data.{argument}=null"  # any other column would be taken without a word, and mean nothing
    elif among and near is not None:
        way = override(f"data.{argument}", [near if other == name else str(other) for other in among])
    else:
        way = override(f"data.{argument}", near or table.header[0])
    raise ConfigError(
        f"{table.path}: data.{argument} is no column of the table",
        given=name,
        expected=listed(table.header),
        nearest=near,
        override=way,
    )
