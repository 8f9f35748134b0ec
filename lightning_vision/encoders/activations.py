"""Activation functions by their documented names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.options import ACTIVATIONS
from lightning_vision.errors import ConfigError, listed, nearest

# Their layer computes twice the channels: one half is gated by the other.
GATES: dict[str, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu": F.gelu, "reglu": F.relu}


def sparsemax(x: Tensor, dim: int = 1) -> Tensor:
    """Project onto the probability simplex (Martins and Astudillo, 2016, https://arxiv.org/abs/1602.02068).

    Args:
        x: Scores of any shape.
        dim: The dimension that becomes a distribution.

    Returns:
        Probabilities of the shape of ``x``; those of low scores are exactly 0.
    """
    z = x - x.amax(dim, keepdim=True)
    ordered = z.sort(dim, descending=True).values
    rank = _ranks(z, dim)
    total = ordered.cumsum(dim)
    support = (1 + rank * ordered > total).sum(dim, keepdim=True)
    threshold = (total.gather(dim, support - 1) - 1) / support
    return (z - threshold).clamp(min=0)


def entmax15(x: Tensor, dim: int = 1) -> Tensor:
    """1.5-entmax, between softmax and sparsemax (Peters et al., 2019, https://arxiv.org/abs/1905.05702, algorithm 2).

    Args:
        x: Scores of any shape.
        dim: The dimension that becomes a distribution.

    Returns:
        Probabilities of the shape of ``x``; those of low scores are exactly 0.
    """
    z = (x - x.amax(dim, keepdim=True)) / 2
    ordered = z.sort(dim, descending=True).values
    rank = _ranks(z, dim)
    mean = ordered.cumsum(dim) / rank
    spread = rank * ((ordered**2).cumsum(dim) / rank - mean**2)
    # The clamp keeps the derivative of the root finite where a candidate threshold does not exist.
    delta = (1 - spread) / rank
    candidates = mean - torch.where(delta > 0, delta, torch.ones_like(delta)).sqrt() * (delta > 0)
    support = (candidates <= ordered).sum(dim, keepdim=True)
    return (z - candidates.gather(dim, support - 1)).clamp(min=0) ** 2


def _ranks(x: Tensor, dim: int) -> Tensor:
    shape = [1] * x.ndim
    shape[dim] = -1
    return torch.arange(1, x.shape[dim] + 1, device=x.device, dtype=x.dtype).view(shape)


class Gate(nn.Module):
    """Halves the channels (dimension 1): the second half, through a function, scales the first (Shazeer, 2020)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 2 C, ...)`` to ``(B, C, ...)``."""
        value, gate = x.chunk(2, dim=1)
        return value * self.function(gate)


class Sparse(nn.Module):
    """``sparsemax`` or ``entmax15`` over the channels (dimension 1)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, ...)`` to distributions over the channels, computed in at least 32 bits."""
        return self.function(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x).to(x.dtype)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "leakyRelu": nn.LeakyReLU,
    "logSigmoid": nn.LogSigmoid,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softmax": lambda: nn.Softmax(dim=1),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "selu": nn.SELU,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "softplus": nn.Softplus,
    "celu": nn.CELU,
    "swiglu": lambda: Gate(F.silu),
    "geglu": lambda: Gate(F.gelu),
    "reglu": lambda: Gate(F.relu),
    "sparsemax": lambda: Sparse(sparsemax),
    "entmax15": lambda: Sparse(entmax15),
}


def make_activation(name: str | None) -> nn.Module:
    """Return the activation with this name; None is the identity. Distributions are taken over dimension 1.

    Raises:
        ConfigError: If there is no such name.
    """
    if name is None:
        return nn.Identity()
    if name not in _MODULES:
        raise ConfigError(
            "There is no such activation.",
            given=name,
            expected=f"{listed(ACTIVATIONS)}, null",
            nearest=nearest(name, ACTIVATIONS),
        )
    return _MODULES[name]()


def width_factor(name: str | None) -> int:
    """Return how many times wider the layer in front must be: 2 for gated activations."""
    return 2 if name in GATES else 1
