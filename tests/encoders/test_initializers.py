from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_vision.encoders.initializers import initialize
from lightning_vision.encoders.options import INITIALIZERS
from lightning_vision.errors import ConfigError


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1, 1), (6,)])
def test_every_name_fills_every_kind_of_tensor(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tensor = torch.full(shape, float("nan"))
    initialize(tensor, name)
    assert tensor.isfinite().all()


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [
        ("zeros", [[0, 0], [0, 0]]),
        ("ones", [[1, 1], [1, 1]]),
        ("eye", [[1, 0], [0, 1]]),
        ("identity", [[1, 0], [0, 1]]),
        ("dirac", [[1, 0], [0, 1]]),
        ({"type": "constant", "val": 3.0}, [[3, 3], [3, 3]]),
    ],
)
def test_values(initializer: str | dict[str, Any], expected: list[list[float]]) -> None:
    tensor = torch.empty(2, 2)
    initialize(tensor, initializer)
    assert tensor.tolist() == expected


def test_a_pixels_weights_are_the_matrix_of_a_vectors() -> None:
    matrix, kernel = torch.empty(5, 3), torch.empty(5, 3, 1, 1)
    for name in ("xavier_uniform", "orthogonal", "kaiming_normal"):
        torch.manual_seed(0)
        initialize(matrix, name)
        torch.manual_seed(0)
        initialize(kernel, name)
        assert torch.equal(matrix, kernel[..., 0, 0])


@pytest.mark.parametrize("initializer", ["xavier", {"type": "normal", "sdt": 1.0}, {"std": 1.0}])
def test_wrong_settings_are_refused(initializer: str | dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        initialize(torch.empty(2, 2), initializer)
