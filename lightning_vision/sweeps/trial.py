"""One trial of a sweep: its words, its folder, and what became of it; and the file that remembers all of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from lightning_vision.errors import DataError, VisionError
from lightning_vision.monitor import better
from lightning_vision.overrides import for_shell, quote
from lightning_vision.reports.files import whole_file

# running: also of a sweep that was killed. stopped: by Ctrl-C or SIGTERM.
Status = Literal["running", "finished", "failed", "stopped"]
FILE = "trials.json"


@dataclass
class Trial:
    """A trial.

    Args:
        number: Its number in the sweep.
        words: Its overrides, without those of Hydra and of the sweep.
        values: What is swept over, as text by key.
        folder: Its run folder, relative to that of the sweep.
        status: What became of it.
        monitor: The figure that picked its best checkpoint.
        value: That figure at its best epoch; None if there is none, or it is not finite.
        metrics: Its figures of the test split (or of validation, where there is none).
        epochs: Epochs that were trained.
        seconds: How long it took.
        error: Why it failed, on one line.
        checkpoint: What it goes on from, if it was stopped before.
    """

    number: int
    words: list[str]
    values: dict[str, str]
    folder: str = ""
    status: Status = "running"
    monitor: str | None = None
    value: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: int | None = None
    seconds: float | None = None
    error: str | None = None
    checkpoint: str | None = None

    @property
    def direction(self) -> Literal["min", "max"]:
        """Whether the monitored figure should be small or large."""
        return "max" if self.monitor is None else better(self.monitor)

    @property
    def ended(self) -> bool:
        """Whether it ran to its end, good or bad."""
        return self.status in ("finished", "failed")

    def goes_on(self, folder: Path) -> bool:
        """Let one that was stopped go on from its last checkpoint; False if it has none."""
        file = (folder / self.folder / "checkpoints" / "last.ckpt").absolute()
        other = any(word.startswith(("checkpoint=", "action=")) and word != "action=fit" for word in self.words)
        if other or not file.is_file():
            return False
        self.status, self.checkpoint = "stopped", str(file)
        return True

    @property
    def run_words(self) -> list[str]:
        """Its words, and the checkpoint that it goes on from."""
        return self.words if self.checkpoint is None else [*self.words, f"checkpoint={quote(self.checkpoint)}"]

    @property
    def said(self) -> str:
        """What is swept over, as it is typed."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())

    def command(self) -> str:
        """What to type to run it again by itself."""
        words = [word for word in self.words if word != "action=fit"]
        actions = [word.partition("=")[2] for word in words if word.startswith("action=")]
        # Where templates are swept over, their settings are forced in; alone as they were typed.
        words = [word.removeprefix("++") if word.startswith("++template.") else word for word in words]
        words = [for_shell(word) for word in words if not word.startswith("action=")]
        return " ".join(["python -m lightning_vision", *actions, *words])

    def finish(self, folder: Path, returned: Any = None) -> None:
        """Take the figures from the run folder; ``returned``: what the run returned, where it wrote no figures."""
        self.status = "finished"
        written = _read(folder / "metrics.json", json.loads)
        config = _read(folder / "config.yaml", _yaml)
        self.monitor = config.get("monitor", self.monitor)
        value = written.get("best", returned if isinstance(returned, int | float) else None)
        self.value = float(value) if value is not None and math.isfinite(value) else None
        self.epochs = int(written["epochs"]) if written.get("epochs") is not None else None
        names = tuple(config.get("outputs") or ())
        self.metrics = {k: v for k, v in written.items() if v is not None and _is_overall(k, names)}

    def fail(self, error: BaseException | str) -> None:
        """Keep why it failed, but not the error, whose traceback holds the model."""
        self.status = "failed"
        self.error = error if isinstance(error, str) else one_line(error)


def _is_overall(key: str, outputs: Sequence[str]) -> bool:
    """Whether a figure is one of the whole split: ``test/mean_iou``, ``test/mask/mean_iou``, but not of a class."""
    split, _, rest = key.partition("/")
    output, _, figure = rest.partition("/")
    return split in ("test", "val") and ("/" not in rest or (output in outputs and "/" not in figure))


def _read(file: Path, parse: Any) -> dict[str, Any]:
    found = parse(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found if isinstance(found, dict) else {}


def _yaml(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def one_line(error: BaseException) -> str:
    """Say an error on one line."""
    if isinstance(error, VisionError):
        given = f" ({error.given})" if error.given is not None else ""
        return " ".join(f"{error.summary}{given}".split())
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def save(trials: Sequence[Trial], folder: Path) -> None:
    """Remember all trials in the folder of the sweep."""
    with whole_file(folder / FILE) as temporary:
        temporary.write_text(json.dumps([asdict(t) for t in trials], indent=1, ensure_ascii=False), encoding="utf-8")


def load(folder: Path) -> list[Trial]:
    """Return the trials of a sweep so far, none of a new one.

    Raises:
        DataError: The file is damaged.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    names = {f.name for f in fields(Trial)}
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return [Trial(**{key: value for key, value in row.items() if key in names}) for row in rows]
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            "The trials of the sweep cannot be read.",
            given=f"{file}: {error}",
            override=f"mv {file} {file}.damaged",
        ) from error
