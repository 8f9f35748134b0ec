"""Cores: how many this process may use, and who gets them."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that the process may use: its affinity and the quota of its container, whichever is less; at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, affinity if quota is None else min(affinity, int(quota)))


def divide(cores: int, ranks: int = 1) -> int:
    """Return the threads that each of the ``ranks`` of a machine may decode with.

    Each rank gets its part, at least one core, for decoding as well as for torch, whose threads Lightning's launcher
    divides in the same way: batches are decoded ahead, so that one waits while the other works, and a few threads more
    than cores cost nothing measurable. What must not happen is that every rank takes all cores.
    """
    if cores < 1 or ranks < 1:
        raise ValueError(f"cores and ranks must be at least 1, got {cores} and {ranks}")
    return max(1, cores // ranks)


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
