"""Progress: a line an epoch wherever it is read, a bar in a terminal alone."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_vision.callbacks.progress import Progress


class Model(LightningModule):
    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.breaks = breaks

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.breaks and batch_idx == 2:
            raise KeyError("broken")
        return self.layer(batch).sum()

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", 0.25)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/mean_iou", 0.5)

    def test_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(n: int) -> Any:
    return torch.utils.data.DataLoader(torch.zeros(n, 2), batch_size=1)


def run(progress: Progress, breaks: bool = False) -> Trainer:
    trainer = Trainer(
        max_epochs=2, callbacks=[progress], logger=False, enable_checkpointing=False, enable_model_summary=False,
        accelerator="cpu", log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Model(breaks), loader(5), loader(2))
    return trainer


@pytest.fixture(autouse=True)
def _no_advice() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]


def test_a_line_an_epoch_counted_from_one_with_the_figures_of_that_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    run(Progress())
    found = lines(capsys)
    assert [line.split("  ")[0] for line in found] == ["epoch 1/2", "epoch 2/2"]
    assert all("train/loss 0.2500" in line and "val/mean_iou 0.5000" in line for line in found)


def test_nothing_from_the_other_processes(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.disable()
    run(progress)
    assert lines(capsys) == []


class Bar:
    """Stands for rich's bar, and remembers what it was told."""

    made: list[Bar]

    def __init__(self, *columns: Any, **settings: Any) -> None:
        Bar.made.append(self)
        self.done: list[int] = []
        self.state = "new"
        self.console = self
        self.printed: list[str] = []

    def add_task(self, title: str, total: float) -> int:
        self.title, self.total = title, total
        return 0

    def start(self) -> None:
        self.state = "running"

    def stop(self) -> None:
        self.state = "stopped"

    def update(self, task: int, completed: int) -> None:
        self.done.append(completed)

    def print(self, *words: Any) -> None:
        self.printed.append(" ".join(map(str, words)))


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    Bar.made = []
    monkeypatch.setattr("lightning_vision.callbacks.progress.RichProgress", Bar)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    return Bar.made


def test_the_bar_moves_every_few_steps_and_to_the_end(bars: list[Bar]) -> None:
    progress = Progress(refresh_rate=2)
    trainer = run(progress)
    assert [bar.title for bar in bars] == ["epoch 1/2", "epoch 2/2"]
    assert all(bar.total == 5 and bar.done == [2, 4, 5] and bar.state == "stopped" for bar in bars)
    trainer.test(Model(), loader(4), verbose=False)
    assert (bars[-1].title, bars[-1].total, bars[-1].done, bars[-1].state) == ("test", 4, [2, 4], "stopped")


def test_the_terminal_is_given_back_when_a_step_fails(bars: list[Bar]) -> None:
    with pytest.raises(KeyError):
        run(Progress(), breaks=True)
    assert [bar.state for bar in bars] == ["stopped"]


def test_no_bar_in_a_file(bars: list[Bar], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    run(Progress())
    assert bars == []
