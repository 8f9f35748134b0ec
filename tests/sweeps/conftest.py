"""Sweeps in the process of the tests."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_vision.__main__ import main
from lightning_vision.sweeps.trial import Trial, load


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``-m`` with words in this process; ``run`` stands in for the app. Returns the exit code.

    Memory is collected after a trial (half a second beside torch) only where ``collects`` says so.
    """

    def call(*words: str, run: Callable[[Any], float | None] = lambda cfg: 0.5, collects: bool = False) -> int:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("lightning_vision.app.run", run)
        if not collects:
            # In this order: the second imports its name from the first.
            monkeypatch.setattr("lightning_vision.sweeps.runners.free_memory", lambda: None)
            monkeypatch.setattr("lightning_vision.sweeps.clean.free_memory", lambda: None)
        resumed = any(word.startswith("sweep.resume=") for word in words)
        folder = [] if resumed else ["hydra.sweep.dir=s"]
        monkeypatch.setattr("sys.argv", ["lightning_vision", "-m", *words, *folder])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        return 0

    return call


@pytest.fixture
def trials(tmp_path: Path) -> Callable[[], list[Trial]]:
    """Read the trials of the sweep."""
    return lambda: load(tmp_path / "s")
