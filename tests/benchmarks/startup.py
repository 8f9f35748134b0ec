"""What the command line costs before any training: each answer against ``import torch``.

Run: ``python tests/benchmarks/startup.py``. Target: a quarter of the CPU time of ``import torch``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _table import Figure, measure, process_cpu_seconds

ROOT = Path(__file__).resolve().parents[2]
TARGET = 0.25


def main() -> int:
    """Measure and print; returns 1 if a figure misses its target."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

        def ours(*words: str) -> float:
            return process_cpu_seconds([sys.executable, "-m", "lightning_vision", *words], folder, environment)

        def torch() -> float:
            return process_cpu_seconds([sys.executable, "-c", "import torch"], folder, environment)

        figures = [
            Figure("--help", lambda: ours("--help"), torch, TARGET),
            Figure("encoders", lambda: ours("encoders"), torch, TARGET),
            Figure("--cfg job", lambda: ours("--cfg", "job"), torch, TARGET),
            Figure("unknown option: encoder=resnt", lambda: ours("encoder=resnt"), torch, TARGET),
            Figure("unknown key: preprocessing.mod=lazy", lambda: ours("preprocessing.mod=lazy"), torch, TARGET),
            Figure("wrong value: epochs=0", lambda: ours("epochs=0"), torch, TARGET),
            Figure("wrong key of Lightning's: +trainer.fo=1", lambda: ours("+trainer.fo=1"), torch, TARGET),
            Figure("wrong value: decoder.num_stages=x", lambda: ours("decoder.num_stages=x"), torch, TARGET),
        ]
        return 0 if measure(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
