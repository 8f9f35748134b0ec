"""Ctrl-C and SIGTERM: what is kept, what is said, and the exit codes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import lightning_vision as lv
from lightning_vision import __main__ as command_line
from lightning_vision.callbacks.progress import Progress
from lightning_vision.interruption import interruptible
from lightning_vision.testing.discs import write_discs


@pytest.mark.parametrize(("sigterm", "error", "code"), [(False, KeyboardInterrupt, None), (True, SystemExit, 143)])
def test_lightnings_exit_becomes_what_it_was(sigterm: bool, error: type[BaseException], code: int | None) -> None:
    trainer: Any = SimpleNamespace(received_sigterm=sigterm)
    with pytest.raises(error) as caught, interruptible(trainer):
        sys.exit(1)
    assert getattr(caught.value, "code", None) == code


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stopped_fit_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], epoch: int
) -> None:
    def stop(self: Progress, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_train_batch_end", stop)
    values = {"data.path": str(write_discs(tmp_path / "discs")), "output_dir": str(tmp_path / "run")}
    with pytest.raises(KeyboardInterrupt):
        lv.fit(encoder="stacked_cnn", decoder="classifier", data="table", epochs=3, image_size=16, overrides=values)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert last.is_file() == (epoch == 1)
    said = capsys.readouterr().err
    assert (f"go on from the last finished epoch with checkpoint={last}" in said) == (epoch == 1)
    assert ("there is no checkpoint" in said) == (epoch == 0)


def test_the_command_line_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "_run", stop)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""
