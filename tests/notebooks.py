"""Run the notebooks, and store what they show, so that they can be read without running.

    python -m tests.notebooks            all
    python -m tests.notebooks 01 04      those whose names begin so

Each runs from its first cell to its last in a kernel and a folder of its own. With ``LIGHTNING_VISION_DATA`` they use
the real images where they say so. What is stored has no paths of this machine, no warnings, and pictures of a
moderate size; a cell that warns or fails ends the command.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PARAMETERS = "parameters"  # the tag of the cell whose values a test may replace by smaller ones
# Imported once, where all kernels are forked from: that costs as much as all else that most notebooks do.
PRELOAD = [
    "tqdm.auto",  # before IPython, or it asks for widgets
    "ipykernel.kernelapp",
    "pandas",
    "matplotlib.figure",  # pyplot would choose its backend before there is a notebook
    "lightning_vision.assembly",
    "lightning_vision.reports.run",
    "lightning_vision.inference.run",
    "hydra",
    "torchvision",
]
LONGEST = 900  # pixels: pictures are stored no wider
HEAVIEST = 120_000  # bytes: heavier ones are stored as JPEG


def run(
    path: Path, folder: Path, values: Mapping[str, Any] | None = None, timeout: int | None = None, **environment: str
) -> Any:
    """Run a notebook in a fresh kernel and return it with its outputs.

    Args:
        path: The notebook; the file stays as it is.
        folder: Where the kernel works.
        values: Take the place of what the cell with the tag ``parameters`` sets, by name.
        timeout: Seconds that a cell may take.
        environment: Variables of the kernel; an empty one is taken out.
    """
    notebook = nbformat.read(path, as_version=4)
    if values:
        (at,) = [i for i, c in enumerate(notebook.cells) if PARAMETERS in c.metadata.get("tags", ())]
        lines = [f"{name} = {value!r}" for name, value in values.items()]
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    client = NotebookClient(notebook, km=_manager(environment), timeout=timeout, record_timing=False)
    client.owns_km = True  # it ends the kernel, and closes what leads to it
    client.resources = {"metadata": {"path": str(folder)}}
    asyncio.run(client.async_execute(env=os.environ | environment))
    return notebook


class ForkedKernel(LocalProvisioner):
    """A kernel that is forked from a process which has imported everything, in place of one that imports it anew."""

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> Any:
        """Fork the kernel; ``cmd`` names the file of its connection."""
        file = cmd[cmd.index("-f") + 1]
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        process = context.Process(target=_serve, args=(file, settings["cwd"], settings["env"]), daemon=True)
        process.start()
        self.process, self.pid = _Forked(process), process.pid
        return self.connection_info


class _Forked:
    """What Jupyter asks of a process, told by one of multiprocessing."""

    stdin = stdout = stderr = None

    def __init__(self, process: BaseProcess) -> None:
        self._process, self.terminate, self.kill = process, process.terminate, process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(int(self._process.pid or 0), number)


def _serve(file: str, folder: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update({name: value for name, value in environment.items() if value})
    os.chdir(folder)
    sys.path.insert(0, "")
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp

    matplotlib.rcParams["backend"] = environment["MPLBACKEND"]  # it was read where nobody looks at pictures
    IPKernelApp.launch_instance(argv=["-f", file, "--log-level=ERROR", "--IPKernelApp.quiet=True"])


def _manager(environment: dict[str, str]) -> AsyncKernelManager:
    # A command line in a cell is to find this Python, and this package.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    manager = AsyncKernelManager(kernel_name="python3")
    manager.provisioner = ForkedKernel(kernel_id="notebook", kernel_spec=manager.kernel_spec, parent=manager)
    return manager


def cleaned(notebook: Any, hidden: Mapping[str, str]) -> Any:
    """Bring outputs into the form in which they are stored.

    Args:
        notebook: A notebook that was run.
        hidden: What to write in place of folders of this machine.

    Raises:
        ValueError: A cell wrote to stderr: a warning is no output to be proud of.
    """
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        _join_streams(cell)
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"a cell warns:\n{cell.source}\n\n{output.text}")
            if output.output_type == "stream":
                output.text = _without(output.text, hidden)
            for kind in [k for k in output.get("data", {}) if k.startswith("text/")]:
                output.data[kind] = _without(output.data[kind], hidden)
            if "image/png" in output.get("data", {}):
                _shrink(output)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _join_streams(cell: Any) -> None:
    """Make one output of lines that were printed one by one: a viewer leaves a gap between two outputs."""
    joined: list[Any] = []
    for output in cell.get("outputs", ()):
        if joined and output.output_type == "stream" == joined[-1].output_type and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    if cell.cell_type == "code":
        cell.outputs = joined


def _without(text: str, hidden: Mapping[str, str]) -> str:
    for folder, name in hidden.items():
        text = text.replace(folder, name)
    return re.sub(r" at 0x[0-9a-f]+", "", _as_left(text))


def _as_left(text: str) -> str:
    """What a command leaves in a terminal: no colours, and of a line that was written several times the last."""
    shown: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        for _ in range(min(line.count("\x1b[1A"), len(shown))):  # the cursor goes up, to write there again
            shown.pop()
        last = re.split(r"\r|\x1b\[[012]?K|\x1b\[1A", line)[-1]
        shown.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last))
    text = "\n".join(shown)
    return re.sub(r"\n{3,}", "\n\n", text)


def _shrink(output: Any) -> None:
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    if picture.width > LONGEST:
        picture = picture.resize((LONGEST, round(picture.height * LONGEST / picture.width)), Image.Resampling.LANCZOS)
    buffer, kind = io.BytesIO(), "image/png"
    picture.save(buffer, "PNG", optimize=True)
    if buffer.tell() > HEAVIEST:
        buffer, kind = io.BytesIO(), "image/jpeg"
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
        del output.data["image/png"]
        output.metadata.pop("image/png", None)
    output.data[kind] = base64.b64encode(buffer.getvalue()).decode()


def main(names: list[str]) -> None:
    """Run the notebooks and store them with their outputs."""
    for path in NOTEBOOKS:
        if names and not path.name.startswith(tuple(names)):
            continue
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, Path(folder))
            hidden = {folder + os.sep: "", folder: ".", str(Path.home()): "~"}
        nbformat.write(cleaned(notebook, hidden), path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
