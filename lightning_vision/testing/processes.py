"""Processes that start at once: forked from a server that has imported torch and Lightning and has run nothing else.

A fresh interpreter imports for five seconds before it does what a test is about. What is about the start itself (what
is imported, how a launcher starts ranks) still needs one.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Windows cannot fork: there a process imports anew.
_CONTEXT: Any = multiprocessing.get_context(
    "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
)
if _CONTEXT.get_start_method() == "forkserver":
    _CONTEXT.set_forkserver_preload(
        ["lightning_vision.app", "lightning_vision.actions.fit", "lightning_vision.module", "lightning_vision.assembly"]
    )


class Child:
    """A function that runs in a process of its own; it begins at once.

    Args:
        function: A function of a module that can be imported; what it prints is kept.
        *arguments: Its arguments, and:
        cwd: The folder to run in; None leaves it.
        environment: Variables that it has beside those of this process.
    """

    def __init__(
        self, function: Callable[..., object], *arguments: object, cwd: Path | None = None, **environment: str
    ) -> None:
        handle, self._output = tempfile.mkstemp(prefix="process-")
        os.close(handle)
        variables = {**os.environ, **environment}
        self.process = _CONTEXT.Process(target=_run, args=(self._output, cwd, variables, function, arguments))
        self.process.start()

    def wait(self, timeout: float = 150) -> tuple[int, str]:
        """Return the exit code and all that was printed; kill what hangs, and raise TimeoutError."""
        self.process.join(timeout)
        hangs = self.process.is_alive()
        if hangs:
            self.process.kill()
            self.process.join()
        output = Path(self._output).read_text(encoding="utf-8", errors="replace")
        os.unlink(self._output)
        if hangs:
            raise TimeoutError(output[-3000:])
        return self.process.exitcode, output

    def succeed(self, timeout: float = 150) -> str:
        """Return all that was printed; raise AssertionError if the process failed."""
        code, output = self.wait(timeout)
        assert code == 0, f"exit code {code}: {output[-3000:]}"
        return output


def _run(
    output: str, cwd: Path | None, variables: dict[str, str], function: Callable[..., object], arguments: Sequence[Any]
) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.environ.clear()
    os.environ.update(variables)
    if cwd is not None:
        os.chdir(cwd)
    function(*arguments)


def command_line(*words: str, cwd: Path, **environment: str) -> Child:
    """Run ``python -m lightning_vision`` with these words in a process of its own."""
    return Child(_command, words, cwd=cwd, **environment)


def rank_environments(world: int = 2) -> list[dict[str, str]]:
    """Return what torchrun puts into the environment of each rank of one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "NODE_RANK": "0"}
    return [{**shared, "LOCAL_RANK": str(rank), "RANK": str(rank)} for rank in range(world)]


def _command(words: Sequence[str]) -> None:
    sys.argv = ["lightning_vision", *words]
    runpy.run_module("lightning_vision", run_name="__main__", alter_sys=True)
