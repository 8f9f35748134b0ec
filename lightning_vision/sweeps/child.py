"""What the process of a trial does for its sweep: end with it, and say why it failed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

# Names the file that the reason goes into.
ERROR = "LIGHTNING_VISION_TRIAL_ERROR"
_PR_SET_PDEATHSIG = 1

_file: Path | None = None


def begin() -> None:
    """End this process when that of its sweep is killed; does nothing in any other process.

    The variable is taken out: the ranks that a trial starts are none of the sweep's.
    """
    global _file
    name = os.environ.pop(ERROR, None)
    _file = None if name is None else Path(name)
    if _file is not None and sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def failed(error: BaseException) -> None:
    """Say why the trial failed, if this is the process of one."""
    if _file is None:
        return
    from lightning_vision.sweeps.trial import one_line

    _file.write_text(one_line(error), encoding="utf-8")
