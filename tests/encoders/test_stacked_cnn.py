from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lightning_vision.checks import check
from lightning_vision.config import compose
from lightning_vision.encoders.conv_block import ConvBlock
from lightning_vision.encoders.layers import FC_KEYS
from lightning_vision.encoders.maps import average_to_grid, fit_to_centre
from lightning_vision.encoders.options import ACTIVATIONS
from lightning_vision.encoders.stacked_cnn import StackedCNN
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder


def test_the_default_is_the_documented_one() -> None:
    torch.manual_seed(0)
    encoder = StackedCNN()
    x = torch.randn(2, 3, 40, 52)
    first, second = encoder.blocks
    assert isinstance(first, ConvBlock)
    assert isinstance(second, ConvBlock)
    y = F.max_pool2d(F.relu(F.conv2d(x, first.conv.weight, first.conv.bias)), 2)
    y = F.max_pool2d(F.relu(F.conv2d(y, second.conv.weight, second.conv.bias)), 2)
    assert y.shape[1:] == (64, 8, 11)
    linear = encoder.fc[0]
    assert isinstance(linear, nn.Linear)
    expected = F.relu(linear(F.adaptive_avg_pool2d(y, 4).flatten(1)))
    torch.testing.assert_close(encoder.embed(x), expected)
    assert encoder.info.embed_dim == 128
    assert encoder.info.strides == (2, 4)
    assert encoder.info.channels == (32, 64)


def test_the_number_of_parameters_does_not_depend_on_the_image() -> None:
    encoder = StackedCNN()
    assert encoder.embed(torch.zeros(1, 3, 12, 200)).shape == encoder.embed(torch.zeros(1, 3, 90, 11)).shape


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_conv_layers": 3, "out_channels": 6, "padding": "same"},
        {"padding": "same", "stride": 2, "kernel_size": 4, "pool_kernel_size": None},
        {"padding": [2, 1], "kernel_size": [3, 5], "padding_mode": "reflect"},
        {"padding": 1, "padding_mode": "circular", "dilation": 2},
        {"padding": "same", "padding_mode": "replicate", "conv_norm": "batch", "conv_norm_params": {"momentum": 0.3}},
        {"conv_norm": "layer", "conv_norm_params": {"eps": 1e-3}, "conv_dropout": 0.2, "conv_use_bias": False},
        {"pool_function": "average", "pool_kernel_size": 3, "pool_stride": 2, "pool_padding": 1},
        {"pool_function": "mean", "pool_dilation": 2},
        {"pool_function": "max", "pool_dilation": [2, 1], "stride": [1, 2]},
        {"conv_activation": "swiglu", "fc_activation": "geglu", "fc_norm": "layer", "num_fc_layers": 2},
        {"num_conv_layers": 2, "out_channels": 8, "groups": 2, "num_channels": 2},
        {"num_fc_layers": 0},
        {
            "conv_layers": [
                {"out_channels": 4, "norm": "batch", "activation": None},
                {"kernel_size": 5, "padding": "same"},
            ]
        },
        {"fc_layers": [{"output_size": 9, "norm": "batch"}, {"output_size": 5, "dropout": 0.5}]},
    ],
)
def test_every_setting_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)
    check_encoder(StackedCNN(**arguments), lambda **changes: StackedCNN(**{**arguments, **changes}))


