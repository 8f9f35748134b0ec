"""Two processes on one machine, started from the command line as a user would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vision.testing.discs import write_discs

CNN = ["encoder.out_channels=8", "decoder.channels=[16,8]", "image_size=[32,40]", "batch_size=4"]


def run(*words: str, cwd: Path) -> str:
    """Run the command line; a run that hangs is killed with all its processes."""
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
    return output


def test_two_processes_give_the_test_figures_of_one(tmp_path: Path) -> None:
    table = write_discs(tmp_path / "data", count=41)
    data = ["data=table", f"data.path={table}", "data.target=mask", "data.ignore_index=255"]
    ddp = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    run(*data, *CNN, *ddp, "epochs=2", "hydra.run.dir=two", cwd=tmp_path)
    fitted = json.loads((tmp_path / "two" / "metrics.json").read_text())
    best = "checkpoint=two/checkpoints/best.ckpt"
    run("test", best, "hydra.run.dir=one_test", cwd=tmp_path)
    run("test", best, *ddp, "hydra.run.dir=two_test", cwd=tmp_path)
    one, two = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("one_test", "two_test"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-6), key
        assert fitted[key] == pytest.approx(value, abs=1e-6), key
    assert len(list(tmp_path.glob("*/checkpoints/best.ckpt"))) == 1
