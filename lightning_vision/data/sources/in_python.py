"""Data that are objects in Python become a table: its images are spooled, and the table is written once."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.sources.cells import as_text, is_missing
from lightning_vision.data.sources.columns import USUAL_COLUMNS
from lightning_vision.data.sources.memory import spool_one, write_once
from lightning_vision.data.sources.spooled import image_folder, own_folder
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import TargetKind


def settings_of(data: Any, base: str | None = None) -> dict[str, Any]:
    """Return the settings of ``data=table`` that read an object.

    Args:
        data: A pair of images and targets; a list of images, or an array ``(N, ...)`` of them; a data frame, whose
            image columns hold paths, encoded bytes, Pillow images, arrays, tensors or mappings with ``path`` or
            ``bytes``, and whose other columns hold text, numbers, or lists of text (sets of labels); or a Hugging Face
            Dataset or DatasetDict.
        base: Where images and table are written; None = the user's cache folder.

    Raises:
        ConfigError: It is none of these.
        DataError: An image is none.
    """
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ConfigError("data is no pair", given=f"a tuple of {len(data)}", expected="(images, targets)")
        images, targets = data
        # A matrix of yes and no has a column for each label in the table, which have to be named.
        flags = {"data.target": _names_of_flags(targets)} if _is_matrix(targets) else {}
        return {"data.path": table_of(images, targets, base=base)} | flags
    if is_dataset(data):
        from lightning_vision.data.sources.huggingface import settings_of_dataset

        return settings_of_dataset(data, base)
    if hasattr(data, "columns") and hasattr(data, "__getitem__") and hasattr(data, "shape"):
        # Relative paths start where Python does, not where the table is written.
        return {"data.path": table_of_frame(data, base), "data.root": os.getcwd()}
    if isinstance(data, list) or getattr(data, "ndim", 0) == 4:  # images alone
        return {"data.path": write_table({"image": _spooled(data, "image", base)}, base)}
    raise ConfigError(
        "data is nothing that can be read",
        given=type(data).__name__,
        expected="the name of an option, images, a pair (images, targets), a data frame, or a Hugging Face dataset",
    )


def is_dataset(data: Any) -> bool:
    """Tell a Hugging Face dataset, or a mapping of them by split, without importing the library."""
    return type(data).__module__.partition(".")[0] == "datasets"


def table_of_frame(frame: Any, base: str | None = None) -> str:
    """Return the path of a table of a data frame (pandas, or anything that has ``columns`` and gives them by name).

    Columns that hold something else than images, text and numbers are left out, with a printed note.

    Raises:
        ConfigError: Two columns have one name.
        DataError: That is so of a column with a usual name, which is read unless another one is named.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise ConfigError("the data frame has two columns of one name", given=", ".join(names))
    columns = {}
    for name, key in zip(names, frame.columns, strict=True):
        values = list(frame[key])
        first = next((value for value in values if not is_missing(value)), None)
        try:
            columns[name] = _spooled(values, name, base) if _is_picture(first) else list(as_text(values))
        except DataError as error:
            message = f"column {name}, {error.summary}"
            if name.strip().lower() in USUAL_COLUMNS:
                raise DataError(message, given=error.given, expected=error.expected) from error
            given = "" if error.given is None else f" ({error.given})"
            print(f"note: the data frame is read without {message}{given}")
    return write_table(columns, base)


