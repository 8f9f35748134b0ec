"""The best checkpoint of a run that goes on in another folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_vision.callbacks.checkpoints import BestCheckpoint


def state(folder: Path, score: float) -> dict[str, Any]:
    """What a checkpoint of a run in ``folder`` holds of the callback."""
    best = str(folder / "best.ckpt")
    return {
        "monitor": "val/x",
        "best_model_score": torch.tensor(score),
        "best_model_path": best,
        "current_score": torch.tensor(score),
        "dirpath": str(folder),
        "best_k_models": {best: torch.tensor(score)},
        "kth_best_model_path": best,
        "kth_value": torch.tensor(score),
        "last_model_path": "",
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "best.ckpt").write_bytes(b"the best so far")
    return folder


def test_it_is_taken_along_and_beaten_only_by_a_better_one(old: Path, tmp_path: Path) -> None:
    best = BestCheckpoint(str(tmp_path / "new"), monitor="val/x", mode="max")
    best.load_state_dict(state(old, 0.7))
    assert (tmp_path / "new" / "best.ckpt").read_bytes() == b"the best so far"
    assert best.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert not best.check_monitor_top_k(_Trainer(), torch.tensor(0.6))  # type: ignore[arg-type]
    assert best.check_monitor_top_k(_Trainer(), torch.tensor(0.8))  # type: ignore[arg-type]
    assert (old / "best.ckpt").is_file(), "the old run stays as it was"


class _Trainer:
    class strategy:
        @staticmethod
        def reduce_boolean_decision(decision: bool) -> bool:
            return bool(decision)


def test_in_the_same_folder_nothing_is_copied(old: Path) -> None:
    best = BestCheckpoint(str(old), monitor="val/x", mode="max")
    best.load_state_dict(state(old, 0.7))
    assert best.best_model_score == pytest.approx(0.7)
    assert best.best_model_path == str(old / "best.ckpt")


def test_where_the_old_file_is_gone_the_new_folder_has_its_own_best(old: Path, tmp_path: Path) -> None:
    (old / "best.ckpt").unlink()
    best = BestCheckpoint(str(tmp_path / "new"), monitor="val/x", mode="max")
    with pytest.warns(UserWarning, match="dirpath has changed"):
        best.load_state_dict(state(old, 0.7))
    assert best.best_k_models == {}
    assert best.best_model_score is None
