"""Data that are objects in Python become a table: its images are spooled, and the table is written once."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.sources.cells import as_text, is_missing
from lightning_vision.data.sources.memory import spool_one, write_once
from lightning_vision.data.sources.spooled import image_folder, own_folder
from lightning_vision.data.sources.table import USUAL_COLUMNS
from lightning_vision.errors import ConfigError, DataError


def settings_of(data: Any, base: str | None = None) -> dict[str, Any]:
    """Return the settings of ``data=table`` that read an object.

    Args:
        data: A pair of images and targets; a data frame, whose image columns hold paths, encoded bytes, Pillow images,
            arrays, tensors or mappings with ``path`` or ``bytes``; or a Hugging Face Dataset or DatasetDict.
        base: Where images and table are written; None = the user's cache folder.

    Raises:
        ConfigError: It is none of these.
        DataError: An image is none.
    """
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ConfigError("data is no pair", given=f"a tuple of {len(data)}", expected="(images, targets)")
        return {"data.path": table_of(*data, base=base)}
    if is_dataset(data):
        from lightning_vision.data.sources.huggingface import settings_of_dataset

        return settings_of_dataset(data, base)
    if hasattr(data, "columns") and hasattr(data, "__getitem__") and hasattr(data, "shape"):
        # Relative paths start where Python does, not where the table is written.
        return {"data.path": table_of_frame(data, base), "data.root": os.getcwd()}
    raise ConfigError(
        "data is nothing that can be read",
        given=type(data).__name__,
        expected="the name of an option, a pair (images, targets), a data frame, or a Hugging Face dataset",
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
        targets: Labels (text or integers), or masks: arrays ``(H, W)`` of class ids, Pillow images or paths.
        split: train, val or test for each image, or None.
        base: Where the table and the images are written. None = the user's cache folder.

    Raises:
        ConfigError: Columns of different length, or labels and masks mixed.
        DataError: An image or a mask is none.
    """
    for name, column in (("targets", targets), ("split", split)):
        if column is not None and len(column) != len(images):
            raise ConfigError(f"{name} and images differ in length", given=f"{len(column)} and {len(images)}")
    labels = [_is_label(target) for target in targets]
    if any(labels) and not all(labels):
        raise ConfigError("targets mix labels and masks", given=f"{sum(labels)} labels among {len(labels)} targets")
    columns = {"image": _spooled(images, "image", base)}
    columns |= {"label": list(as_text(targets))} if all(labels) else {"mask": _spooled(targets, "mask", base)}
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


def _is_label(target: Any) -> bool:
    if isinstance(target, str):
        return not is_image_name(os.path.basename(target))
    return isinstance(target, int | np.integer) or getattr(target, "ndim", None) == 0