def table_of(
    images: Sequence[Any], targets: Sequence[Any], split: Sequence[str] | None = None, base: str | None = None
) -> str:
    """Return the path of a table of images and targets, written once under a digest of its content.

    Args:
        images: As ``spool`` takes them.
        targets: Labels (text or integers); sets of labels: lists, tuples or sets of text or of integers, or one array
            ``(N, C)`` of 1 or true, 0 or false, and 255 or NaN (unknown), whose columns are named 0, 1, ...; or masks:
            arrays ``(H, W)`` of class ids, Pillow images or paths.
        split: train, val or test for each image, or None.
        base: Where the table and the images are written. None = the user's cache folder.

    Raises:
        ConfigError: Columns of different length, or labels, sets of labels and masks mixed.
        DataError: An image or a mask is none, or a value of an array ``(N, C)`` says neither yes nor no.
    """
    for name, column in (("targets", targets), ("split", split)):
        if column is not None and len(column) != len(images):
            raise ConfigError(f"{name} and images differ in length", given=f"{len(column)} and {len(images)}")
    columns = {"image": _spooled(images, "image", base)}
    if _is_matrix(targets):
        columns |= _flags(targets)
    else:
        kinds = Counter(_kind(target) for target in targets)
        if len(kinds) > 1:
            mixed = " and ".join(f"{_WORDS[kind]}s" for kind in kinds)
            given = ", ".join(f"{count} {_WORDS[kind]}s" for kind, count in kinds.items())
            raise ConfigError(f"targets mix {mixed}", given=given)
        kind = next(iter(kinds), "label")
        texts = _spooled(targets, kind, base) if kind == "mask" else list(as_text(targets, lists_of_ids=True))
        columns[kind] = texts
    if split is not None:
        columns["split"] = [str(name) for name in split]
    return write_table(columns, base)


def write_table(columns: Mapping[str, Sequence[str]], base: str | None) -> str:
    """Write text columns of one length as ``<base>/tables/<digest>.tsv``, and return its path.

    The suffix says what divides the columns: it would be guessed from the header of a ``.csv``, and names of columns
    may hold any character.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return write_named(text.getvalue().encode("utf-8", "surrogateescape"), "tsv", base)


def write_named(data: bytes, suffix: str, base: str | None) -> str:
    """Write a table once, as ``<base>/tables/<digest>.<suffix>``, and return its path."""
    digest = hashlib.blake2b(data, digest_size=20).hexdigest()
    return write_once(os.path.join(own_folder(base, "tables"), f"{digest}.{suffix}"), data)


def _spooled(values: Iterable[Any], column: str, base: str | None) -> list[str]:
    folder = image_folder(base, column)
    paths = []
    for row, value in enumerate(values, start=1):
        try:
            paths.append("" if is_missing(value) else spool_one(value, folder))
        except DataError as error:
            raise DataError(f"row {row}: {error.summary}", given=error.given, expected=error.expected) from error
    return paths


def _is_picture(value: Any) -> bool:
    """True for what only an image can be; paths as text may also be labels, and stay as they are."""
    if isinstance(value, Mapping):
        return not {"bytes", "path"}.isdisjoint(value)
    if isinstance(value, bytes | bytearray | memoryview | os.PathLike) or hasattr(value, "getbands"):
        return True
    return getattr(value, "ndim", 0) >= 2


_WORDS: dict[TargetKind, str] = {"label": "label", "labels": "set", "mask": "mask"}


def _kind(target: Any) -> TargetKind:
    if isinstance(target, list | tuple | set | frozenset) or getattr(target, "ndim", None) == 1:
        return "labels"
    if isinstance(target, str):
        return "mask" if is_image_name(os.path.basename(target)) else "label"
    return "label" if isinstance(target, int | np.integer) or getattr(target, "ndim", None) == 0 else "mask"


def _is_matrix(targets: Any) -> bool:
    return getattr(targets, "ndim", None) == 2


def _names_of_flags(targets: Any) -> list[str]:
    return [str(label) for label in range(targets.shape[1])]


def _flags(targets: Any) -> dict[str, list[str]]:
    """The columns of a matrix of yes and no, as text."""
    cells = np.asarray(targets)
    known: dict[float, str] = {1: "1", 0: "0", 255: ""}
    columns = {}
    for label, name in enumerate(_names_of_flags(targets)):
        column = cells[:, label].tolist()
        columns[name] = ["" if is_missing(cell) else known.get(cell, "?") for cell in column]
        if "?" in columns[name]:
            row = columns[name].index("?")
            raise DataError(
                f"targets: row {row + 1}, label {label} says neither yes nor no",
                given=column[row],
                expected="an array (N, C) of 1 or true, 0 or false, and 255 or NaN (unknown)",
            )
    return columns
