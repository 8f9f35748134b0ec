"""Training steps that run compiled (torch.compile), while the model, its keys and all else stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_vision.errors import ConfigError

BACKEND = "inductor"
# The methods of the module that a training step spends its time in.
OF_A_STEP = ("_outputs_of", "encode", "decode")


def compiled_steps(module: nn.Module) -> dict[str, Callable[..., Any]]:
    """Compiled forms of the module's methods, by name; each is compiled when it is first called."""
    return {name: _of_one_shape(getattr(module, name)) for name in OF_A_STEP}


def _of_one_shape(method: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for the shape that comes first: the smaller batch at the end of an epoch is not worth a second time."""
    fast = torch.compile(method, backend=BACKEND, dynamic=False)
    first: list[list[torch.Size]] = []

    def call(*inputs: Any) -> Any:
        shapes = [leaf.shape for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        first[:] = first or [shapes]
        return fast(*inputs) if shapes == first[0] else method(*inputs)

    return call


def require_compiler(device: torch.device) -> None:
    """Compile something small, so that a machine without a compiler is told before training.

    Raises:
        ConfigError: It fails.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # dynamo and the compilers behind it raise nearly every type
        raise ConfigError(
            "torch.compile does not work on this machine.",
            given=f"trainer.compile=true ({first_lines(error)})",
            expected="a C++ compiler for the CPU, Triton for CUDA",
            override="trainer.compile=false",
        ) from error


def first_lines(error: Exception) -> str:
    """What an error says first; behind dynamo's own line stands that of the compiler."""
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])[:300] or type(error).__name__