# Every documented argument, with a second value. Nothing may be accepted and have no effect.
EFFECTS: dict[str, Any] = {
    "conv_layers": [{"out_channels": 5}],
    "num_conv_layers": 1,
    "out_channels": 7,
    "kernel_size": 5,
    "stride": 2,
    "padding": "valid",
    "padding_mode": "replicate",
    "dilation": 2,
    "groups": 3,
    "conv_use_bias": False,
    "conv_norm": "batch",
    "conv_norm_params": {"eps": 0.5},
    "conv_activation": "tanh",
    "conv_dropout": 0.5,
    "pool_function": "avg",
    "pool_kernel_size": 3,
    "pool_stride": 1,
    "pool_padding": 1,
    "pool_dilation": 2,
    "fc_layers": [{"output_size": 5}],
    "num_fc_layers": 2,
    "output_size": 9,
    "fc_use_bias": False,
    "fc_weights_initializer": "normal",
    "fc_bias_initializer": "ones",
    "fc_norm": "layer",
    "fc_norm_params": {"eps": 0.5},
    "fc_activation": "tanh",
    "fc_dropout": 0.5,
}
BASE = {"num_conv_layers": 2, "out_channels": 6, "padding": 1}
NEEDS: dict[str, dict[str, Any]] = {
    "conv_norm_params": {"conv_norm": "batch"},
    "fc_norm_params": {"fc_norm": "layer"},
    "groups": {"num_channels": 3},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_every_setting_has_an_effect(name: str) -> None:
    x = torch.randn(2, 3, 33, 41, generator=torch.Generator().manual_seed(1))
    outputs = []
    for change in ({}, {name: EFFECTS[name]}):
        torch.manual_seed(0)
        encoder = StackedCNN(**{**BASE, **NEEDS.get(name, {}), **change}).train()
        torch.manual_seed(0)
        outputs.append(encoder.embed(x))
    assert outputs[0].shape != outputs[1].shape or not torch.allclose(outputs[0], outputs[1])


# What the same settings are called within a layer.
IN_LAYER = {"conv_use_bias": "bias", **{f"conv_{n}": n for n in ("norm", "norm_params", "activation", "dropout")}}
IN_LAYER |= {n: n for n in ("out_channels", "kernel_size", "stride", "padding", "padding_mode", "dilation", "groups")}
IN_LAYER |= {f"pool_{n}": f"pool_{n}" for n in ("function", "kernel_size", "stride", "padding", "dilation")}
IN_FC_LAYER = {f"fc_{n}": n for n in FC_KEYS if n != "output_size"} | {"output_size": "output_size"}


def test_every_setting_is_tried() -> None:
    common = {"num_channels", "trainable", "skip", "adapter"}
    assert set(EFFECTS) == set(inspect.signature(StackedCNN).parameters) - common
    layers = {"conv_layers", "num_conv_layers", "fc_layers", "num_fc_layers"}
    assert {*IN_LAYER, *IN_FC_LAYER} == set(EFFECTS) - layers


@pytest.mark.parametrize("name", [*IN_LAYER, *IN_FC_LAYER])
def test_a_layer_sets_what_the_encoder_sets_for_all(name: str) -> None:
    base = {**BASE, **NEEDS.get(name, {}), "num_conv_layers": 1, "num_fc_layers": 1}
    setting = {IN_LAYER.get(name) or IN_FC_LAYER[name]: EFFECTS[name]}
    listed = {"fc_layers" if name in IN_FC_LAYER else "conv_layers": [setting]}
    x = torch.randn(2, 3, 33, 41, generator=torch.Generator().manual_seed(1))
    outputs = []
    for change in ({name: EFFECTS[name]}, listed):
        torch.manual_seed(0)
        encoder = StackedCNN(**{**base, **change}).train()
        torch.manual_seed(0)
        outputs.append(encoder.embed(x))
    assert torch.equal(*outputs)


def test_pairs_are_height_and_width() -> None:
    encoder = StackedCNN(num_conv_layers=1, kernel_size=(1, 5), pool_kernel_size=None, out_channels=2).eval()
    x = torch.zeros(1, 3, 9, 9)
    x[..., 4, 4] = 1
    block = encoder.blocks[0]
    assert isinstance(block, ConvBlock)
    with torch.no_grad():
        block.conv.weight.fill_(1)
        block.conv.bias.zero_()  # type: ignore[union-attr]
    assert block(x)[0, 0].nonzero().tolist() == [[4, column] for column in range(5)]


DOCUMENTED: dict[str, Any] = {
    "conv_dropout": 0.0,
    "output_size": 128,
    "num_conv_layers": None,
    "conv_norm": None,
    "fc_norm": None,
    "fc_norm_params": None,
    "conv_activation": "relu",
    "kernel_size": 3,
    "stride": 1,
    "padding_mode": "zeros",
    "padding": "valid",
    "dilation": 1,
    "groups": 1,
    "pool_function": "max",
    "pool_kernel_size": 2,
    "pool_stride": None,
    "pool_padding": 0,
    "pool_dilation": 1,
    "conv_norm_params": None,
    "conv_layers": None,
    "fc_dropout": 0.0,
    "fc_activation": "relu",
    "fc_use_bias": True,
    "fc_bias_initializer": "zeros",
    "fc_weights_initializer": "xavier_uniform",
    "num_fc_layers": 1,
    "fc_layers": None,
    "skip": False,
    "adapter": None,
    "num_channels": None,
    "conv_use_bias": True,
}


def test_the_documented_defaults_and_options() -> None:
    cfg = compose(["encoder=stacked_cnn"])
    assert {k: cfg.encoder[k] for k in DOCUMENTED} == DOCUMENTED
    activations = "elu leakyRelu logSigmoid relu sigmoid tanh softmax gelu silu swish mish selu prelu relu6 hardswish"
    activations += " hardsigmoid softplus celu swiglu geglu reglu sparsemax entmax15"
    initializers = "constant dirac eye identity kaiming_normal kaiming_uniform normal ones orthogonal sparse uniform"
    initializers += " xavier_normal xavier_uniform zeros"
    options = {
        "conv_norm": ["batch", "layer", None],
        "fc_norm": ["batch", "layer", None],
        "conv_activation": [*activations.split(), None],
        "fc_activation": [*activations.split(), None],
        "padding_mode": ["zeros", "reflect", "replicate", "circular"],
        "padding": ["valid", "same", 2, [1, 2]],
        "pool_function": ["max", "average", "avg", "mean"],
        "fc_weights_initializer": initializers.split(),
        "fc_bias_initializer": initializers.split(),
    }
    for name, values in options.items():
        for value in values:
            cfg.encoder[name] = value
            check(cfg)


@pytest.mark.parametrize("name", [*ACTIVATIONS, None])
def test_every_activation_trains(name: str | None) -> None:
    torch.manual_seed(0)
    encoder = StackedCNN(num_conv_layers=1, out_channels=4, output_size=6, conv_activation=name, fc_activation=name)
    out = encoder.embed(torch.randn(2, 3, 12, 12))
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["valid", "same", 0, 1, 2]),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    pool=st.sampled_from([None, 1, 2, 3]),
    pool_stride=st.sampled_from([None, 1, 2]),
    layers=st.integers(1, 2),
)
def test_the_smallest_size_is_the_smallest(
    kernel: int,
    stride: int,
    dilation: int,
    padding: str | int,
    padding_mode: Any,
    pool: int | None,
    pool_stride: int | None,
    layers: int,
) -> None:
    encoder = StackedCNN(
        num_conv_layers=layers,
        out_channels=2,
        kernel_size=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,  # type: ignore[arg-type]
        padding_mode=padding_mode,
        pool_kernel_size=pool,
        pool_stride=pool_stride,
        output_size=2,
    )
    height, width = encoder.min_size
    encoder.embed(torch.zeros(1, 3, height, width))
    with pytest.raises(ConfigError, match="smaller than the encoder can take"):
        encoder.embed(torch.zeros(1, 3, height - 1, width))
    if height > 1:
        encoder.min_size = (1, 1)
        with pytest.raises(RuntimeError):
            encoder.embed(torch.zeros(1, 3, height - 1, width))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv_layers": [{"out_chanels": 3}]}, "did you mean: out_channels"),
        ({"conv_layers": []}, "at least one"),
        ({"fc_layers": [{"use_bais": True}]}, "did you mean: use_bias"),
        ({"groups": 5}, "groups must divide"),
        ({"pool_padding": 2}, "at most half"),
        ({"kernel_size": [1, 2, 3]}, "a pair"),
        ({"padding": "full"}, "valid, same"),
        ({"padding": -1}, "negative"),
        ({"pool_function": "min"}, "max, average"),
        ({"conv_norm": "batch", "conv_norm_params": {"esp": 1}}, "did you mean: eps"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StackedCNN(**{"num_conv_layers": None if "conv_layers" in arguments else 1, **arguments})


def test_a_dilated_average_is_an_average() -> None:
    settings = {
        "out_channels": 2, "kernel_size": 1, "stride": 1, "padding": 0, "padding_mode": "zeros", "dilation": 1,
        "groups": 1, "bias": False, "norm": None, "norm_params": None, "activation": None, "dropout": 0.0,
        "pool_function": "avg", "pool_kernel_size": 2, "pool_stride": 1, "pool_padding": 0, "pool_dilation": 2,
    }  # fmt: skip
    block = ConvBlock(2, settings)
    x = torch.randn(1, 2, 5, 6)
    corners = [x[..., r : r + 3, c : c + 4] for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(block.pool(x), sum(corners[1:], corners[0]) / 4)


@pytest.mark.parametrize("shape", [(9, 14), (4, 4), (2, 3), (1, 17)])
def test_averaging_to_a_grid_is_adaptive_pooling(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape)
    for size in ((4, 4), (1, 3)):
        torch.testing.assert_close(average_to_grid(x, size), F.adaptive_avg_pool2d(x, size))


def test_maps_are_fitted_around_their_centre() -> None:
    x = torch.arange(4.0).reshape(1, 1, 1, 4)
    assert fit_to_centre(x, (1, 7))[0, 0, 0].tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert fit_to_centre(x, (1, 2))[0, 0, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "widths"), [({}, [32, 64]), ({"out_channels": 5}, [5, 5]), ({"num_conv_layers": 3}, [32, 32, 32])]
)
def test_the_width_of_layers_that_are_not_listed(given: dict[str, Any], widths: list[int]) -> None:
    assert list(StackedCNN(**given).info.channels) == widths


def test_settings_reach_the_two_layers_without_a_number() -> None:
    encoder = StackedCNN(kernel_size=5, pool_kernel_size=4)
    assert [tuple(block.kernel) for block in encoder.blocks] == [(5, 5), (5, 5)]
    assert encoder.info.strides == (4, 16)
