"""The action summary, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import lightning_vision as lv
from lightning_vision.actions.summary import run
from lightning_vision.errors import ConfigError


def test_nothing_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "day" / "time"
    (folder / ".hydra").mkdir(parents=True)  # as Hydra does
    (folder / ".hydra" / "config.yaml").touch()
    cfg = lv.compose(["action=summary", "quick=true", "report=-", "image_size=32"], output_dir=str(folder))
    run(cfg)
    told = json.loads(capsys.readouterr().out)
    assert told["cost"] is None
    assert told["geometry"] == {"height": 32, "width": 32, "num_channels": 3, "num_inputs": 1}
    assert told["parameters"] == sum(row["parameters"] for part in told["parts"] for row in part["rows"])
    assert not list(tmp_path.iterdir())


def test_a_picture_and_a_report_are_written_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = lv.compose(quick=True, plots="architecture", report=str(tmp_path / "s.json"), output_dir=str(tmp_path / "o"))
    run(cfg)
    assert (tmp_path / "o/plots/architecture.png").stat().st_size > 2000
    assert json.loads((tmp_path / "s.json").read_text())["parameters"] > 0
    assert "decoder: UNet" in capsys.readouterr().out


def test_a_picture_that_it_does_not_draw() -> None:
    with pytest.raises(ConfigError, match="does not draw") as caught:
        lv.summary(quick=True, plots=["architecture", "classes"])
    assert caught.value.overrides[0] == "plots=architecture"
