"""What was found in mask files, remembered: they are read before every run, and mostly are those of the last one."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from lightning_vision.data.file_digest import digest_of
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.mask_values import MaskScan, Rows, require_classes, scan_masks
from lightning_vision.errors import DataError
from lightning_vision.reports.files import whole_file
from lightning_vision.types import TargetSpec

# Raise it when the same files and settings give another answer than before.
VERSION = 1


def remembered_scan(
    folder: str, masks: PackedStrings, rows: Rows, colors: bool, threads: int | None, strict: bool
) -> MaskScan:
    """``scan_masks``, if these files were not scanned before; a scan with errors is not remembered."""
    path = _path(folder, masks, rows, ["scan", colors])
    told = _recall(path)
    if told is not None:
        first = {int(value): row for value, row in told["first"].items()}
        palette = None if told["palette"] is None else tuple(map(tuple, told["palette"]))
        return MaskScan(**told | {"first": first, "palette": palette})
    scan = scan_masks(masks, rows, colors, threads, strict)
    if not scan.errors:
        _keep(path, asdict(scan))
    return scan


def remembered_require_classes(
    folder: str, masks: PackedStrings, rows: Rows, target: TargetSpec, threads: int | None
) -> None:
    """``require_classes``, if these files did not pass before."""
    path = _path(folder, masks, rows, ["classes", target.meaning()])
    if _recall(path) is None:
        require_classes(masks, rows, target, threads)
        _keep(path, True)


def _path(folder: str, masks: PackedStrings, rows: Rows, question: list[Any]) -> Path:
    """Name the answer to a question about these rows.

    With another size or time of change they are other files, and another decoder may see other values in them.
    """
    decoders = [PIL.__version__, np.__version__]
    numbers = hashlib.blake2b(rows.astype(np.int64).tobytes(), digest_size=16).hexdigest()
    return Path(folder, digest_of([masks.take(rows)], [VERSION, decoders, numbers, *question]) + ".json")


def _recall(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or one that was damaged
        return None


def _keep(path: Path, answer: Any) -> None:
    with contextlib.suppress(DataError), whole_file(path) as draft:  # no room for it: they are read again next time
        draft.write_text(json.dumps(answer), encoding="utf-8")
