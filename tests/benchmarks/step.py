"""A training step of ours, its figures and callbacks on, beside one of a bare LightningModule with the same model.

    OMP_NUM_THREADS=1 python tests/benchmarks/step.py

Lightning's Trainer runs both on the same batches in memory, with the same optimizer and schedule, some hundred steps
each in turns; the difference is what our module, its training figures and our callbacks add to a step. The bare side
has no logger, no bar and no callback.
"""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import tempfile
import time
import warnings
from typing import Any

import torch
from _table import print_rows
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_vision import build
from lightning_vision.assembly import build_trainer
from lightning_vision.module import VisionModule
from lightning_vision.optim import parameter_groups

STEPS, WARM_UP, ROUNDS, BATCH, SIZE = 150, 30, 25, 8, 16
TARGET = 0.2


class Bare(LightningModule):
    """The same model, loss, optimizer and schedule, and nothing else.

    Args:
        vision: The module whose parts it takes.
    """

    def __init__(self, vision: VisionModule) -> None:
        super().__init__()
        self.normalize, self.encoder, self.decoder, self.loss = copy.deepcopy(
            (vision.normalize, vision.encoder, vision.decoder, vision.head().loss)
        )
        self.configure, self.rates = vision.configure, (vision.lr, vision.weight_decay, vision.encoder_lr_factor)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.encoder.embed(self.normalize(batch["image"]))
        return self.loss(self.decoder(features, (SIZE, SIZE)), batch["target"])

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.configure(parameter_groups(self.encoder, [self.decoder], *self.rates), STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Clock(Callback):
    """CPU milliseconds a step, all threads, without the first steps and the end of the epoch."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.start = 0.0

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == WARM_UP:
            self.start = time.process_time()
        elif batch_idx == STEPS - 1:
            self.taken.append((time.process_time() - self.start) / (STEPS - 1 - WARM_UP) * 1000)

    @property
    def least(self) -> float:
        """Other processes of the machine only add, and to the longer side more."""
        return min(self.taken[1:])


def loader(steps: int) -> DataLoader:
    """One batch in memory, so many times."""
    image = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    batch = {"image": image, "target": torch.arange(BATCH) % 3, "index": torch.arange(BATCH)}
    return DataLoader([batch] * steps, batch_size=None)


def run_in_turns() -> tuple[Clock, Clock]:
    """Clocks of ours and of the bare module."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["data=shapes", "decoder=classifier", "encoder.out_channels=8", f"output_dir={folder}", "epochs=1"]
        ours, _ = build(settings, image_size=SIZE)
        bare, batches, validation = Bare(ours), loader(STEPS), loader(1)
        clocks = Clock(), Clock()
        for _ in range(ROUNDS + 1):
            trainer = build_trainer(ours.config)
            trainer.callbacks.append(clocks[0])
            trainer.fit(ours, batches, validation)
            quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            plain = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, callbacks=[clocks[1]], **quiet)
            plain.fit(bare, batches)
    return clocks


def main() -> bool:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        ours, bare = run_in_turns()
    more = ours.least - bare.least
    cells = [f"{ours.least:.3f} ms CPU", f"{bare.least:.3f} ms CPU", f"{more:+.3f} ms", f"≤ {TARGET:+} ms"]
    print_rows([["training step, and of a bare module", *cells, "yes" if more <= TARGET else "NO"]])
    return more <= TARGET


if __name__ == "__main__":
    sys.exit(not main())
