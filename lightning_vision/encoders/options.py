"""Names that several parts take as settings. No torch import."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal[
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
]
Initializer = Literal[
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
]
Norm = Literal["batch", "layer"]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
PoolFunction = Literal["max", "average", "avg", "mean"]

ACTIVATIONS: tuple[str, ...] = get_args(Activation)
INITIALIZERS: tuple[str, ...] = get_args(Initializer)
