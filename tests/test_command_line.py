"""The command line as it is typed: sorted words in process, whole runs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_vision.command_line import read
from lightning_vision.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("argv", "action", "words"),
    [
        ([], None, []),
        (["fit"], "fit", ["action=fit"]),
        (["lr=1", "test", "seed=2"], "test", ["lr=1", "seed=2", "action=test"]),
        (["-m", "fit", "lr=1,2"], "fit", ["-m", "lr=1,2", "action=fit"]),
        (["--multirun", "lr=1,2"], None, ["--multirun", "lr=1,2"]),
        (["--cfg", "job"], None, ["--cfg", "job"]),
        (["--cfg=job", "check"], "check", ["--cfg=job", "action=check"]),
        (["-c", "job", "-p", "encoder", "check"], "check", ["-c", "job", "-p", "encoder", "action=check"]),
        (["-cn", "test", "fit"], "fit", ["-cn", "test", "action=fit"]),
        (["-cd", "data", "-cp", "fit"], None, ["-cd", "data", "-cp", "fit"]),
        (["--info", "searchpath"], None, ["--info", "searchpath"]),
        (["--info", "fit"], "fit", ["--info", "action=fit"]),
        (["~logger", "predict"], "predict", ["~logger", "action=predict"]),
        (["predict", "source=a b,c=d"], "predict", ["source='a b,c=d'", "action=predict"]),
        (["encoders"], "encoders", []),
        (["-sc", "query=bash", "fit"], None, ["-sc", "query=bash", "fit"]),
    ],
)
def test_words_are_sorted(argv: list[str], action: str | None, words: list[str]) -> None:
    line = read(argv)
    assert (line.action, line.words) == (action, words)


@pytest.mark.parametrize(
    "argv",
    [
        ["fit", "source=it's (ü), a=b", "lr=1"],
        ["-m", "test", "data.path=~/x y", "lr=1,2"],
        ["--config-dir", "a b", "fit"],
        ["hydra.run.dir=my run", "check"],
    ],
)
def test_reading_twice_changes_nothing(argv: list[str]) -> None:
    once = read(argv).words
    assert read(once).words == once
    # What Lightning appends for the processes of DDP.
    appended = ['hydra.run.dir="outputs/a b"', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"]
    assert read(once + appended).words == once + appended


@pytest.mark.parametrize(("argv", "override"), [(["trian"], "fit"), (["tset"], "test"), (["encodrs"], "encoders")])
def test_an_action_that_is_none(argv: list[str], override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(argv)
    assert caught.value.overrides == [f"python -m lightning_vision {override}"]


def test_cache_stands_for_its_action() -> None:
    line = read(["cache=list", "seed=1"])
    assert (line.action, line.words) == ("cache", ["cache=list", "seed=1", "action=cache"])
    assert read(line.words).words == line.words
    assert read(["fit", "cache=build"]).action == "fit"


def test_two_actions() -> None:
    with pytest.raises(ConfigError, match="more than one action"):
        read(["fit", "predict"])


def run(*argv: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(cwd / "site"), str(ROOT)])
    # What Python imports is reported at the end, after everything that the test itself asserts on.
    code = (
        "import atexit, runpy, sys;"
        "heavy = {'torch', 'lightning', 'timm', 'transformers', 'matplotlib', 'pandas'};"
        "atexit.register(lambda: print('IMPORTED', sorted(heavy & set(sys.modules)), file=sys.stderr));"
        "runpy.run_module('lightning_vision', run_name='__main__', alter_sys=True)"
    )
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=cwd, env=env)


def light(done: subprocess.CompletedProcess[str]) -> bool:
    return "IMPORTED []" in done.stderr


def test_help_fits_a_screen(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert light(done)
    lines = done.stdout.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 125
    assert any(line.startswith("encoder: ") and line.endswith("(all: encoders)") for line in lines)
    assert any(line.startswith("optimizer: ") and line.endswith("sgd") for line in lines)
    assert "$" not in done.stdout


@pytest.mark.parametrize("action", ["encoders", "decoders", "losses", "data"])
def test_listings(action: str, tmp_path: Path) -> None:
    done = run(action, cwd=tmp_path)
    assert done.returncode == 0
    assert light(done)
    assert "hydra" not in done.stderr
    group = {"encoders": "encoder", "decoders": "decoder", "losses": "loss", "data": "data"}[action]
    files = sorted((ROOT / "conf" / group).glob("*.yaml"))
    rows = done.stdout.splitlines()[1:]
    assert [r.split()[0] for r in rows] == [f.stem for f in files]
    for row, file in zip(rows, files, strict=True):
        assert file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").strip() in row


def test_cfg_job(tmp_path: Path) -> None:
    done = run("test", "--cfg", "job", "source=a b, (ü) c=d.png", "epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert light(done)
    assert "action: test\n" in done.stdout
    assert "epochs: 3\n" in done.stdout
    assert "source: a b, (ü) c=d.png\n" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "override"),
    [
        (["encoder=resnt"], "encoder=resnet"),
        (["encodr=resnet"], "encoder=resnet"),
        (["preprocessing.mod=lazy"], "preprocessing.mode=lazy"),
        (["+preprocessing.mod=lazy"], "preprocessing.mode=lazy"),
        (["epochs=0"], "epochs=10"),
        (["--cfg", "job", "encoder=resnt"], "encoder=resnet"),
        (["-m", "encoder=resnet,resnt"], "encoder=resnet"),
        (["-m", "preprocessing.mod=lazy,eager"], "preprocessing.mode=lazy"),
        (["fitt"], "python -m lightning_vision fit"),
    ],
)
def test_mistakes_end_in_an_override_that_works(argv: list[str], override: str, tmp_path: Path) -> None:
    done = run(*argv, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "HYDRA_FULL_ERROR" not in done.stderr
    assert light(done)
    tried = [line.split(":", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith(("  try:", "  or:"))]
    assert override in tried
    if "-m" not in argv:
        assert not (tmp_path / "outputs").exists(), "a mistake leaves no run folder behind"


def test_the_traceback_on_request(tmp_path: Path) -> None:
    done = run("encoder=resnt", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_every_run_of_a_sweep_tells_its_own_mistake(tmp_path: Path) -> None:
    done = run("-m", "epochs=0,-1", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "trial 0 failed: epochs cannot be 0\n" in done.stderr
    assert "trial 1 failed: epochs cannot be -1\n" in done.stderr
    assert "2 of 2 trials failed: 0, 1\n" in done.stderr
    assert light(done)


STAND_IN = '''
"""Put in the place of the app: says what it was given."""
import os, sys, types
def run(cfg):
    print("RAN", cfg.action, cfg.epochs, repr(cfg.source), os.environ.get("HYDRA_FULL_ERROR"), sys.argv[1:], flush=True)
    if cfg.epochs == 7:
        raise RuntimeError("seven")
    return 0.5
app = types.ModuleType("lightning_vision.app")
app.run = run
sys.modules["lightning_vision.app"] = app
import lightning_vision
lightning_vision.app = app
'''


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STAND_IN)
    return tmp_path


def test_a_run(stand_in: Path) -> None:
    done = run("predict", "source=it's (ü), a=b.png", cwd=stand_in)
    assert done.returncode == 0, done.stderr
    assert 'RAN predict 10 "it\'s (ü), a=b.png" None' in done.stdout
    (folder,) = (stand_in / "outputs").glob("*/*")
    assert (folder / ".hydra" / "config.yaml").is_file()
    assert len(folder.name) == len("23-59-59-123456")
    assert [p.name for p in folder.iterdir()] == [".hydra"]


def test_a_sweep(stand_in: Path) -> None:
    done = run("-m", "test", "epochs=1,2", "source=a, b", cwd=stand_in)
    assert done.returncode == 0, done.stderr
    assert [line.split(" None")[0] for line in done.stdout.splitlines() if line.startswith("RAN")] == [
        "RAN test 1 'a, b'",
        "RAN test 2 'a, b'",
    ]
    written = ["0", "1", "leaderboard.csv", "leaderboard.png", "multirun.yaml", "trials.json"]
    assert sorted(p.name for p in (stand_in / "multirun").glob("*/*/*")) == written


def test_a_failure_of_the_run_itself_keeps_its_traceback(stand_in: Path) -> None:
    done = run("epochs=7", cwd=stand_in)
    assert done.returncode == 1
    assert "RuntimeError: seven" in done.stderr
    assert "sitecustomize.py" in done.stderr
    assert "run_and_report" not in done.stderr
    assert "run_and_report" in run("epochs=7", cwd=stand_in, HYDRA_FULL_ERROR="1").stderr


def test_more_configs_by_config_dir(stand_in: Path) -> None:
    (stand_in / "more" / "experiment").mkdir(parents=True)
    (stand_in / "more" / "experiment" / "mine.yaml").write_text("# @package _global_\n# Mine\nepochs: 4\n")
    done = run("--config-dir", "more", "experiment=mine", cwd=stand_in)
    assert "RAN fit 4 None" in done.stdout, done.stderr


def test_a_plugin_is_reported(stand_in: Path) -> None:
    site = stand_in / "site"
    (site / "my_ext" / "conf" / "decoder").mkdir(parents=True)
    (site / "my_ext" / "__init__.py").write_text("raise SystemError\n")
    (site / "my_ext" / "parts.py").write_text("class Head:\n    def __init__(self, width: int = 3) -> None: ...\n")
    (site / "my_ext" / "conf" / "decoder" / "my_head.yaml").write_text(
        "# Mine\n_target_: my_ext.parts.Head\nwidth: 3\n"
    )
    (site / "my_ext-1.0.dist-info").mkdir()
    (site / "my_ext-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my_ext\nVersion: 1.0\n")
    (site / "my_ext-1.0.dist-info" / "entry_points.txt").write_text("[lightning_vision.plugins]\nmine = my_ext\n")
    shown = run("--info", "searchpath", cwd=stand_in)
    assert f"file://{site / 'my_ext' / 'conf'}" in shown.stdout
    assert "my_head" in run("decoders", cwd=stand_in).stdout
    assert "RAN fit" in run("decoder=my_head", cwd=stand_in).stdout
    assert run("decoder=my_head", "+decoder.depth=2", cwd=stand_in).returncode == 2


def test_the_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert done.stdout.startswith("lightning_vision ")
    assert light(done)


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, lightning_vision as v; dir(v); print({'torch', 'hydra', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
