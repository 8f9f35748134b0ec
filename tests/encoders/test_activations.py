from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.encoders.activations import entmax15, make_activation, sparsemax, width_factor
from lightning_vision.encoders.options import ACTIVATIONS
from lightning_vision.errors import ConfigError


def by_bisection(z: list[float], alpha: float) -> list[float]:
    """alpha-entmax of one row: the threshold at which the probabilities sum to 1 (Peters et al., 2019, algorithm 1)."""
    scaled = [(alpha - 1) * v for v in z]
    low, high = max(scaled) - 1, max(scaled)
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(max(v - middle, 0.0) ** (1 / (alpha - 1)) for v in scaled)
        low, high = (middle, high) if total > 1 else (low, middle)
    return [max(v - low, 0.0) ** (1 / (alpha - 1)) for v in scaled]


@settings(max_examples=60, deadline=None)
@given(z=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=7), alpha=st.sampled_from([1.5, 2.0]))
def test_sparse_distributions_are_those_of_bisection(z: list[float], alpha: float) -> None:
    function = entmax15 if alpha == 1.5 else sparsemax
    found = function(torch.tensor([z], dtype=torch.float64))
    torch.testing.assert_close(found[0], torch.tensor(by_bisection(z, alpha), dtype=torch.float64), atol=1e-7, rtol=0)


@pytest.mark.parametrize("function", [sparsemax, entmax15])
def test_gradients_are_right(function: object) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,))
    tied = torch.zeros(1, 4, requires_grad=True)
    function(tied)[0, 0].backward()  # type: ignore[operator]
    assert tied.grad is not None
    assert tied.grad.isfinite().all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_name_keeps_the_shape_that_the_next_layer_expects(name: str) -> None:
    activation = make_activation(name)
    for shape in ((3, 4), (2, 4, 5, 6)):
        x = torch.randn(shape[0], shape[1] * width_factor(name), *shape[2:])
        found = activation(x)
        assert found.shape == shape
        assert found.isfinite().all()
        if name in ("softmax", "sparsemax", "entmax15"):
            torch.testing.assert_close(found.sum(1), torch.ones(found.sum(1).shape))


def reference(name: str, x: Tensor) -> Tensor:
    value, gate = x.chunk(2, 1)
    return value * {"swiglu": F.silu, "geglu": F.gelu, "reglu": F.relu}[name](gate)


@pytest.mark.parametrize("name", ["swiglu", "geglu", "reglu"])
def test_gates(name: str) -> None:
    x = torch.randn(2, 6)
    assert torch.equal(make_activation(name)(x), reference(name, x))


def test_swish_is_silu_and_null_is_nothing() -> None:
    x = torch.randn(2, 3)
    assert torch.equal(make_activation("swish")(x), F.silu(x))
    assert make_activation(None)(x) is x
    assert width_factor(None) == 1


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean: leakyRelu"):
        make_activation("leakyrelu")
