"""Progress: a bar in a terminal, one line an epoch everywhere."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)

from lightning_vision.types import Between


class Progress(ProgressBar):
    """A bar while a terminal watches, and a line for each epoch that stays in a log file as well.

    Args:
        refresh_rate: Steps between two updates of the bar.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(self, refresh_rate: Annotated[int, Between(1)] = 20) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self._enabled = True
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._started = 0.0
        self._ended: tuple[int, float] | None = None

    def disable(self) -> None:
        """Called by Lightning on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print beside the bar."""
        if self._enabled:
            (self._bar.console.print if self._bar is not None else print)(*args)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's bar."""
        self._leave_line(trainer, pl_module)
        self._started = time.perf_counter()
        self._open(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", self.total_train_batches)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        self._advance(batch_idx + 1, self.total_train_batches)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()
        self._ended = (trainer.current_epoch, time.perf_counter() - self._started)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the line of the last epoch."""
        self._leave_line(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the test's bar."""
        self._open("test", sum(int(n) for n in self.total_test_batches_current_dataloader_list(trainer)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the bar."""
        self._advance(batch_idx + 1, None)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back before the error is shown."""
        self._close()

    @staticmethod
    def total_test_batches_current_dataloader_list(trainer: Trainer) -> list[int]:
        """Batches of each test loader."""
        return [int(n) for n in trainer.num_test_batches]

    def _leave_line(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The training figures of an epoch are known only after the callbacks of its end.
        if self._ended is None:
            return
        from lightning_vision.module import VisionModule

        epoch, seconds = self._ended
        self._ended = None
        figures = trainer.callback_metrics
        # A line has room for the losses and what the tasks are judged by; a module of someone else's is shown whole.
        names = pl_module.progress_figures() if isinstance(pl_module, VisionModule) else sorted(figures)
        shown = [f"{name} {float(figures[name]):.4f}" for name in names if name in figures]
        self.print(f"epoch {epoch + 1}/{trainer.max_epochs}  {'  '.join(shown)}  {seconds:.1f} s")

    def _open(self, title: str, total: float) -> None:
        if not (self._enabled and sys.stdout.isatty()):
            return
        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), transient=True
        )
        self._task = self._bar.add_task(title, total=total)
        self._bar.start()

    def _advance(self, done: int, total: float | None) -> None:
        if self._bar is not None and (done % self.refresh_rate == 0 or done == total):
            self._bar.update(self._task, completed=done)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
