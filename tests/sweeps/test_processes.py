"""Trials in processes of their own, with something quick in the place of the app."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_vision.data.threads import available_cores
from lightning_vision.sweeps.processes import gpu_share, gpus, several_devices
from lightning_vision.sweeps.trial import Trial

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = '''
"""Put in the place of the app: what it does depends on the seed."""
import json, os, pathlib, sys, time, types
def run(cfg):
    assert "torch" not in sys.modules
    folder = pathlib.Path(cfg.output_dir)
    if cfg.seed == 7:
        raise RuntimeError("seven")
    if cfg.seed == 8:
        os.kill(os.getpid(), 9)
    names = ("LIGHTNING_VISION_CORES", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HYDRA_FULL_ERROR", "RANK")
    (folder / "seen.json").write_text(json.dumps([os.getpid(), *map(os.environ.get, names)]))
    if cfg.seed == 9:
        time.sleep(100)
    (folder / "config.yaml").write_text("monitor: val/accuracy")
    (folder / "metrics.json").write_text(json.dumps({"best": cfg.seed / 10, "epochs": 1}))
app = types.ModuleType("lightning_vision.app")
app.run = run
sys.modules["lightning_vision.app"] = app
import lightning_vision
lightning_vision.app = app
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,3")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("stand_in")
def test_each_has_its_place_and_a_crash_is_a_failed_trial(
    sweep: Callable[..., int],
    trials: Callable[[], list[Trial]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sweep("seed=1,7,8,2", "sweep.jobs=2", "epochs=3", "hydra.sweep.subdir=my-${hydra.job.num}") == 2
    found = {t.number: t for t in trials()}
    assert [(found[i].status, found[i].value) for i in range(4)] == [
        *(("finished", 0.1), ("failed", None), ("failed", None), ("finished", 0.2))
    ]
    assert found[1].error == "RuntimeError: seven"
    assert found[2].error is not None
    assert "ended by SIGKILL" in found[2].error
    cores = str(max(1, available_cores() // 2))
    places = [json.loads((tmp_path / "s" / found[i].folder / "seen.json").read_text()) for i in (0, 3)]
    assert [p[1:3] + p[4:] for p in places] == [[cores, cores, None, None]] * 2
    assert places[0][3] == "GPU-a"
    assert places[1][3] in ("GPU-a", "3")
    assert "Traceback" in (tmp_path / "s" / "my-1" / "trial.log").read_text()
    said = capsys.readouterr()
    assert "trial 0 finished in" in said.out
    assert f"trial 1 failed: RuntimeError: seven ({Path('s') / 'my-1' / 'trial.log'})" in said.err
    assert "best: trial 3, val/accuracy 0.2000 (max)" in said.out


@pytest.mark.usefixtures("stand_in")
def test_ctrl_c_ends_the_processes(
    sweep: Callable[..., int], trials: Callable[[], list[Trial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "s" / "0" / "seen.json"
    sleep = time.sleep

    def interrupted(seconds: float) -> None:
        sleep(seconds)
        if seen.is_file() and seen.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr("lightning_vision.sweeps.processes.time.sleep", interrupted)
    assert sweep("seed=9", "sweep.processes=true") == 130
    assert [t.status for t in trials()] == ["stopped"]
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads(seen.read_text())[0], 0)


def test_gpus_are_found_without_torch(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus({}, tmp_path) == ["0", "1"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "2, GPU-x"}, tmp_path) == ["2", "GPU-x"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []


@pytest.mark.parametrize(
    ("count", "jobs", "shares"),
    [
        (0, 2, [None, None]),
        (1, 2, [None, None]),
        (2, 2, ["0", "1"]),
        (4, 2, ["0,1", "2,3"]),
        (3, 2, ["0", "1,2"]),
        (2, 3, ["0", "1", "0"]),
    ],
)
def test_gpus_are_shared(count: int, jobs: int, shares: list[str | None]) -> None:
    names = [str(i) for i in range(count)]
    assert [gpu_share(names, slot, jobs) for slot in range(jobs)] == shares


@pytest.mark.parametrize(
    ("trainer", "several"),
    [
        ({}, False),
        ({"devices": 1}, False),
        ({"devices": "1"}, False),
        ({"devices": [1]}, False),
        ({"devices": "auto", "accelerator": "cpu"}, False),
        ({"devices": "auto"}, True),
        ({"devices": -1, "accelerator": "gpu"}, True),
        ({"devices": [0, 1]}, True),
        ({"devices": "0,1"}, True),
        ({"devices": 2}, True),
        ({"num_nodes": 2}, True),
    ],
)
def test_several_devices(trainer: dict[str, object], several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.sweeps.processes.gpus", lambda: ["0", "1"])
    assert several_devices(trainer) == several
