"""The run folder: config.yaml with its reasons, metrics.json, and what is said at the start."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from lightning_vision.errors import CheckpointError, ConfigError, DataError, listed
from lightning_vision.overrides import override

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.data.index import Problem
    from lightning_vision.module import VisionModule
    from lightning_vision.resolve import Plan


# The figures, and of which file they are.
METRICS, SCORED = "metrics.json", "scored.json"
# Of a folder for the hub, which stands for a checkpoint.
HUB_WEIGHTS, HUB_CONFIG = "model.safetensors", "config.json"


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the file of a checkpoint, or the folder that ``export format=hub`` wrote.

    Here, so that a mistyped path is answered before torch is imported.

    Raises:
        CheckpointError: There is none; the message names those beside it.
    """
    file = Path(path).expanduser()
    if file.is_dir() and ((file / HUB_WEIGHTS).exists() or (file / HUB_CONFIG).exists()):
        return file
    if file.is_file():
        return file
    folder = file if file.is_dir() else file.parent
    found = [str(p) for pattern in ("*.ckpt", "checkpoints/*.ckpt") for p in sorted(folder.glob(pattern))]
    raise CheckpointError(
        "The checkpoint is a folder, not a file." if file.is_dir() else "The checkpoint does not exist.",
        given=file,
        expected=f"checkpoints in {folder}: {listed(found, 10)}" if found else "the path of a .ckpt file",
        override=override("checkpoint", found[0]) if found else "checkpoint=outputs/DATE/TIME/checkpoints/best.ckpt",
    )


def start(folder: Path, plan: Plan) -> None:
    """Create the folder and write the resolved config, each decision with its reason.

    Raises:
        ConfigError: The folder holds the checkpoints of another run.
        DataError: The folder cannot be written.
    """
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file() and plan.config["checkpoint"] is None:
        raise ConfigError(
            "The run folder holds another run, whose checkpoints would be lost.",
            given=f"output_dir={folder}",
            expected="a new folder, or the checkpoint to go on from",
            override=[override("output_dir", f"{folder}-2"), override("checkpoint", str(last))],
        )
    lines = ["# The resolved config of this run.", *(f"# {key}: {why}" for key, why in plan.reasons.items())]
    text = yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "config.yaml", "\n".join(lines) + "\n" + text)
    except OSError as error:
        raise DataError(
            "The run folder cannot be written.",
            given=f"{folder} ({error.strerror})",
            expected="a folder with free space that may be written",
            override="output_dir=FOLDER",
        ) from error


def carry_on(checkpoint: Path, folder: Path) -> None:
    """Bring the table of the epochs so far along, where a run goes on in another folder."""
    table = checkpoint.expanduser().parent.parent / "metrics.csv"
    if table.is_file() and not (folder / "metrics.csv").exists():
        _write(folder / "metrics.csv", table.read_text(encoding="utf-8"))


def announce(plan: Plan, module: VisionModule, data: VisionDataModule, tuned: Sequence[str] = ()) -> None:
    """Say in a few lines what is going to be trained on what, and what the run found out for itself before."""
    counts = plan.index.counts()
    geometry, target = plan.geometry, plan.target
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    heads = [[type(p).__name__ for p in (head.neck, head.decoder) if p is not None] for _, head in module.named_heads()]
    print(f"data   {short(plan.index.origin)}: {counts['train']} train, {counts['val']} val, {counts['test']} test")
    train = data.train_geometry
    larger = "" if train == geometry else f" (cut out of {train.height} x {train.width} in training)"
    print(
        f"       {geometry.height} x {geometry.width} pixels{larger}, {geometry.num_channels} channels, "
        + (f"{target.num_classes} classes" if target.num_classes else "no labels")
    )
    if data.repeats > 1 or data.num_items_per_epoch is not None:
        times = f", each drawn image {data.repeats} times" if data.repeats > 1 else ""
        print(f"       {data.num_items_per_epoch or counts['train']} training images an epoch{times}")
    names = " > ".join([type(module.encoder).__name__, " + ".join(" > ".join(parts) for parts in heads)])
    print(f"model  {names}: {total / 1e6:.2f} M parameters, {trained / 1e6:.2f} M trained")
    cached = "preprocessing.cache_encoder_embeddings"
    encoder = plan.config["encoder"]
    frozen = encoder.get("trainable") is False
    if frozen and cached in plan.reasons and module.embeddings is None:
        print(f"       the encoder's features are not cached: {plan.reasons[cached]}")
    for line in tuned:
        print(line)
    print(f"run    {plan.config['output_dir']}", flush=True)
    fixed = frozen or encoder.get("adapter") is not None
    if fixed and not encoder.get("skip") and module.encoder.weights_origin == "random" and not plan.encoder_rebuild:
        print("warning: the encoder's weights are random, and they stay as they are", file=sys.stderr)
    tell(plan.index.problems)
    if not counts["val"]:
        print("warning: there are no samples in val: nothing tells which epoch was best", file=sys.stderr)


