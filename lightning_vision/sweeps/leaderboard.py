"""The leaderboard of a sweep: a CSV file that is kept up to date, and the table at the end."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_vision.reports.files import whole_file
from lightning_vision.reports.table import figure, show_tables
from lightning_vision.sweeps.trial import Trial

FILE = "leaderboard.csv"
MAX_ROWS = 20  # of the table at the end; all are in the file


def ranked(trials: Iterable[Trial]) -> list[tuple[int | None, Trial]]:
    """Sort trials, the best first, with their ranks.

    Trials with another monitored figure are ranked by themselves: an accuracy says nothing against a mean IoU. What
    failed, and what has no figure, comes last, without a rank.
    """
    groups: dict[str, list[Trial]] = {}
    others: list[Trial] = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.status == "finished" and trial.value is not None:
            groups.setdefault(trial.monitor or "", []).append(trial)
        else:
            others.append(trial)
    rows: list[tuple[int | None, Trial]] = []
    for group in groups.values():
        group.sort(key=lambda t: _badness(t))
        # Equal figures share a rank.
        ranks = {_badness(t): i for i, t in reversed(list(enumerate(group, 1)))}
        rows += [(ranks[_badness(t)], t) for t in group]
    return rows + [(None, trial) for trial in others]


def _badness(trial: Trial) -> float:
    value = math.inf if trial.value is None else trial.value
    return value if trial.direction == "min" else -value


def monitors(trials: Iterable[Trial]) -> list[str]:
    """The figures by which trials are ranked, in the order of the trials."""
    return list(dict.fromkeys(trial.monitor or "" for rank, trial in ranked(trials) if rank is not None))


def write(trials: Sequence[Trial], folder: Path) -> None:
    """Write ``leaderboard.csv``: a row a trial, the best first.

    Raises:
        DataError: The folder cannot be written.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    figures = list(dict.fromkeys(key for trial in trials for key in trial.metrics))
    head = ["rank", "trial", "status", *keys, "monitor", "direction", "value", *figures]
    with whole_file(folder / FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*head, "trained_epochs", "seconds", "folder", "error"])
        for rank, t in ranked(trials):
            swept = [t.values.get(key) for key in keys]
            scored = [t.monitor, None if t.monitor is None else t.direction, t.value]
            seconds = None if t.seconds is None else round(t.seconds, 1)
            rest = [*(t.metrics.get(key) for key in figures), t.epochs, seconds, t.folder, t.error]
            table.writerow([rank, t.number, t.status, *swept, *scored, *rest])


def show(trials: Sequence[Trial], folder: Path) -> None:
    """Print the table, what failed and why, and the words of the best trial."""
    rows = ranked(trials)
    if not rows:
        return
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    names = monitors(trials)
    scored = names if len(names) == 1 else []
    tested = [name for name in (n.replace("val/", "test/", 1) for n in scored) if name not in scored]
    tested = [name for name in tested if any(name in t.metrics for t in trials)]
    with_epochs = [] if "epochs" in keys else ["epochs"]
    head = ["rank", "trial", *keys, *(scored or ["figure", "value"]), *tested, *with_epochs, "seconds"]
    grid = []
    for rank, t in rows[:MAX_ROWS]:
        value = figure(math.nan if t.value is None else t.value) if t.status == "finished" else t.status
        own = [value] if scored else [t.monitor or "-", value]
        test = [figure(t.metrics.get(name, math.nan)) for name in tested]
        seconds = "-" if t.seconds is None else f"{t.seconds:.0f}"
        swept = [t.values.get(key, "-") for key in keys]
        epochs = ["-" if t.epochs is None else str(t.epochs) for _ in with_epochs]
        grid.append(["-" if rank is None else str(rank), str(t.number), *swept, *own, *test, *epochs, seconds])
    note = f"the first {MAX_ROWS} of {len(rows)} trials" if len(rows) > MAX_ROWS else ""
    if len(names) > 1:
        note = f"{note}; " * bool(note) + f"{', '.join(names)} are ranked each by itself: they cannot be compared"
    show_tables([("sweep", head, grid, note)])
    failed = [t for t in trials if t.status == "failed"]
    for t in sorted(failed, key=lambda t: t.number):
        print(f"trial {t.number} failed: {t.error}  [{t.said}]")
    for name in names:
        best = next(t for rank, t in rows if rank == 1 and (t.monitor or "") == name)
        title = f", {name} {figure(best.value or 0.0)} ({best.direction})" if name else ""
        print(f"best: trial {best.number}{title}\n  {best.command()}")
    print(f"leaderboard: {folder / FILE}", flush=True)
