"""Cores: how many this process may use, and who gets them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lightning_vision.data.progress import progress

# How many cores a process gets of those of its machine: of one that shares them with others.
CORES = "LIGHTNING_VISION_CORES"
_CGROUP = Path("/sys/fs/cgroup")
_AT_ONCE = 256

Found = TypeVar("Found")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that the process may use: its affinity, the quota of its container and LIGHTNING_VISION_CORES; at least 1.

    Whichever is least.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, share = _quota(cgroup), os.environ.get(CORES, "")
    limits = [affinity, *([] if quota is None else [int(quota)]), *([int(share)] if share.isdecimal() else [])]
    return max(1, min(limits))


def divide(cores: int, ranks: int = 1) -> int:
    """Return the threads that each of the ``ranks`` of a machine may decode with.

    Each rank gets its part, at least one core, for decoding as well as for torch, whose threads Lightning's launcher
    divides in the same way: batches are decoded ahead, so that one waits while the other works, and a few threads more
    than cores cost nothing measurable. What must not happen is that every rank takes all cores.
    """
    if cores < 1 or ranks < 1:
        raise ValueError(f"cores and ranks must be at least 1, got {cores} and {ranks}")
    return max(1, cores // ranks)


def local_ranks() -> int:
    """Ranks on this machine, as the launcher of this process says; 1 before ranks are started.

    torchrun tells the number; Lightning tells that of all machines, the most that it can be.
    """
    if "LOCAL_RANK" not in os.environ:
        return 1
    number = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or ""
    return max(1, int(number)) if number.isdecimal() else 1


def each(
    read: Callable[[int], Found], rows: npt.NDArray[np.int64], threads: int | None = None, title: str = ""
) -> Iterator[Found]:
    """Call a function for every row; results in the order of the rows, few of them in memory.

    Args:
        read: Called with a row, in any thread.
        rows: The rows.
        threads: How many; None = this rank's part of the cores.
        title: Of the bar that shows on a terminal how far it is; none if empty.
    """
    numbers = map(int, rows)
    bar = progress(title, len(rows)) if title else nullcontext(lambda count: None)
    with ThreadPoolExecutor(threads or divide(available_cores(), local_ranks())) as pool, bar as advance:
        while some := list(islice(numbers, _AT_ONCE)):
            yield from pool.map(read, some)
            advance(len(some))


def _quota(cgroup: Path) -> float | None:
    """CPU quota in cores: cgroup v2 ``cpu.max``, v1 ``cpu.cfs_quota_us``; None = no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1") or not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / max(int(period), 1)
