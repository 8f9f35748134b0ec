"""Figures beside their limits: measured in turns, medians, CPU time, one table.

Taking turns shares the machine's moods between both sides; CPU time leaves out what other processes do meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Names the file that ``measure`` adds its rows to, for a table of several benchmarks.
ROWS = "LIGHTNING_VISION_BENCHMARK_ROWS"


@dataclass
class Figure:
    """One thing to measure and the limit that it is held against.

    Args:
        name: What is measured.
        ours: Does it once and returns its cost.
        limit: Does what it is compared with once and returns its cost, in the same unit.
        target: Largest ratio of ours to the limit; with ``at_least`` the smallest.
        unit: Unit of the costs.
        at_least: The figure is a rate: more is better.
    """

    name: str
    ours: Callable[[], float]
    limit: Callable[[], float]
    target: float
    unit: str = "s CPU"
    at_least: bool = False
    ours_taken: list[float] = field(default_factory=list)
    limit_taken: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of ours over median of the limit."""
        return statistics.median(self.ours_taken) / statistics.median(self.limit_taken)

    @property
    def holds(self) -> bool:
        """Whether the ratio keeps its target."""
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target


def measure(figures: Sequence[Figure], repeats: int = 7) -> bool:
    """Measure all figures in turns, after one round that is thrown away, and print them. Returns True if all hold."""
    for figure in figures:
        figure.ours(), figure.limit()
    for _ in range(repeats):
        for figure in figures:
            figure.ours_taken.append(figure.ours())
            figure.limit_taken.append(figure.limit())
    rows = []
    for f in figures:
        ours, limit = statistics.median(f.ours_taken), statistics.median(f.limit_taken)
        sign = "≥" if f.at_least else "≤"
        cells = [f.name, f"{ours:.4g} {f.unit}", f"{limit:.4g} {f.unit}", f"{f.ratio:.3f}", f"{sign} {f.target:.4g}"]
        rows.append([*cells, "yes" if f.holds else "NO"])
    print_rows(rows)
    if ROWS in os.environ:
        with open(os.environ[ROWS], "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return all(f.holds for f in figures)


def print_rows(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print measured figures as one table."""
    table = Table("figure", "ours", "limit", "ratio", "target", "holds", title=title)
    for row in rows:
        table.add_row(*row)
    Console(width=140).print(table)


def read_rows(path: str) -> list[list[str]]:
    """Read the rows that ``measure`` left in a file, those of all processes that were told of it."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads, for one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def process_cpu_seconds(
    command: Sequence[str], cwd: Path | str | None = None, environment: Mapping[str, str] | None = None
) -> float:
    """CPU seconds, user and system, of a process from its start to its end; its output is thrown away."""
    env = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime
