"""What lies in the cache folder: stores of decoded pixels and of features, and images that came from memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_vision.data.store_files import FEATURES_PREFIX, HEADER_BYTES, remove_unused, store_folder
from lightning_vision.errors import listed

IMAGES = "images"


@dataclass(frozen=True)
class Entry:
    """A store on the disk.

    Args:
        folder: Its folder.
        kind: ``pixels`` or ``features``.
        origin: The table or folder that its rows came from.
        rows: Rows that it has room for.
        complete: Rows that are there.
        nbytes: Bytes on the disk.
        used: When it was opened last, seconds since the epoch.
    """

    folder: Path
    kind: str
    origin: str
    rows: int
    complete: int
    nbytes: int
    used: float


def entries(lazy_cache_dir: str | None = None) -> list[Entry]:
    """Return the stores of a cache folder, the one that was used last first."""
    found = []
    for rows in store_folder(lazy_cache_dir).glob("*/rows"):
        folder = rows.parent
        kind = "features" if folder.name.startswith(FEATURES_PREFIX) else "pixels"
        try:
            flags = np.fromfile(rows, np.uint8, offset=HEADER_BYTES)
            complete, size = int(np.count_nonzero(flags)), disk_bytes(folder)
            # It is written whenever the store is opened; a store that was killed at that moment may lack it.
            used = max(path.stat().st_mtime for path in (rows, folder / "about.json") if path.exists())
        except OSError:
            continue  # another process removes it, or is about to make it
        found.append(Entry(folder, kind, _origin(folder), len(flags), complete, size, used))
    return sorted(found, key=lambda entry: -entry.used)


def _origin(folder: Path) -> str:
    try:
        return str(json.loads((folder / "about.json").read_text(encoding="utf-8"))["origin"])
    except (OSError, ValueError, KeyError):
        return "?"


def disk_bytes(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk; a file that is reserved but not written counts."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                continue  # removed meanwhile
    return total


def render(found: Sequence[Entry], lazy_cache_dir: str | None = None) -> str:
    """Return the stores as a table, with the sum of their sizes."""
    folder = store_folder(lazy_cache_dir)
    lines = []
    if found:
        rows = [["size", "rows", "kind", "last used", "of"]]
        for e in found:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used))
            rows.append([_size(e.nbytes), f"{e.complete}/{e.rows}", e.kind, when, e.origin])
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            cells = [row[0].rjust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), row[3].ljust(widths[3])]
            lines.append("  ".join([*cells, row[4]]))
    total = _size(sum(e.nbytes for e in found))
    lines.append(f"{len(found)} {'store' if len(found) == 1 else 'stores'}, {total} in {folder}")
    return "\n".join([*lines, *_images(folder, lazy_cache_dir)])


def clear(lazy_cache_dir: str | None = None) -> str:
    """Remove all stores that no process has open, and say what became of them.

    Images that came from memory stay: the tables and checkpoints that name them cannot make them again.
    """
    folder = store_folder(lazy_cache_dir)
    kept, freed, removed = [], 0, 0
    for entry in entries(lazy_cache_dir):
        if remove_unused(entry.folder):
            freed, removed = freed + entry.nbytes, removed + 1
        else:
            kept.append(entry)
    lines = [f"removed {removed} {'store' if removed == 1 else 'stores'}, {_size(freed)}, from {folder}"]
    if kept:
        names = listed((f"{entry.origin} ({_size(entry.nbytes)})" for entry in kept), 5)
        lines.append(f"kept {len(kept)}, which a process has open or which cannot be removed: {names}")
    return "\n".join([*lines, *_images(folder, lazy_cache_dir)])


def _images(folder: Path, lazy_cache_dir: str | None) -> list[str]:
    """Tell of the images that came from memory, which lie beside the stores of the user's cache."""
    images = (folder if lazy_cache_dir else folder.parent) / IMAGES
    size = disk_bytes(images)
    return [f"images that came from memory: {_size(size)} in {images}, kept: runs refer to them"] if size else []


def _size(nbytes: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} bytes"
