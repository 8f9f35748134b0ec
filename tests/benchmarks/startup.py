"""What the command line costs before any training, and up to the end of the first training step, as CPU time.

Run: ``python tests/benchmarks/startup.py``. Targets: an answer costs a quarter of ``import torch``; the first step of
the default model, from the start of the process on, 1.15 times ``import lightning.pytorch, hydra``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _table import Figure, measure, process_cpu_seconds

ROOT = Path(__file__).resolve().parents[2]
TARGET = 0.25
FIRST_STEP_TARGET = 1.15

DONE = 7
IMPORTS = f"import os, lightning.pytorch, hydra; os._exit({DONE})"
# The command line as it is typed, ended behind the optimizer's first step; neither side pays for taking Python down.
FIRST_STEP = f"""
import os
from lightning_vision import runfolder
from lightning_vision.__main__ import main

def end_after_the_first_step(plan, module, data):
    type(module).on_train_batch_end = lambda *args: os._exit({DONE})

runfolder.announce = end_after_the_first_step
main()
"""


def python_cpu_seconds(code: str, words: list[str], folder: str, environment: dict[str, str]) -> float:
    """CPU seconds of ``code`` in a fresh Python, which must end where it says that it is done."""
    command = [sys.executable, "-c", code, *words]
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != DONE:
        raise RuntimeError(f"ended with {process.returncode}: {' '.join(words)}")
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure and print; returns 1 if a figure misses its target."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        # Drawn by the round that is thrown away.
        sample = [f"data.path={folder}/sample"]

        def ours(*words: str) -> float:
            return process_cpu_seconds([sys.executable, "-m", "lightning_vision", *words], folder, environment)

        def torch() -> float:
            return process_cpu_seconds([sys.executable, "-c", "import torch"], folder, environment)

        def first_step(*words: str) -> float:
            return python_cpu_seconds(FIRST_STEP, [*sample, *words], folder, environment)

        def imports() -> float:
            return python_cpu_seconds(IMPORTS, [], folder, environment)

        figures = [
            Figure("--help", lambda: ours("--help"), torch, TARGET),
            Figure("encoders", lambda: ours("encoders"), torch, TARGET),
            Figure("--cfg job", lambda: ours("--cfg", "job"), torch, TARGET),
            Figure("unknown option: encoder=resnt", lambda: ours("encoder=resnt"), torch, TARGET),
            Figure("unknown key: preprocessing.mod=lazy", lambda: ours("preprocessing.mod=lazy"), torch, TARGET),
            Figure("wrong value: epochs=0", lambda: ours("epochs=0"), torch, TARGET),
            Figure("wrong key of Lightning's: +trainer.fo=1", lambda: ours("+trainer.fo=1"), torch, TARGET),
            Figure("wrong value: decoder.num_stages=x", lambda: ours("decoder.num_stages=x"), torch, TARGET),
            Figure("first step: stacked_cnn, unet", lambda: first_step(), imports, FIRST_STEP_TARGET),
            Figure(
                "first step: stacked_cnn, classifier",
                lambda: first_step("decoder=classifier"),
                imports,
                FIRST_STEP_TARGET,
            ),
        ]
        return 0 if measure(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
