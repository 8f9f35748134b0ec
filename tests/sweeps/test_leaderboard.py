from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lightning_vision.sweeps import leaderboard, picture
from lightning_vision.sweeps.trial import Trial, load, save


def trial(number: int, value: float | None, monitor: str = "val/accuracy", **values: str) -> Trial:
    found = Trial(number, [f"{k}={v}" for k, v in values.items()], values, folder=str(number), status="finished")
    found.monitor, found.value, found.epochs, found.seconds = monitor, value, 3, 1.5
    found.metrics = {monitor.replace("val/", "test/"): 0.5}
    return found


def failed(number: int, **values: str) -> Trial:
    found = Trial(number, [], values, folder=str(number))
    found.fail(RuntimeError("out of memory\nand more"))
    return found


def test_the_best_first_whatever_best_means() -> None:
    rows = leaderboard.ranked([trial(0, 0.5), failed(1), trial(2, 0.9), trial(3, 0.5), trial(4, None)])
    assert [(rank, t.number) for rank, t in rows] == [(1, 2), (2, 0), (2, 3), (None, 1), (None, 4)]
    rows = leaderboard.ranked([trial(0, 0.5, "val/loss"), trial(1, 0.4, "val/loss")])
    assert [(rank, t.number) for rank, t in rows] == [(1, 1), (2, 0)]


def test_other_figures_are_ranked_by_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [trial(0, 0.5), trial(1, 0.3, "val/mean_iou"), trial(2, 0.9), trial(3, 0.4, "val/mean_iou")]
    assert [(r, t.number) for r, t in leaderboard.ranked(trials)] == [(1, 2), (2, 0), (1, 3), (2, 1)]
    leaderboard.show(trials, tmp_path)
    said = capsys.readouterr().out
    assert "val/accuracy, val/mean_iou are ranked each by itself: they cannot be compared" in said
    assert "best: trial 2, val/accuracy 0.9000 (max)" in said
    assert "best: trial 3, val/mean_iou 0.4000 (max)" in said


def test_the_file(tmp_path: Path) -> None:
    trials = [trial(0, 0.5, lr="0.1", encoder="a"), failed(1, lr="0.2", encoder="b"), trial(2, 0.75, lr="0.3")]
    leaderboard.write(trials, tmp_path)
    with (tmp_path / "leaderboard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[0] == {
        **{"rank": "1", "trial": "2", "status": "finished", "lr": "0.3", "encoder": "", "folder": "2", "error": ""},
        **{"monitor": "val/accuracy", "direction": "max", "value": "0.75", "test/accuracy": "0.5"},
        **{"trained_epochs": "3", "seconds": "1.5"},
    }
    assert rows[2]["error"] == "RuntimeError: out of memory"
    save(trials, tmp_path)
    assert load(tmp_path) == trials


def test_the_command_of_a_trial() -> None:
    words = ["data.path='a b'", "encoder=a", "action=fit"]
    assert Trial(0, words, {}).command() == "python -m lightning_vision \"data.path='a b'\" encoder=a"
    assert Trial(0, ["seed=1", "action=test"], {}).command() == "python -m lightning_vision test seed=1"
    forced = Trial(0, ["template=a", "++template.num_epochs=1", "++other=1"], {})
    assert forced.command() == "python -m lightning_vision template=a template.num_epochs=1 ++other=1"


def test_figures_of_classes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(
        '{"best": 0.5, "epochs": 2.0, "test/mask/iou": 1, "test/mask/iou/sky": 1, "test/f1/dog": 1, "test/f1": null, '
        '"test/loss": 2, "test/f1/ci95_low": 0}'
    )
    (tmp_path / "config.yaml").write_text("# a reason\nmonitor: val/mask/iou\noutputs: {mask: {decoder: unet}}\n")
    found = Trial(0, [], {})
    found.finish(tmp_path)
    assert (found.value, found.epochs, found.monitor) == (0.5, 2, "val/mask/iou")
    assert found.metrics == {"test/mask/iou": 1, "test/loss": 2}


KINDS = {
    "one number": [trial(i, 0.1 * i, lr=str(10.0**-i)) for i in range(4)],
    "two numbers": [trial(i, 0.1 * i, lr=str(0.1 * i), a=str(i * i)) for i in range(8)],
    "choices": [trial(i, 0.1 * i, encoder=f"$e{i}", decoder=f"d{i}", lr=str(i)) for i in range(40)],
    "two figures": [trial(0, 0.1, lr="1", e="a"), trial(1, 0.2, "val/loss", lr="1", e="b"), failed(2, lr="x", e="c")],
    "one trial": [trial(0, -0.1)],
}


@pytest.mark.pictures
@pytest.mark.parametrize("kind", KINDS)
def test_pictures(kind: str, tmp_path: Path) -> None:
    picture.draw(KINDS[kind], tmp_path)
    assert (tmp_path / "leaderboard.png").stat().st_size > 5000


def test_no_picture_of_nothing(tmp_path: Path) -> None:
    picture.draw([failed(0)], tmp_path)
    assert not list(tmp_path.iterdir())
