"""Two processes on one machine: started by Lightning as from a user's command line, or as torchrun starts them."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.processes import command_line, rank_environments

SMALL = ["encoder.out_channels=8", "image_size=[32,40]", "batch_size=4", "epochs=2"]
SLOW = pytest.mark.slow


def launch(*words: str, cwd: Path) -> None:
    """Run the command line, which starts the second process; a run that hangs is killed with all its processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_vision", *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        output, _ = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"hangs: {process.communicate()[0][-3000:]}")
    assert process.returncode == 0, output[-3000:]


def torchrun(*words: str, cwd: Path) -> None:
    """Run the command line as both ranks."""
    for rank in [command_line(*words, cwd=cwd, **environment) for environment in rank_environments()]:
        rank.succeed()


TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
OUTPUTS = (
    "outputs={mask:{decoder:{type:unet,channels:[8,8]},loss:focal},label:{decoder:classifier},"
    "tags:{target:[red,large],decoder:classifier}}"
)
OPEN_SET = ["decoder=classifier", "data.target=kind", "data.unknown=[odd]", "loss=objectosphere"]
WAYS = [
    pytest.param(["data.target=mask", "data.ignore_index=255", "decoder.channels=[16,8]"], id="one mask", marks=SLOW),
    pytest.param([OUTPUTS, "data.ignore_index=255", "calibrate=all"], id="several outputs"),
    pytest.param(["decoder=anomaly", "data.target=state", "loss=drocc"], id="anomaly"),
    pytest.param(OPEN_SET, id="open set", marks=SLOW),
    pytest.param(["decoder=projector", "data.target=label", "augmentation=views"], id="embedding"),
]


def write_targets(folder: Path) -> Path:
    """Discs with more columns: colour and size, and one in three that is odd; the count divides by no batch size."""
    table = write_discs(folder, count=41)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        state = "normal" if i % 3 or row["split"] == "train" else "odd"
        kind = "odd" if i % 5 == 4 else row["label"]
        row |= {"red": str(i % 2), "large": str(int(i % 5 > 2)), "state": state, "kind": kind}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


@pytest.mark.parametrize("words", WAYS)
def test_two_processes_give_the_test_figures_of_one(words: list[str], tmp_path: Path) -> None:
    data = ["data=table", f"data.path={write_targets(tmp_path / 'data')}"]
    # One way is enough to try the launcher, which imports everything once more in each process.
    run = launch if OUTPUTS in words else torchrun
    run(*data, *words, *SMALL, *TWO, "hydra.run.dir=two", cwd=tmp_path)
    fitted = json.loads((tmp_path / "two" / "metrics.json").read_text())
    best = "checkpoint=two/checkpoints/best.ckpt"
    command_line("test", best, "hydra.run.dir=one_test", cwd=tmp_path).succeed()
    torchrun("test", best, *TWO, "hydra.run.dir=two_test", cwd=tmp_path)
    one, two = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("one_test", "two_test"))
    assert one.keys() == two.keys()
    if "augmentation=views" in words:
        # The loss compares the images of a batch, and those are others.
        del one["test/loss"]
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-6), key
        assert fitted[key] == pytest.approx(value, abs=1e-6), key
    assert len(list(tmp_path.glob("*/checkpoints/best.ckpt"))) == 1
    one_row, *others = [table(tmp_path / folder / "per_image.csv") for folder in ("one_test", "two_test", "two")]
    for rows in others:
        assert [row["path"] for row in rows] == [row["path"] for row in one_row], "each once, in their order"
        for row, expected in zip(rows, one_row, strict=True):
            assert row.keys() == expected.keys()
            for key, cell in expected.items():
                assert row[key] == cell or float(row[key]) == pytest.approx(float(cell), rel=1e-3, abs=1e-4), key


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as rows:
        return list(csv.DictReader(rows))
