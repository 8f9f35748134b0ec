from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.decoders.unet import UNetDecoder, stage_strides
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_decoder, random_features
from lightning_vision.types import FeatureInfo

RESNET = FeatureInfo((64, 64, 128, 256, 512), (2, 4, 8, 16, 32), 512)
SMALL = FeatureInfo((4, 6, 8), (2, 4, 8), 8)


@pytest.mark.parametrize(
    ("levels", "num_stages", "expected"),
    [
        ((2, 4, 8, 16, 32), 4, (32, 16, 8, 4, 2)),
        ((2, 4, 8, 16, 32), 9, (32, 16, 8, 4, 2, 1)),
        ((4, 8, 16, 32), 2, (32, 16, 8)),
        ((1, 2, 4), 4, (4, 2, 1)),
        ((4, 32), 4, (32, 16, 8, 4, 2)),
        ((3, 9), 4, (9, 3, 1)),
        ((6, 7), 4, (7, 6, 3, 1)),
        ((1,), 4, (1,)),
    ],
)
def test_stages_pass_every_map_of_the_encoder(
    levels: tuple[int, ...], num_stages: int, expected: tuple[int, ...]
) -> None:
    assert stage_strides(levels, num_stages) == expected


@pytest.mark.parametrize(
    "info",
    [
        SMALL,
        FeatureInfo((3,), (1,), 3),
        FeatureInfo((4, 5), (3, 9), 5),
        FeatureInfo((4, 5, 6, 7), (2, 2, 4, 4), 7),
        FeatureInfo((4, 5), (4, 32), 5),
    ],
)
@pytest.mark.parametrize("num_stages", [1, 4, 6])
def test_any_pyramid_will_do(info: FeatureInfo, num_stages: int) -> None:
    check_decoder(UNetDecoder(info, 3, num_stages=num_stages))


@pytest.mark.parametrize(
    "arguments",
    [
        {"conv_norm": None},
        {"channels": [8, 4, 2]},
        {"num_fc_layers": 2, "fc_output_size": 5, "fc_norm": "batch", "fc_activation": "swiglu", "fc_use_bias": False},
        {"num_fc_layers": 1, "fc_norm": "layer", "fc_norm_params": {"eps": 1e-6}, "fc_dropout": 0.5},
        {"fc_layers": [{"output_size": 3, "activation": None}, {"weights_initializer": "orthogonal"}]},
    ],
)
def test_settings(arguments: dict[str, Any]) -> None:
    check_decoder(UNetDecoder(SMALL, 3, **arguments))


def naive(decoder: UNetDecoder, features: list[Tensor], size: tuple[int, int]) -> Tensor:
    """The U-Net as it is drawn: upsample, join, two convolutions; for strides that double."""
    x = features[-1]
    for stage, beside in zip(decoder.stages, [*features[-2::-1], None], strict=True):
        height, width = (-(-n // stage.join.to_stride) for n in size)
        if stage.join.mode == "nearest":
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        else:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = x[:, :, :height, :width]
        if beside is not None:
            x = torch.cat((x, beside), 1)
        norm, _, conv, second, _ = stage.rest
        for convolution, after in ((stage.join, norm), (conv, second)):
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1)
            x = F.relu(F.batch_norm(x, None, None, after.weight, after.bias, training=True))
    return F.conv2d(x, decoder.head.weight, decoder.head.bias, padding=1)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (95, 127), (97, 33)])
def test_equals_a_naive_reference(mode: Any, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    info = FeatureInfo((8, 12, 16, 32), (2, 4, 8, 16), 32)
    decoder = UNetDecoder(info, 3, channels=[24, 12, 8, 4], upsample_mode=mode).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = [x.double().detach().requires_grad_() for x in random_features(info, size)]
    ours, expected = decoder(features, size), naive(decoder, features, size)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(expected)
    wanted = [*features, *decoder.parameters()]
    gradients = [torch.autograd.grad((y * weights).sum(), wanted) for y in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_the_parameters_are_those_of_the_reference() -> None:
    # segmentation_models.pytorch's Unet on resnet18 has five stages and 3.15 million parameters in its decoder. A stage
    # is two 3 x 3 convolutions without bias, the first on what was upsampled and what is joined, each with a BatchNorm.
    incoming = (512 + 256, 256 + 128, 128 + 64, 64 + 64, 32)
    widths = (256, 128, 64, 32, 16)
    expected = sum(9 * i * o + 9 * o * o + 4 * o for i, o in zip(incoming, widths, strict=True))
    decoder = UNetDecoder(RESNET, 21, num_stages=5)
    assert sum(p.numel() for p in decoder.stages.parameters()) == expected == 3_151_552
    assert tuple(decoder.head.weight.shape) == (21, 16, 3, 3)


def test_fully_connected_layers_see_one_pixel_each() -> None:
    torch.manual_seed(0)
    decoder = UNetDecoder(FeatureInfo((4,), (1,), 4), 2, num_fc_layers=2, fc_norm="layer").eval()
    x = torch.randn(1, 4, 5, 5)
    moved = x.clone()
    moved[..., 2, 2] += 1
    changed = (decoder.fc(x) != decoder.fc(moved)).any(1)[0]
    assert changed.nonzero().tolist() == [[2, 2]]


def test_logits_start_without_bias() -> None:
    assert not UNetDecoder(SMALL, 3).head.bias.any()


@pytest.mark.parametrize("channels", [[8, 4], [8, 4, 2, 1], []])
def test_one_width_for_each_stage_is_needed(channels: list[int]) -> None:
    with pytest.raises(ConfigError, match="3 numbers"):
        UNetDecoder(SMALL, 3, channels=channels)
