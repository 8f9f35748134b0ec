"""The logs of one run: opened before its first step, closed with how it ended."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_vision.loggers.base import RunLog, Status
from lightning_vision.reports.files import whole_file

RECORDS = "logs.json"  # where the logs of a run folder are found again


@contextmanager
def logged(trainer: Trainer, config: Mapping[str, Any], resumed: str | None = None) -> Iterator[None]:
    """Open the logs of a run, and close them whatever its end: finished, failed or interrupted.

    In the end they get the figures of ``metrics.json`` and the pictures of ``plots/``. A run that goes on from the
    last epoch that was logged goes on in its logs, where they can be reached; otherwise, such as from the best epoch of
    several, new ones begin with the epochs so far.

    Args:
        trainer: The trainer with its loggers; those that are no RunLog are Lightning's own matter.
        config: The resolved config.
        resumed: The checkpoint that a fit goes on from.

    Raises:
        ConfigError: A log cannot be opened.
    """
    folder = Path(config["output_dir"])
    names = [name for name, node in (config.get("logger") or {}).items() if node]
    found = zip(names, trainer.loggers, strict=False) if trainer.is_global_zero else ()
    logs = {name: log for name, log in found if isinstance(log, RunLog)}
    status: Status = "failed"
    try:
        if logs:
            _start(logs, config, folder, resumed)
        yield
        status = "finished"
    except (KeyboardInterrupt, SystemExit):
        status = "interrupted"
        raise
    finally:
        figures = _figures(folder / "metrics.json") if logs and status == "finished" else {}
        for log in logs.values():
            if log.opened:
                log.finish(status, figures, folder / "plots")


def _start(logs: Mapping[str, RunLog], config: Mapping[str, Any], folder: Path, resumed: str | None) -> None:
    records: dict[str, dict[str, str]] = {}
    rows: dict[int, dict[str, float]] = {}
    if resumed is not None:
        records, rows = _before(Path(resumed))
    for name, log in logs.items():
        log.start(config, records.get(name, {}), rows)
    with whole_file(folder / RECORDS) as temporary:
        temporary.write_text(json.dumps({name: log.record for name, log in logs.items()}, indent=1) + "\n")


def _before(checkpoint: Path) -> tuple[dict[str, dict[str, str]], dict[int, dict[str, float]]]:
    """Where the logs of the run that goes on are, and its figures by step up to the checkpoint.

    Logs that hold later epochs already, or are gone on in by another run, are left as they are.
    """
    from lightning_vision import checkpoint as checkpoints

    folder = checkpoint.expanduser().absolute().parent.parent
    rows, table = {}, folder / "metrics.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                figures = {name: float(value) for name, value in row.items() if name != "step" and value}
                rows[int(float(row["step"]))] = figures
    reached = int(checkpoints.read(checkpoint)["global_step"])
    # An epoch is logged at the last of its steps, counted from 0.
    later = any(step >= reached for step in rows)
    kept, records = folder / RECORDS, {}
    if kept.is_file() and not later:
        records = json.loads(kept.read_text(encoding="utf-8"))
        kept.unlink()  # they belong to the run that goes on
    return records, {step: figures for step, figures in rows.items() if step < reached}


def _figures(file: Path) -> dict[str, float]:
    """The final figures that are defined."""
    if not file.is_file():
        return {}
    return {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if value is not None}
