"""``python -m tests.benchmarks data``: all figures of the data path in one table; any other name: that file alone.

Each file runs in a process of its own, on one thread of torch: what one of them leaves in memory must not show in the
figures of the next.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _table import ROWS, print_rows, read_rows  # noqa: E402

GROUPS = {"data": ("decode", "modes", "index")}


def main(name: str, words: list[str]) -> int:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), *sys.path])}
    if name not in GROUPS:
        return subprocess.run([sys.executable, HERE / f"{name}.py", *words], env=env).returncode
    with tempfile.TemporaryDirectory() as folder:
        env[ROWS] = str(Path(folder) / "rows")
        codes = [subprocess.run([sys.executable, HERE / f"{p}.py", *words], env=env).returncode for p in GROUPS[name]]
        print_rows(read_rows(env[ROWS]), f"python -m tests.benchmarks {name}")
    return max(codes)


if __name__ == "__main__":
    valid = sorted({*GROUPS, *(path.stem for path in HERE.glob("[a-z]*.py"))})
    if len(sys.argv) < 2 or sys.argv[1] not in valid:
        sys.exit(f"python -m tests.benchmarks NAME, one of {', '.join(valid)}")
    sys.exit(main(sys.argv[1], sys.argv[2:]))
