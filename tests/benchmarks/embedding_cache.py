"""What an epoch costs with cached embeddings: ViT-S/16 at 224 pixels, frozen, 500 images, a linear head; CPU time.

The limit is the first epoch, which decodes and encodes every image. Both are the training part of an epoch of our own
fit, from ``on_train_epoch_start`` to ``on_train_epoch_end``, at the default batch size: batches, head, loss, metrics,
optimizer, schedule and Lightning's loop. The weights are random; what they are costs nothing.

Beside the figure stand what is not ours to change, and what a user waits for all the same: Lightning's loop around a
linear layer on batches that are there already, the same layer in a plain loop, and a whole epoch of our fit with its
checkpoints (two files of 87 MB, since they hold the encoder) and its table.

    python tests/benchmarks/embedding_cache.py [number of images]

About 3 minutes of CPU time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

import lightning_vision
from lightning_vision.assembly import build_trainer, quiet_lightning

MODEL, SIZE, DIM, CLASSES, BATCH, EPOCHS = "vit_small_patch16_224", 224, 384, 4, 16, 12
TARGET = 1 / 1000


class Clock(Callback):
    """CPU seconds of the training part of each epoch, and from one epoch's start to the next."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.trained: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.starts.append(time.process_time())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.trained.append(time.process_time() - self.starts[-1])

    def whole(self) -> list[float]:
        return [after - before for before, after in zip(self.starts, self.starts[1:], strict=False)]


class Linear(LightningModule):
    """As little as Lightning can train."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(DIM, CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.cross_entropy(self.head(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def write_images(folder: Path, count: int) -> Path:
    """Photographs' size and detail, drawn: smooth noise as JPEG, 500 x 375 pixels."""
    rng = np.random.default_rng(0)
    lines = ["image,label,split"]
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
        lines.append(f"{i}.jpg,{'abcd'[i % CLASSES]},train")
    table = folder / "index.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def ours(folder: Path, table: Path, checkpoints: bool) -> Clock:
    config = lightning_vision.compose(
        encoder="timm",
        decoder="classifier",
        data="table",
        image_size=SIZE,
        batch_size=BATCH,
        epochs=EPOCHS,
        overrides={
            "data.path": str(table),
            "data.val_fraction": 0,
            "encoder.model_name": MODEL,
            "encoder.use_pretrained": False,
            "encoder.trainable": False,
            "preprocessing.lazy_cache_dir": str(folder / f"cache{checkpoints}"),
            "output_dir": str(folder / "run"),
        },
    )
    clock = Clock()
    module, data = lightning_vision.build(config)
    plain = module.config
    if not checkpoints:
        plain = {**plain, "callbacks": {"progress": plain["callbacks"]["progress"]}, "logger": {}}
    trainer = build_trainer(plain, enable_checkpointing=checkpoints)
    trainer.callbacks.insert(0, clock)
    trainer.fit(module, data)
    assert module.embeddings is not None
    assert module.embeddings.usage.encoded == len(data.index), "every image is encoded once"
    return clock


def lightning_floor(count: int) -> list[float]:
    quiet_lightning()
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    rows = torch.utils.data.TensorDataset(torch.randn(count, DIM), torch.randint(CLASSES, (count,)))
    batches = [rows[i : i + BATCH] for i in range(0, count, BATCH)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    clock = Clock()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(max_epochs=EPOCHS, accelerator="cpu", enable_model_summary=False, callbacks=[clock], **quiet).fit(
        Linear(), loader
    )
    return clock.trained[1:]


def plain_loop(count: int) -> list[float]:
    module = Linear()
    optimizer = torch.optim.AdamW(module.parameters())
    batches = [(torch.randn(BATCH, DIM), torch.randint(CLASSES, (BATCH,))) for _ in range(-(-count // BATCH))]
    taken = []
    for _ in range(EPOCHS):
        start = time.process_time()
        for batch in batches:
            optimizer.zero_grad()
            module.training_step(batch, 0).backward()
            optimizer.step()
        taken.append(time.process_time() - start)
    return taken[1:]


def main(count: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_images(folder, count)
        clock = ours(folder, table, checkpoints=False)
        whole = ours(folder, table, checkpoints=True).whole()
    first, later = clock.trained[0], statistics.median(clock.trained[1:])
    rows = Table("an epoch from the second on", "CPU ms", "of the first epoch")
    for what, seconds in (
        ("ours, training part", later),
        ("Lightning's loop around a linear layer", statistics.median(lightning_floor(count))),
        ("a plain loop around a linear layer", statistics.median(plain_loop(count))),
        ("ours, with checkpoints and metrics.csv", statistics.median(whole[1:])),
    ):
        rows.add_row(what, f"{1000 * seconds:.1f}", f"1/{first / seconds:.0f}")
    Console(width=110).print(rows)
    ratio = later / first
    print(
        f"figure: epoch 2 on {1000 * later:.1f} ms CPU, limit: epoch 1 {first:.1f} s CPU, ratio {ratio:.6f}, "
        f"target <= {TARGET:g}, holds: {ratio <= TARGET}"
    )
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
