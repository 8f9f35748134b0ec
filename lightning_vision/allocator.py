"""Memory that is freed stays with the process, so that every step finds the pages of the step before.

By default glibc gives tensors of some size back to the system when they are freed, and asks for empty pages again at
the next batch: the system fills them with zeros first, which costs more than what is then computed in them
(normalising a batch: three times). The price is that the process keeps up to ``KEPT`` bytes of its peak.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Above any tensor of a step on a CPU; what is larger, such as all pixels of an eager mode, is still given back.
THRESHOLD = 512 * 2**20
KEPT = 2 * 2**30 - 1

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, unless the user's own ``MALLOC_...`` variables decide; return whether it does."""
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT))
