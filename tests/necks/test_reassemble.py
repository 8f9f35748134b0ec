from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_vision.errors import ConfigError
from lightning_vision.necks.reassemble import ReassembleNeck
from lightning_vision.testing.conformance import check_neck
from lightning_vision.types import FeatureInfo


@pytest.mark.parametrize(("stride", "levels"), [(14, 4), (16, 1), (8, 2), (32, 12), (7, 3), (16, 4)])
def test_makes_a_pyramid_of_any_stride_and_number_of_maps(stride: int, levels: int) -> None:
    torch.manual_seed(0)
    info = FeatureInfo(tuple(range(4, 4 + levels)), (stride,) * levels, 5)
    neck = ReassembleNeck(info, channels=(3, 4, 5, 6))
    assert neck.info == FeatureInfo((3, 4, 5, 6), (4, 8, 16, 32), 5)
    check_neck(neck, info)


def test_each_level_is_scaled_at_once() -> None:
    neck = ReassembleNeck(FeatureInfo((4,) * 4, (16,) * 4, 4), channels=(3, 4, 5, 6))
    scaled = [
        [(type(m), m.kernel_size[0], m.stride[0]) for m in level if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        for level in neck.levels
    ]
    assert [level[1:] for level in scaled] == [
        [(nn.ConvTranspose2d, 4, 4)],
        [(nn.ConvTranspose2d, 2, 2)],
        [],
        [(nn.Conv2d, 3, 2)],
    ]


def test_one_width_for_each_level_is_needed() -> None:
    with pytest.raises(ConfigError, match="4 numbers"):
        ReassembleNeck(FeatureInfo((4,), (16,), 4), channels=(3, 4))
