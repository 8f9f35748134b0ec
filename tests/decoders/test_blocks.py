from __future__ import annotations

import pytest
import torch

from lightning_vision.decoders.blocks import BatchNorm, conv, conv_norm_relu, norm_relu, separable_conv


def test_one_value_a_channel_is_normalised_as_in_evaluation() -> None:
    norm = BatchNorm(3)
    torch.nn.init.normal_(norm.weight)
    for _ in range(3):
        norm(torch.randn(4, 3, 2, 2))
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    x = torch.randn(1, 3, 1, 1)
    trained = norm(x)
    assert all(torch.equal(value, kept[name]) for name, value in norm.state_dict().items())
    assert torch.equal(trained, norm.eval()(x))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (2, 3, 4, 5)])
def test_more_values_are_normalised_as_torch_does(shape: tuple[int, ...]) -> None:
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    x = torch.randn(shape)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


@pytest.mark.parametrize(
    ("channels", "groups"), [(256, 32), (128, 32), (64, 16), (18, 2), (6, 1), (2, 1), (1, 1), (36, 1), (96, 8)]
)
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    norm = norm_relu(channels, "group")[0]
    assert isinstance(norm, torch.nn.GroupNorm)
    assert norm.num_groups == groups
    norm(torch.randn(2, channels, 1, 1))


def test_a_convolution_has_a_bias_where_no_norm_has_one() -> None:
    assert conv_norm_relu(2, 3, norm=None)[0].bias is not None
    assert conv_norm_relu(2, 3)[0].bias is None


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("dilation", [1, 4])
def test_a_convolution_keeps_the_size(kernel_size: int, dilation: int) -> None:
    x = torch.randn(1, 2, 5, 7)
    assert conv(2, 3, kernel_size, dilation)(x).shape == (1, 3, 5, 7)
    assert separable_conv(2, 3, dilation)(x).shape == (1, 3, 5, 7)
