"""The folders of stores, as far as torch is not needed to look at them."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning_vision.data.sources.base import cache_folder

HEADER_BYTES = 64  # before the flags of the rows: which start of the machine they belong to
IN_USE = "in_use"  # locked by all who have the store open
FEATURES_PREFIX = "embeddings-"  # of the folders that hold features in place of pixels


def store_folder(lazy_cache_dir: str | None = None) -> Path:
    """Folder of all stores: ``lazy_cache_dir``, else ``store`` in the cache folder of the package."""
    return Path(lazy_cache_dir).expanduser() if lazy_cache_dir else Path(cache_folder("store"))


def remove_unused(folder: Path) -> bool:
    """Remove a store, unless this or another process has it open; return whether it is gone."""
    try:
        with open(folder / IN_USE, "w") as file:
            lock(file.fileno(), wait=False)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    return True


def lock(file: int, shared: bool = False, wait: bool = True) -> None:
    """Lock a file until it is closed.

    Raises:
        BlockingIOError: Without waiting, where another one has it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows, where one process at a time is supported
        return
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
