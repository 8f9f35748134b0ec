"""Rows on disk, pixels or features: memory-mapped in the layout of the batch, a flag and a checksum for every row.

A store belongs to the digest of what its rows ARE, so rows of other data, another size or another decoder are never
read by accident; processes that work on the same rows share one store, and write the same bytes to it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from torch import Tensor

from lightning_vision.data.decode import ROUTE
from lightning_vision.data.file_digest import digest_of
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.store_files import HEADER_BYTES, IN_USE, lock, store_folder
from lightning_vision.errors import DataError
from lightning_vision.reports.files import whole_file
from lightning_vision.types import Geometry

_log = logging.getLogger(__name__)

# Raise it when the same file and the same settings give other bytes than before.
FORMAT_VERSION = 2

# Type and shape of one row.
Column = tuple[npt.DTypeLike, tuple[int, ...]]

_ABSENT, _WRITTEN, _SYNCED = 0, 1, 2
_SUMS = "checksums"


def store_key(
    index: SampleIndex,
    rows: npt.NDArray[np.int64],
    geometry: Geometry,
    preprocessing: Preprocessing,
    image: int | None = None,
) -> str:
    """Digest of what the rows are: files with size and time of change, settings that change pixels, decoder versions.

    A file that is missing counts with size -1: it is the decoder that says so, with the path.

    Args:
        index: The samples.
        rows: The rows of the index that the store holds.
        geometry: Height, width and channels.
        preprocessing: ``resize`` and ``exact_decode`` count.
        image: Where a sample has several images, the one that is meant; the masks go with the first. None = all.
    """
    images = index.images if image is None else index.images[image : image + 1]
    mask = None if image else index.mask
    target = None if mask is None else index.target
    settings = {
        "format": FORMAT_VERSION,
        "geometry": [geometry.height, geometry.width, geometry.num_channels],
        "resize": astuple(preprocessing.resize),
        "exact_decode": preprocessing.exact_decode,
        "route": [ROUTE, torch.__version__, torchvision.__version__, PIL.__version__],
        # A store holds only masks whose values were found valid for this target.
        "target": None if target is None else target.meaning(),
    }
    columns = images if mask is None else (*images, mask)
    return digest_of((column.take(rows) for column in columns), settings)


class StoreError(DataError):
    """A store cannot be written: it is not the fault of the sample that was to be kept."""


class Store:
    """Rows of one or more columns in memory-mapped files.

    Each store is a folder: a file for each column, ``(N, *shape)``, ``rows`` with a byte for every row, ``checksums``,
    and ``about.json`` for people. A row's byte is set after its values and its checksum are written, so a killed run
    resumes with what it finished; rows that were not yet synced to the disk count only until the machine restarts.

    The checksum of a row that was written earlier is compared once after the store is opened, by ``verify``, and not at
    each read. A row that is damaged loses its flag, is counted in ``damaged``, and is written anew like a missing one.

    Args:
        folder: Folder of this store; made if it is missing.
        num_rows: N, at least 1.
        columns: Type and shape of a row in each column.
        about: What ``about.json`` says beside the number of rows and bytes.
        instead: What to type to do without a store, for the message of a full disk.

    Raises:
        StoreError: The disk has not enough room, or the folder cannot be written; with the folder and the bytes needed.
    """

    def __init__(
        self,
        folder: Path,
        num_rows: int,
        columns: Mapping[str, Column],
        about: Mapping[str, object] | None = None,
        instead: str = "preprocessing.mode=lazy",
    ) -> None:
        self.folder = folder
        self._row_bytes = {name: np.dtype(kind).itemsize * math.prod(shape) for name, (kind, shape) in columns.items()}
        sizes = {folder / name: num_rows * each for name, each in self._row_bytes.items()}
        sizes[folder / _SUMS] = num_rows * np.dtype(np.uint32).itemsize
        self.nbytes = sum(sizes.values()) + num_rows + HEADER_BYTES
        self.damaged = 0
        self._verified = np.zeros(num_rows, np.bool_)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "lock"):
                fresh = _allocate(sizes)
                self._flags = _open_flags(folder / "rows", num_rows, reset=fresh)
                text = json.dumps({**(about or {}), "rows": num_rows, "bytes": self.nbytes}, indent=1)
                with whole_file(folder / "about.json") as draft:
                    draft.write_text(text + "\n", encoding="utf-8")
                self._maps = {
                    name: np.memmap(folder / name, kind, "r+", shape=(num_rows, *shape))
                    for name, (kind, shape) in columns.items()
                }
                self._sums = np.memmap(folder / _SUMS, np.uint32, "r+", shape=(num_rows,))
                self._in_use = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT)
                lock(self._in_use, shared=True)
        except OSError as error:
            raise _cannot_write(folder, self.nbytes, error, instead) from error
        self._instead = instead
        self._tensors = {name: torch.from_numpy(values) for name, values in self._maps.items()}
        self._files = {name: os.open(folder / name, os.O_RDWR) for name in columns}

    def __len__(self) -> int:
        return len(self._flags)

    def complete(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these rows hold their values, bool ``(B,)``."""
        return self._flags[slots] != _ABSENT

    def verified(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these rows are known to hold what was written, bool ``(B,)``: ``verify`` need not look at them."""
        return self._verified[slots]

    def verify(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Compare the checksums of rows that are complete; return which rows may be read, bool ``(B,)``."""
        done = self.complete(slots)
        pending = done & ~self._verified[slots]
        if not pending.any():
            return done
        for slot in np.unique(slots[pending]).tolist():
            self._compare(slot, self._sum(values[slot] for values in self._maps.values()))
        return done & self._verified[slots]

    def write(self, slot: int, values: Mapping[str, Tensor]) -> None:
        """Write a row, then flag it. Threads and processes may write the same row: the values are the same.

        Raises:
            StoreError: The disk is full, or fails.
        """
        # By calls, not through the map: no page is faulted in, and a full disk is an error and not a signal.
        rows = {
            name: np.ascontiguousarray(values[name].numpy(), self._maps[name].dtype).data.cast("B")
            for name in self._maps
        }
        try:
            for name, row in rows.items():
                if os.pwrite(self._files[name], row, slot * len(row)) != len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _cannot_write(self.folder, self.nbytes, error, self._instead) from error
        self._sums[slot] = self._sum(rows.values())
        self._verified[slot] = True
        self._flags[slot] = _WRITTEN

    def take(self, slot: int, out: Mapping[str, Tensor]) -> bool:
        """Copy one row into contiguous tensors of all columns, if it is complete and sound; return whether it was."""
        if self._flags[slot] == _ABSENT:
            return False
        rows = {name: out[name].numpy() for name in self._maps}
        for name, row in rows.items():
            os.preadv(self._files[name], [row.data.cast("B")], slot * row.nbytes)
        return bool(self._verified[slot]) or self._compare(slot, self._sum(rows.values()))

    def _compare(self, slot: int, found: int) -> bool:
        """Compare the checksum of a row with the stored one; a row that does not fit is there no more."""
        if found == self._sums[slot]:
            self._verified[slot] = True
            return True
        self._flags[slot] = _ABSENT
        if not self.damaged:
            _log.warning("damaged rows are made anew: the checksum of row %d in %s does not fit", slot, self.folder)
        self.damaged += 1
        return False

    @staticmethod
    def _sum(columns: Iterable[Any]) -> int:
        """Checksum of the columns of a row, contiguous buffers in the order of the store's columns."""
        found = 0
        for values in columns:
            found = zlib.crc32(values, found)
        return found

    def read(self, slots: npt.NDArray[np.int64], out: Mapping[str, Tensor]) -> None:
        """Copy finished rows into tensors ``(B, *shape)``."""
        # index_select with out= is the one way that costs little more than a memcpy; advanced indexing costs nine.
        where = torch.from_numpy(slots)
        for name, values in out.items():
            torch.index_select(self._tensors[name], 0, where, out=values)

    def will_need(self, slots: npt.NDArray[np.int64]) -> None:
        """Tell the kernel which rows come next: it reads them ahead, five times faster than page faults do.

        Not where a few of them show that the rows are in memory: telling costs a third of copying them.
        """
        if not hasattr(os, "posix_fadvise") or all(map(self._in_memory, slots[:: max(1, len(slots) // 2)].tolist())):
            return
        for name, file in self._files.items():
            each = self._row_bytes[name]
            for slot in slots.tolist():
                os.posix_fadvise(file, slot * each, each, os.POSIX_FADV_WILLNEED)

    def _in_memory(self, slot: int) -> bool:
        """Whether the kernel holds the beginning of a row, as far as it tells."""
        name, each = next(iter(self._row_bytes.items()))
        try:
            return bool(os.preadv(self._files[name], [bytearray(1)], slot * each, os.RWF_NOWAIT))
        except (OSError, AttributeError):
            return False

    def close(self) -> None:
        """Sync to the disk, so that the rows outlive a restart of the machine, and unmap."""
        if not self._files:
            return
        written = np.flatnonzero(self._flags == _WRITTEN)
        if len(written):
            for values in (*self._maps.values(), self._sums):
                values.flush()
            self._flags[written] = _SYNCED
            self._flags.flush()
        for file in self._files.values():
            os.close(file)
        os.close(self._in_use)
        self._files, self._tensors, self._maps = {}, {}, {}
        del self._flags, self._sums


def open_stores(
    index: SampleIndex, rows: npt.NDArray[np.int64], geometry: Geometry, preprocessing: Preprocessing
) -> list[Store]:
    """Open the stores of these rows, one for each image of a sample, made where there is none yet.

    The masks lie with the first image, whose size they must have. A store is found again wherever its files are used:
    two columns that were cached together serve a run on one of them.

    Raises:
        StoreError: As ``Store``.
    """
    shape = (geometry.num_channels, geometry.height, geometry.width)
    stores = []
    for position in range(len(index.images)):
        columns: dict[str, Column] = {"images": (np.uint8, shape)}
        if index.mask is not None and position == 0:
            columns["masks"] = (np.uint8, shape[1:])
        key = store_key(index, rows, geometry, preprocessing, position)
        about = {"origin": index.origin, "image_shape": list(shape), "format_version": FORMAT_VERSION}
        stores.append(Store(store_folder(preprocessing.lazy_cache_dir) / key, len(rows), columns, about))
    return stores


def _allocate(sizes: dict[Path, int]) -> bool:
    """Reserve the bytes of each file; True if any is new, so that no flag is true any more."""
    missing = {path: size for path, size in sizes.items() if not path.exists() or path.stat().st_size != size}
    try:
        for path in missing:
            path.unlink(missing_ok=True)  # a file of another length holds rows of something else
        if missing and shutil.disk_usage(next(iter(missing)).parent).free < sum(missing.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for path, size in missing.items():
            with open(path, "wb") as file:
                if hasattr(os, "posix_fallocate"):
                    # Reserved now: a disk that fills up under a mapping ends the process without a message.
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
    except OSError:
        for path in missing:
            path.unlink(missing_ok=True)
        raise
    return bool(missing)


def _open_flags(path: Path, num_rows: int, reset: bool) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Map the flags; rows that were written but not synced count only if the machine has not restarted since."""
    size, boot = HEADER_BYTES + num_rows, _boot_id()
    if reset or not path.exists() or path.stat().st_size != size:
        path.write_bytes(boot + bytes(num_rows))
    flags = np.memmap(path, np.uint8, "r+", offset=HEADER_BYTES, shape=(num_rows,))
    with open(path, "r+b") as file:
        if file.read(HEADER_BYTES) != boot:
            flags[flags == _WRITTEN] = _ABSENT
            flags.flush()
            file.seek(0)
            file.write(boot)
    return flags


def _boot_id() -> bytes:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        text = "unknown"
    return text.encode()[:HEADER_BYTES].ljust(HEADER_BYTES)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the store while it is made: ranks open it at the same moment."""
    with open(path, "w") as file:
        lock(file.fileno())
        yield


def _cannot_write(folder: Path, needed: int, error: OSError, instead: str) -> StoreError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    free = ""
    with contextlib.suppress(OSError):
        free = f", {shutil.disk_usage(folder).free} bytes are free"
    return StoreError(
        f"The cached rows do not fit in {folder}" if full else f"The folder {folder} cannot be written",
        given=f"{error.strerror}{free if full else ''}",
        expected=f"{needed} bytes ({needed / 2**30:.2f} GiB)",
        override=["preprocessing.lazy_cache_dir=FOLDER", instead],
    )
