"""The way that ``trainer.precision=auto trainer.channels_last=auto`` chooses, beside plain fp32: CPU time of steps.

    OMP_NUM_THREADS=1 python tests/benchmarks/precision.py

Steps with augmentation left out and AdamW, of models with random weights on the built-in images. The steps of the
choice are held against those of plain fp32; a choice that is fp32 is one by 0 %. What the measuring costs stands below,
in steps of plain fp32: it is limited to a share of the run, and runs that are too short are not measured.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings

# On a machine that does other things too, threads that wait for each other would count their waiting as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from _table import Figure, cpu_seconds, measure

from lightning_vision.actions.arguments import composed
from lightning_vision.actions.models import build_parts
from lightning_vision.allocator import keep_freed_memory
from lightning_vision.assembly import quiet_lightning
from lightning_vision.resolve import resolve
from lightning_vision.tuning.trial import first_batches
from lightning_vision.tuning.ways import Measured, Steps, Way, choose_way

CPU, BATCH, STEPS = torch.device("cpu"), 8, 4
MODELS = (
    ("MobileNetV2, 96 px", ["encoder=mobilenetv2"], 96),
    ("MobileNetV2, 129 px", ["encoder=mobilenetv2"], 129),
    ("ViT-tiny, 112 px", ["encoder=timm", "encoder.model_name=vit_tiny_patch16_224"], 112),
    ("ResNet-18, 112 px", ["encoder=resnet", "encoder.model_variant=18"], 112),
)


def figure(name: str, words: list[str], size: int, folder: str) -> Figure:
    auto = {"trainer.precision": "auto", "trainer.channels_last": "auto", "trainer.accelerator": "cpu"}
    values = {"image_size": size, "batch_size": BATCH, "epochs": 100, "output_dir": folder, **auto}
    plan = resolve(composed([*words, "encoder.use_pretrained=false", "decoder=classifier"], values, "build"))
    module, data = build_parts(plan)
    cost = cpu_seconds(lambda: choose_way(plan.config, module, data, CPU))
    trainer = plan.config["trainer"]
    plain, chosen = Way("32-true"), Way(trainer["precision"], trainer["channels_last"])
    steps = Steps(module, first_batches(data, STEPS), plan.config, CPU)
    optimizers = {way: torch.optim.AdamW(steps._opened(way)[0].parameters()) for way in {plain, chosen}}

    def run(way: Way) -> float:
        def some() -> None:
            for turn in range(STEPS):
                steps._once(way, turn, True, Measured())
                optimizers[way].step()
                optimizers[way].zero_grad(set_to_none=True)

        return cpu_seconds(some)

    run(plain)
    step = min(run(plain) for _ in range(2)) / STEPS
    print(f"{name}: measuring took {cost:.1f} s CPU, {cost / step:.0f} steps of {step:.3f} s in plain fp32", flush=True)
    return Figure(f"{name}: {chosen} / 32-true", lambda: run(chosen), lambda: run(plain), 1.03)


def main() -> bool:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    quiet_lightning()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        return measure([figure(*model, folder) for model in MODELS], repeats=5)


if __name__ == "__main__":
    sys.exit(not main())
