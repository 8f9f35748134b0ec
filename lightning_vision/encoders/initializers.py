"""Initializers by their documented names, for weights and for biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import init

from lightning_vision.encoders.options import INITIALIZERS
from lightning_vision.errors import ConfigError, listed, nearest


def _constant(tensor: Tensor, val: float = 0.1) -> Tensor:
    return init.constant_(tensor, val)


def _sparse(tensor: Tensor, sparsity: float = 0.1, std: float = 0.01) -> Tensor:
    return init.sparse_(tensor, sparsity, std)


def _dirac(tensor: Tensor, groups: int = 1) -> Tensor:
    init.dirac_(tensor.unsqueeze(-1), groups)
    return tensor


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "constant": _constant,
    "dirac": _dirac,
    "eye": init.eye_,
    "identity": init.eye_,
    "kaiming_normal": init.kaiming_normal_,
    "kaiming_uniform": init.kaiming_uniform_,
    "normal": init.normal_,
    "ones": init.ones_,
    "orthogonal": init.orthogonal_,
    "sparse": _sparse,
    "uniform": init.uniform_,
    "xavier_normal": init.xavier_normal_,
    "xavier_uniform": init.xavier_uniform_,
    "zeros": init.zeros_,
}


@torch.no_grad()
def initialize(tensor: Tensor, initializer: str | dict[str, Any]) -> None:
    """Fill a tensor in place.

    Weights of 1 x 1 convolutions are treated as the matrices that they are; a bias of length n as a matrix ``(1, n)``,
    so that every initializer is defined for it.

    Args:
        tensor: Weights or bias.
        initializer: A name, or ``{type: name, ...}`` with arguments of the function in ``torch.nn.init``
            (``{type: normal, std: 0.02}``). ``constant`` alone means 0.1, ``sparse`` alone a sparsity of 0.1.

    Raises:
        ConfigError: If there is no such name or argument.
    """
    settings = {"type": initializer} if isinstance(initializer, str) else dict(initializer)
    name = settings.pop("type", None)
    if name not in _FUNCTIONS:
        raise ConfigError(
            "There is no such initializer.",
            given=initializer,
            expected=listed(INITIALIZERS),
            nearest=nearest(str(name), INITIALIZERS),
        )
    matrix = tensor.view(1, -1) if tensor.ndim == 1 else tensor.flatten(1)
    try:
        _FUNCTIONS[name](matrix, **settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The initializer does not take these arguments: {error}", given=initializer) from error