def short(path: str) -> str:
    """A path as it is shown: from where Python works, or from the home folder, where it lies in one of them."""
    for folder, shown in ((os.getcwd(), ""), (os.path.expanduser("~"), f"~{os.sep}")):
        below = folder.rstrip(os.sep) + os.sep
        if path.startswith(below) and path != below:
            return shown + path.removeprefix(below)
    return path


def stopped(folder: Path) -> None:
    """Say after an interruption what is kept, and how to go on."""
    last = folder / "checkpoints" / "last.ckpt"
    if last.is_file():
        print(f"stopped; go on from the last finished epoch with {override('checkpoint', str(last))}", file=sys.stderr)
    else:
        print("stopped before the first epoch was finished; there is no checkpoint", file=sys.stderr)


def tell(problems: Sequence[Problem]) -> None:
    """Say what was found while the data were read; a note is nothing to be warned of."""
    for problem in problems:
        print(f"{problem.severity}: {problem.message}", file=sys.stdout if problem.severity == "note" else sys.stderr)


def left_out(bad: Sequence[tuple[str, str]], count: int | None = None, file: Path | None = None) -> None:
    """Name the images that were skipped or blanked, path and reason.

    Args:
        bad: Those that are named.
        count: How many there are; None = these.
        file: The list of all.
    """
    count = len(bad) if count is None else count
    if count:
        print(f"images that could not be read, left out or blanked ({count}):")
        print("\n".join(f"  {path}: {why}" for path, why in bad))
    if count > len(bad):
        print(f"  … and {count - len(bad)} more" + (f": {file}" if file else ""))


def finish(folder: Path, metrics: Mapping[str, float], checkpoint: Path | None = None) -> None:
    """Write metrics.json, in which a figure that is not defined (a class without pixels) is null, and of which model.

    Args:
        folder: The run folder; it is made.
        metrics: The figures.
        checkpoint: The file that was scored; None where the model was given in Python.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SCORED).unlink(missing_ok=True)  # never beside the figures of another model
    data = {k: (v if math.isfinite(v) else None) for k, v in metrics.items()}
    _write(folder / METRICS, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    if checkpoint is not None and checkpoint.is_file():
        known = {"checkpoint": str(checkpoint), "sha256": _digest(checkpoint)}
        _write(folder / SCORED, json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def figures_of(checkpoint: Path) -> dict[str, float]:
    """The figures in the run folder around a checkpoint, if they are those of this very file; else none."""
    folder = checkpoint.expanduser().absolute().parent.parent
    metrics, scored = folder / METRICS, folder / SCORED
    if not (metrics.is_file() and scored.is_file() and checkpoint.expanduser().is_file()):
        return {}
    if json.loads(scored.read_text(encoding="utf-8"))["sha256"] != _digest(checkpoint.expanduser()):
        return {}
    found = json.loads(metrics.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if value is not None and math.isfinite(value)}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def remove_if_empty(folder: Path) -> None:
    """Remove a run folder that holds no more than Hydra's copy of the settings, and the day's if that was all."""
    try:
        if [entry.name for entry in folder.iterdir()] == [".hydra"]:
            shutil.rmtree(folder)
            folder.parent.rmdir()
    except OSError:  # another run is in it
        return


def _write(path: Path, text: str) -> None:
    # Renamed into place, so that nobody reads half a file.
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
