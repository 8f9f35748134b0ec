"""What files are, without reading them: their paths, sizes, and times of change of their content and of their entry."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings


def digest_of(columns: Iterable[PackedStrings], settings: Any) -> str:
    """Return a digest of files and of plain settings. A file that is missing counts with size -1."""
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for paths in columns:
        digest.update(paths.offsets.tobytes())
        digest.update(paths.data.tobytes())
        digest.update(_stats(paths).tobytes())
    return digest.hexdigest()


def _stats(paths: PackedStrings) -> npt.NDArray[np.int64]:
    found = np.full((len(paths), 3), -1, np.int64)
    for i, path in enumerate(paths):
        try:
            stat = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL byte in the name
            continue
        # A copy may keep the time of its content (cp -p, rsync); when the file itself changed is the system's to say.
        found[i] = stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return found
