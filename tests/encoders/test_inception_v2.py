from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.depth import parameter_layers
from lightning_vision.encoders.inception_v2 import InceptionBlock, InceptionV2Encoder, Widths


def test_the_default_is_the_published_network() -> None:
    encoder = InceptionV2Encoder()
    assert encoder.info.channels == (64, 192, 320, 576, 1024)
    assert encoder.info.strides == (2, 4, 8, 16, 32)
    assert encoder.info.embed_dim == 1024
    maps = InceptionV2Encoder(0.05).pyramid(torch.zeros(1, 3, 224, 224))
    assert [tuple(m.shape[-2:]) for m in maps] == [(side, side) for side in (112, 56, 28, 14, 7)]
    weights = sum(p.numel() for p in encoder.parameters() if p.ndim > 1)
    norms = sum(m.num_features for m in encoder.modules() if isinstance(m, nn.BatchNorm2d))
    # The count in the tests of TensorFlow's own version (slim, inception_v2_base): its first convolution is separable
    # with a bias and without norm, and its norms have a shift and two statistics each, but no scale.
    separable = 7 * 7 * 3 * 8 + 3 * 8 * 64 + 64
    assert weights - 7 * 7 * 3 * 64 + separable + 3 * (norms - 64) == 10_173_112
    # The parameters of Caffe's version, with 1000 classes and a bias behind each convolution, are 11 295 240.
    whole = weights + 2 * norms + 1025 * 1000
    assert whole == 11_194_984
    assert whole == pytest.approx(11_295_240, rel=0.01)


@pytest.mark.parametrize("widths", [Widths(3, 4, 5, 2, 6, 7), Widths(0, 4, 5, 2, 6, 0)])
@pytest.mark.parametrize("max_pooled", [True, False])
def test_a_block_is_four_branches_side_by_side(widths: Widths, max_pooled: bool) -> None:
    torch.manual_seed(0)
    block = InceptionBlock(4, widths, max_pooled).double().eval()
    for norm in (m for m in block.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    stride = 1 if widths.single else 2

    def conv(part: Any, x: Tensor, stride: int = 1) -> Tensor:
        weight = part[0].weight
        x = F.conv2d(F.pad(x, [weight.shape[-1] // 2] * 4), weight)[..., ::stride, ::stride]
        norm = part[1]
        shape = (1, -1, 1, 1)
        x = (x - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + norm.eps).sqrt()
        return (x * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)

    cells = F.pad(x, [1] * 4, value=float("nan")).unfold(2, 3, stride).unfold(3, 3, stride).flatten(4)
    pooled = cells.nan_to_num(-torch.inf).amax(-1) if max_pooled else cells.nanmean(-1)
    expected = [
        *([conv(block.single, x)] if widths.single else []),
        conv(block.conv[1], conv(block.conv[0], x), stride),
        conv(block.convs[2], conv(block.convs[1], conv(block.convs[0], x)), stride),
        conv(block.pooled[1], pooled) if widths.pooled else pooled,
    ]
    found = block(x)
    torch.testing.assert_close(found, torch.cat(expected, 1))
    assert found.shape[1] == block.out_channels


def test_which_blocks_take_the_largest_value() -> None:
    blocks = {n: m for n, m in InceptionV2Encoder(0.05).named_modules() if isinstance(m, InceptionBlock)}
    by_max = [name.rpartition(".")[2] for name, b in blocks.items() if isinstance(b.pooled[0], nn.MaxPool2d)]
    halving = [name.rpartition(".")[2] for name, b in blocks.items() if b.single is None]
    assert by_max == ["3c", "4e", "5b"]
    assert halving == ["3c", "4e"]


def test_each_block_is_a_layer_of_the_learning_rate() -> None:
    assert len(parameter_layers(InceptionV2Encoder())) == 3 + 10


def test_narrow_networks_have_eight_channels_at_least() -> None:
    assert InceptionV2Encoder(0.5).info.channels == (32, 96, 160, 288, 512)
    assert InceptionV2Encoder(0.01).info.channels == (8, 8, 32, 32, 32)
