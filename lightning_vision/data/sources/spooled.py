"""Columns of images that are no files: spooled once into a folder of their own, and remembered."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from collections.abc import Callable, Iterable

import numpy as np

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.sources.base import cache_folder, missing_files
from lightning_vision.data.sources.memory import write_once
from lightning_vision.errors import DataError

_LONGEST_NAME = 200  # bytes; file systems allow 255


def image_folder(base: str | None, column: str) -> str:
    """Return ``<base>/images/<column>``, made if needed; null = in the user's cache folder. One folder a column."""
    name = urllib.parse.quote(column, safe=" ()[]{}+,;=@&%")
    # Names that mean another folder, that hide the folder, or that are too long for one.
    if not name or name.startswith(".") or len(name) > _LONGEST_NAME:
        name = hashlib.blake2b(column.encode(), digest_size=20).hexdigest()
    return own_folder(base, os.path.join("images", name))


def own_folder(base: str | None, name: str) -> str:
    """Return ``<base>/<name>``, made if needed; null = in the user's cache folder."""
    if base is None:
        return cache_folder(name)
    folder = os.path.join(os.path.abspath(os.path.expanduser(base)), name)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be made: {error.strerror}",
            given=f"preprocessing.lazy_cache_dir={base}",
            override="preprocessing.lazy_cache_dir=null",
        ) from error
    return folder


def remembered(folder: str, key: str, spool: Callable[[], Iterable[str]]) -> PackedStrings:
    """Return the paths that ``spool`` yields; if they are known from an earlier call and all there, without calling it.

    Args:
        folder: Where the files are, and the list of them.
        key: What the images are: whenever they may have changed, another key.
        spool: Yields the path of every image, in order; empty = there is none.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
    path = os.path.join(folder, f"{digest}.paths")
    try:
        known = _unpacked(path)
    except (OSError, ValueError):
        known = None  # not spooled yet
    if known is not None and not missing_files(known.take(np.flatnonzero(~known.empty))):
        return known
    found = PackedStrings.from_strings(spool())
    if not any(os.path.dirname(path) == folder for path in found):
        return found  # all are files already
    content = len(found).to_bytes(8, "little") + np.diff(found.offsets).tobytes() + found.data.tobytes()
    write_once(path, content, again=True)
    return found


def _unpacked(path: str) -> PackedStrings:
    """Read a list of paths: their number, the length of each, and their bytes, all lengths as int64.

    Raises:
        ValueError: The file is something else.
    """
    with open(path, "rb") as file:
        content = file.read()
    count = int.from_bytes(content[:8], "little")
    offsets = np.zeros(count + 1, np.int64)
    np.cumsum(np.frombuffer(content, np.int64, count, 8), out=offsets[1:])
    return PackedStrings(np.frombuffer(content, np.uint8, offset=8 * (count + 1)), offsets)
