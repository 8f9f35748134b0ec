"""Memory that is freed stays with the process, so that every step finds the pages of the step before.

By default glibc gives tensors of some size back to the system when they are freed, and asks for empty pages again at
the next batch: the system fills them with zeros first, which costs more than what is then computed in them
(normalising a batch: three times). The price is that memory of tensors below ``THRESHOLD`` is kept for the next ones;
larger ones, such as all pixels of an eager mode, are given back as before.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Above most tensors of a step on a CPU: a batch of 64 images of 224 x 224 pixels is 39 MB of floats.
THRESHOLD = 128 * 2**20
KEPT = 2 * 2**30 - 1  # the most that glibc takes

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
