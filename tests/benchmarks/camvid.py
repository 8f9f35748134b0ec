"""CamVid with pretrained MobileNetV2: our fit beside segmentation_models.pytorch's same decoder in a plain loop.

Both start from the same encoder weights, see the same images at 192 x 256, train 15 epochs of batches of 8 with AdamW
at 1e-3 (encoder a tenth of it), cosine, cross-entropy and horizontal flips, and are scored at 192 x 256 on the test
split with the weights of the last epoch (the plain loop has no other). What our fit reports, the checkpoint with the
best validation figure, stands beside it. Interleaved, seed by seed. About 12 minutes of CPU time a seed.

    LIGHTNING_VISION_DATA=FOLDER python tests/benchmarks/camvid.py [unet | segformer | fpn ...] [number of seeds]

Needs ``pip install --no-deps segmentation-models-pytorch``.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch.nn import functional as F

import lightning_vision
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.metrics import EpochScores, iou
from lightning_vision.types import IMAGENET_STATS

# Ours, and the class of the peer.
DECODERS = {"unet": "Unet", "segformer": "Segformer", "fpn": "FPN"}
EPOCHS, BATCH, SIZE, CLASSES, IGNORE = 15, 8, [192, 256], 11, 11


def settings(decoder: str, root: Path, weights: Path, seed: int, out: str) -> dict:
    camvid = root / "data" / "camvid"
    return {
        "encoder": "mobilenetv2",
        "decoder": decoder,
        "data": "table",
        "augmentation": "random_horizontal_flip",
        "image_size": SIZE,
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "lr": 1e-3,
        "encoder_lr_factor": 0.1,
        "seed": seed,
        "overrides": {
            "data.path": str(camvid / "index.csv"),
            "data.class_names": str(camvid / "classes.txt"),
            "data.ignore_index": IGNORE,
            "encoder.weights": str(weights),
            "scheduler.warmup": 0,  # the peer has none, and of 225 steps it would take 11
            "output_dir": out,
        },
    }


def ours(decoder: str, root: Path, weights: Path, seed: int) -> tuple[float, float, float]:
    """Mean IoU of the last epoch and of the best checkpoint; CPU seconds of the fit, with its validation and test."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        best = lightning_vision.fit(**settings(decoder, root, weights, seed, folder))
        seconds = time.process_time() - start
        last = lightning_vision.test(Path(folder) / "checkpoints" / "last.ckpt", overrides={"output_dir": folder})
        return last.metrics["test/mean_iou"], best.metrics["test/mean_iou"], seconds


def peer(decoder: str, data: VisionDataModule, weights: Path, seed: int) -> tuple[float, float]:
    start = time.process_time()
    torch.manual_seed(seed)
    model = getattr(smp, DECODERS[decoder])("mobilenet_v2", encoder_weights=None, classes=CLASSES)
    model.encoder.load_state_dict(load_file(weights))
    mean = torch.tensor(IMAGENET_STATS.mean).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STATS.std).view(1, 3, 1, 1)
    train, test = (data.batch(data.index.rows(split)) for split in ("train", "test"))
    heads = [*model.decoder.parameters(), *model.segmentation_head.parameters()]
    optimizer = torch.optim.AdamW([{"params": model.encoder.parameters(), "lr": 1e-4}, {"params": heads, "lr": 1e-3}])
    steps = math.ceil(len(train["image"]) / BATCH) * EPOCHS
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(train["image"])).split(BATCH):
            image, mask = train["image"][rows], train["target"][rows].long()
            flip = torch.rand(len(rows)) < 0.5
            image = torch.where(flip.view(-1, 1, 1, 1), image.flip(-1), image)
            mask = torch.where(flip.view(-1, 1, 1), mask.flip(-1), mask)
            loss = F.cross_entropy(model((image / 255 - mean) / std), mask, ignore_index=IGNORE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    scores = EpochScores(CLASSES, IGNORE)
    with torch.no_grad():
        for image, mask in zip(test["image"].split(BATCH), test["target"].split(BATCH), strict=True):
            scores.update(model((image / 255 - mean) / std), mask)
    return iou(scores.compute()["confusion"]).nanmean().item(), time.process_time() - start


def main(decoder: str, seeds: int) -> None:
    root = Path(os.environ["LIGHTNING_VISION_DATA"])
    weights = root / "weights" / "mobilenet_v2-tflite_quant.safetensors"
    _, data = lightning_vision.build(**settings(decoder, root, weights, 0, "unused"))
    table = Table("seed", "ours, last epoch", "smp, last epoch", "ours, best checkpoint", "ours: CPU s", "smp: CPU s")
    rows = []
    for seed in range(seeds):
        last, best, seconds = ours(decoder, root, weights, seed)
        theirs, their_seconds = peer(decoder, data, weights, seed)
        rows.append((last, theirs, best))
        cells = (f"{last:.4f}", f"{theirs:.4f}", f"{best:.4f}", f"{seconds:.0f}", f"{their_seconds:.0f}")
        table.add_row(str(seed), *cells)
        print(decoder, "seed", seed, *cells, flush=True)
    columns = list(zip(*rows, strict=True))
    means = [statistics.mean(column) for column in columns]
    table.add_row("mean", *(f"{mean:.4f}" for mean in means))
    table.add_row("spread (max - min)", *(f"{max(column) - min(column):.4f}" for column in columns))
    Console(width=120).print(table)
    print(
        f"{decoder}: figure: mean IoU {means[0]:.4f}, limit: smp {means[1]:.4f}, ratio {means[0] / means[1]:.3f}, "
        f"target >= 1, holds: {means[0] >= means[1]}"
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    count = int(words.pop()) if words and words[-1].isdigit() else 3
    for name in words or DECODERS:
        main(name, count)
