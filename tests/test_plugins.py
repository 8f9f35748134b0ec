"""A package of parts that someone else wrote, installed beside the project: tests/plugin_package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import pytest
import torch

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision.errors import CheckpointError, ConfigError
from lightning_vision.testing.discs import write_discs

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["encoder=example_patches", "decoder=example_pixels", "loss=example_brier"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that has the example plugin, and what this one has."""
    folder = tmp_path_factory.mktemp("plugin")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    found = next((folder / "venv").glob("bin/python")) if os.name != "nt" else folder / "venv" / "Scripts/python.exe"
    site = next((folder / "venv").rglob("site-packages"))
    here = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    (site / "of_the_tests.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    shutil.copytree(ROOT / "tests" / "plugin_package", folder / "source")  # the build writes beside its sources
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet", "--disable-pip-version-check"]
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(found), "install", *offline, str(folder / "source")],
        capture_output=True,
        text=True,
    )
    assert installed.returncode == 0, installed.stderr
    return found


def run(python: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(python), "-W", "error", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def succeed(python: Path, *words: str, cwd: Path) -> str:
    done = run(python, "-m", "lightning_vision", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("action", "line"),
    [
        ("encoders", "Patches of two sizes, each projected by one convolution"),
        ("decoders", "One layer at every cell of the finest map"),
        ("losses", "Brier score: squared distance of the probabilities to the truth"),
    ],
)
def test_its_options_are_listed_with_its_name(action: str, line: str, python: Path, tmp_path: Path) -> None:
    (found,) = [li for li in succeed(python, action, cwd=tmp_path).splitlines() if li.strip().startswith("example_")]
    assert found.endswith(f"{line}  [example_plugin]")


def test_it_is_on_the_search_path_and_its_settings_are_shown(python: Path, tmp_path: Path) -> None:
    assert "plugin example_plugin" in succeed(python, "--info", "searchpath", cwd=tmp_path)
    more = ["augmentation=example_mirrored", "optimizer=example_adagrad", "logger=example_elsewhere"]
    shown = succeed(python, "template=example_recipe", "template.width=6", *more, "--cfg", "job", cwd=tmp_path)
    for line in (
        "_target_: example_plugin.patches.PatchEncoder",
        "_target_: example_plugin.pixels.PixelDecoder",
        "_target_: example_plugin.brier.BrierLoss",
        "width: ${template.width}",
        "p: 0.9",
        "_target_: torch.optim.Adagrad",
        "save_dir: ${output_dir}/elsewhere",
    ):
        assert line in shown


@pytest.mark.parametrize(
    ("word", "override"),
    [
        ("encoder.patchsize=8", "encoder.patch_size=8"),
        ("encoder=example_patch", "encoder=example_patches"),
        ("decoder.dropout=1.5", "decoder.dropout=0.0"),
    ],
)
def test_mistakes_in_its_settings_are_answered_as_those_of_others(
    word: str, override: str, python: Path, tmp_path: Path
) -> None:
    words = [w for w in PARTS if w.partition("=")[0] != word.partition("=")[0]]
    done = run(python, "-m", "lightning_vision", *words, word, cwd=tmp_path)
    assert done.returncode == 2
    assert f"try:          {override}" in done.stderr
    assert not list(tmp_path.iterdir())


# Each process imports torch, which is most of its time: these three runs are one of it.
SESSION = """
import json, sys
from lightning_vision.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    main()
print("LOGS", sorted({"tensorboard", "wandb", "mlflow"} & set(sys.modules)))
from lightning_vision.testing.plugins import check_plugin, options_in
check_plugin("example_plugin")
from example_plugin.pixels import PixelDecoder
PixelDecoder.forward = lambda self, features, size: self.layers(features[0])
try:
    check_plugin("example_plugin")
except AssertionError as error:
    print("REFUSED", error)
print("OPTIONS", options_in("example_plugin"))
"""


def test_a_run_with_its_parts_and_its_checkpoint(python: Path, tmp_path: Path) -> None:
    table = write_discs(tmp_path / "data", count=12)
    best = "checkpoint=fit/checkpoints/best.ckpt"
    small = ["image_size=32", "batch_size=4", "epochs=1", "optimizer=example_adagrad", "augmentation=example_mirrored"]
    runs = [
        ["data=table", f"data.path={table}", "data.target=mask", "data.ignore_index=255", *PARTS, *small],
        ["test", best, "hydra.run.dir=test"],
        ["predict", best, f"source={table}", "hydra.run.dir=predict"],
    ]
    runs[0].append("hydra.run.dir=fit")
    done = run(python, "-W", "default", "-c", textwrap.dedent(SESSION), json.dumps(runs), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    fitted, tested = (json.loads((tmp_path / f / "metrics.json").read_text()) for f in ("fit", "test"))
    assert tested["test/mean_iou"] == fitted["test/mean_iou"]
    assert list((tmp_path / "predict" / "predictions").rglob("*.png"))
    assert "LOGS []" in done.stdout, "a run that has none of these logs does not import their packages"
    assert "REFUSED decoder=example_pixels: logits" in done.stdout
    options = done.stdout.split("OPTIONS", 1)[1]
    for option in ("('encoder', 'example_patches')", "('template', 'example_recipe')"):
        assert option in options

    # Here the plugin is not installed.
    file = tmp_path / "fit" / "checkpoints" / "best.ckpt"
    with pytest.raises(CheckpointError, match="needs the plugin example_plugin, which is not installed") as caught:
        lv.load(file)
    assert caught.value.expected == "the package example-plugin 0.1.0, from where you trust it"
    state = torch.load(file, weights_only=True)
    del state[checkpoints.KEY]["plugins"]  # as written before plugins were noted
    torch.save(state, file)
    with pytest.raises(ConfigError, match=r"example_plugin"):
        lv.load(file)
