"""Rows on disk, pixels or features: memory-mapped in the layout of the batch, with a flag for every finished row.

A store belongs to the digest of what its rows ARE, so rows of other data, another size or another decoder are never
read by accident; processes that work on the same rows share one store, and write the same bytes to it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from torch import Tensor

from lightning_vision.data.decode import ROUTE
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import cache_folder
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry

# Raise it when the same file and the same settings give other bytes than before.
FORMAT_VERSION = 1

# Type and shape of one row.
Column = tuple[npt.DTypeLike, tuple[int, ...]]

_ABSENT, _WRITTEN, _SYNCED = 0, 1, 2
_HEADER_BYTES = 64
IN_USE = "in_use"  # locked by all who have the store open


def store_folder(lazy_cache_dir: str | None = None) -> Path:
    """Folder of all stores: ``lazy_cache_dir``, else ``store`` in the cache folder of the package."""
    return Path(lazy_cache_dir).expanduser() if lazy_cache_dir else Path(cache_folder("store"))


def store_key(index: SampleIndex, rows: npt.NDArray[np.int64], geometry: Geometry, preprocessing: Preprocessing) -> str:
    """Digest of what the rows are: files with size and time of change, settings that change pixels, decoder versions.

    A file that is missing counts with size -1: it is the decoder that says so, with the path.
    """
    digest = hashlib.blake2b(digest_size=16)
    target = index.target
    settings = {
        "format": FORMAT_VERSION,
        "geometry": [geometry.height, geometry.width, geometry.num_channels],
        "resize": astuple(preprocessing.resize),
        "exact_decode": preprocessing.exact_decode,
        "route": [ROUTE, torch.__version__, torchvision.__version__, PIL.__version__],
        # A store holds only masks whose values were found valid for this target.
        "target": None
        if index.mask is None or target is None
        else [target.num_classes, target.ignore_index, target.mask_values],
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for column in (*index.images, index.mask):
        if column is None:
            continue
        taken = column.take(rows)
        digest.update(taken.offsets.tobytes())
        digest.update(taken.data.tobytes())
        digest.update(_stats(taken).tobytes())
    return digest.hexdigest()


def _stats(paths: PackedStrings) -> npt.NDArray[np.int64]:
    found = []
    for path in paths:
        try:
            stat = os.stat(path)
            found.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((-1, -1))
    return np.array(found, np.int64)


class Store:
    """Rows of one or more columns in memory-mapped files.

    Each store is a folder: a file for each column, ``(N, *shape)``, ``rows`` with a byte for every row, ``about.json``
    for people. A row's byte is set after its values are written, so a killed run resumes with what it finished; rows
    that were not yet synced to the disk count only until the machine restarts.

    Args:
        folder: Folder of this store; made if it is missing.
        num_rows: N, at least 1.
        columns: Type and shape of a row in each column.
        about: What ``about.json`` says beside the number of rows and bytes.
        instead: What to type to do without a store, for the message of a full disk.

    Raises:
        DataError: The disk has not enough room, or the folder cannot be written; with the folder and the bytes needed.
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
        self.nbytes = sum(sizes.values()) + num_rows + _HEADER_BYTES
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder / "lock"):
                fresh = _allocate(sizes)
                self._flags = _open_flags(folder / "rows", num_rows, reset=fresh)
                text = json.dumps({**(about or {}), "rows": num_rows, "bytes": self.nbytes}, indent=1)
                (folder / "about.json").write_text(text + "\n", encoding="utf-8")
                self._maps = {
                    name: np.memmap(folder / name, kind, "r+", shape=(num_rows, *shape))
                    for name, (kind, shape) in columns.items()
                }
                self._in_use = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT)
                _lock(self._in_use, shared=True)
        except OSError as error:
            raise _cannot_write(folder, self.nbytes, error, instead) from error
        self._tensors = {name: torch.from_numpy(values) for name, values in self._maps.items()}
        self._files = {name: os.open(folder / name, os.O_RDONLY) for name in columns}

    def __len__(self) -> int:
        return len(self._flags)

    def complete(self, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these rows hold their values, bool ``(B,)``."""
        return self._flags[slots] != _ABSENT

    def write(self, slot: int, values: Mapping[str, Tensor]) -> None:
        """Write a row, then flag it. Threads and processes may write the same row: the values are the same."""
        for name, value in values.items():
            np.copyto(self._maps[name][slot], value.numpy())
        self._flags[slot] = _WRITTEN

    def read(self, slots: npt.NDArray[np.int64], out: Mapping[str, Tensor]) -> None:
        """Copy finished rows into tensors ``(B, *shape)``."""
        # index_select with out= is the one way that costs little more than a memcpy; advanced indexing costs nine.
        where = torch.from_numpy(slots)
        for name, values in out.items():
            torch.index_select(self._tensors[name], 0, where, out=values)

    def read_one(self, slot: int, out: Mapping[str, Tensor]) -> None:
        """Copy one finished row."""
        for name, value in out.items():
            np.copyto(value.numpy(), self._maps[name][slot])

    def will_need(self, slots: npt.NDArray[np.int64]) -> None:
        """Tell the kernel which rows come next: it reads them ahead, five times faster than page faults do."""
        if not hasattr(os, "posix_fadvise"):
            return
        for name, file in self._files.items():
            each = self._row_bytes[name]
            for slot in slots.tolist():
                os.posix_fadvise(file, slot * each, each, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Sync to the disk, so that the rows outlive a restart of the machine, and unmap."""
        if not self._files:
            return
        written = np.flatnonzero(self._flags == _WRITTEN)
        if len(written):
            for values in self._maps.values():
                values.flush()
            self._flags[written] = _SYNCED
            self._flags.flush()
        for file in self._files.values():
            os.close(file)
        os.close(self._in_use)
        self._files, self._tensors, self._maps = {}, {}, {}
        del self._flags


def open_store(
    index: SampleIndex, rows: npt.NDArray[np.int64], geometry: Geometry, preprocessing: Preprocessing
) -> Store:
    """Open the store of these rows, made where there is none yet.

    Raises:
        DataError: As ``Store``.
    """
    key = store_key(index, rows, geometry, preprocessing)
    shape = geometry.shape
    about: dict[str, object] = {"origin": index.origin, "image_shape": list(shape), "format_version": FORMAT_VERSION}
    folder = store_folder(preprocessing.lazy_cache_dir) / key
    columns: dict[str, Column] = {"images": (np.uint8, shape)}
    if index.mask is not None:
        columns["masks"] = (np.uint8, shape[1:])
    return Store(folder, len(rows), columns, about)


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
    size, boot = _HEADER_BYTES + num_rows, _boot_id()
    if reset or not path.exists() or path.stat().st_size != size:
        path.write_bytes(boot + bytes(num_rows))
    flags = np.memmap(path, np.uint8, "r+", offset=_HEADER_BYTES, shape=(num_rows,))
    with open(path, "r+b") as file:
        if file.read(_HEADER_BYTES) != boot:
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
    return text.encode()[:_HEADER_BYTES].ljust(_HEADER_BYTES)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the store while it is made: ranks open it at the same moment."""
    with open(path, "w") as file:
        _lock(file.fileno())
        yield


def remove_unused(folder: Path) -> bool:
    """Remove a store, unless this or another process has it open; return whether it is gone."""
    try:
        with open(folder / IN_USE, "w") as file:
            _lock(file.fileno(), wait=False)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    return True


def _lock(file: int, shared: bool = False, wait: bool = True) -> None:
    """Lock a file until it is closed.

    Raises:
        BlockingIOError: Without waiting, where another one has it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows, where one process at a time is supported
        return
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))


def _cannot_write(folder: Path, needed: int, error: OSError, instead: str) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    free = ""
    with contextlib.suppress(OSError):
        free = f", {shutil.disk_usage(folder).free} bytes are free"
    return DataError(
        f"The cached rows do not fit in {folder}" if full else f"The folder {folder} cannot be written",
        given=f"{error.strerror}{free if full else ''}",
        expected=f"{needed} bytes ({needed / 2**30:.2f} GiB)",
        override=["preprocessing.lazy_cache_dir=FOLDER", instead],
    )
