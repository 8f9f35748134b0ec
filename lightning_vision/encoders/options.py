"""Names that several parts take as settings. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ACTIVATIONS = (
    "elu",
    "leakyRelu",
    "logSigmoid",
    "relu",
    "sigmoid",
    "tanh",
    "softmax",
    "gelu",
    "silu",
    "swish",
    "mish",
    "selu",
    "prelu",
    "relu6",
    "hardswish",
    "hardsigmoid",
    "softplus",
    "celu",
    "swiglu",
    "geglu",
    "reglu",
    "sparsemax",
    "entmax15",
)

INITIALIZERS = (
    "constant",
    "dirac",
    "eye",
    "identity",
    "kaiming_normal",
    "kaiming_uniform",
    "normal",
    "ones",
    "orthogonal",
    "sparse",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
)


def activations(node: Mapping[str, Any]) -> list[str]:
    """Return the names of all activation functions; null means none."""
    return list(ACTIVATIONS)


def initializers(node: Mapping[str, Any]) -> list[str]:
    """Return the names of all initializers."""
    return list(INITIALIZERS)
