from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTNeck, DPTSemanticSegmentationHead

from lightning_vision.decoders.dpt import DPTDecoder
from lightning_vision.necks.reassemble import ReassembleNeck
from lightning_vision.testing.conformance import random_features
from lightning_vision.types import FeatureInfo

WIDTHS = [3, 4, 6, 8]
VIT = FeatureInfo((10,) * 4, (16,) * 4, 10)


def build_reference() -> tuple[DPTNeck, DPTSemanticSegmentationHead]:
    config = DPTConfig(
        hidden_size=10,
        num_attention_heads=2,
        intermediate_size=12,
        neck_hidden_sizes=WIDTHS,
        reassemble_factors=[4, 2, 1, 0.5],
        fusion_hidden_size=5,
        readout_type="ignore",
        use_batch_norm_in_fusion_residual=True,
        use_bias_in_fusion_residual=False,
        semantic_classifier_dropout=0.0,
        num_labels=3,
    )
    neck, head = DPTNeck(config).double().eval(), DPTSemanticSegmentationHead(config).double().eval()
    for layer in neck.fusion_stage.layers:
        layer.align_corners = False  # the one deviation
    head.head[-1] = nn.Upsample(scale_factor=2, mode="bilinear")
    for parameter in (*neck.parameters(), *head.parameters()):
        nn.init.normal_(parameter, std=0.3)
    return neck, head


def copy_unit(ours: nn.Sequential, theirs: nn.Module) -> None:
    for i, name in ((1, "convolution1"), (2, "batch_norm1"), (4, "convolution2"), (5, "batch_norm2")):
        ours[i].load_state_dict(getattr(theirs, name).state_dict())


def test_neck_and_decoder_equal_those_of_transformers() -> None:
    torch.manual_seed(0)
    their_neck, their_head = build_reference()
    neck = ReassembleNeck(VIT, WIDTHS).double().eval()
    decoder = DPTDecoder(neck.info, 3, num_channels=5, dropout=0.0).double().eval()
    for level, theirs in zip(neck.levels, their_neck.reassemble_stage.layers, strict=True):
        level[0].load_state_dict(theirs.projection.state_dict())
        if len(level) > 1:
            level[1].load_state_dict(theirs.resize.state_dict())
    for ours, theirs in zip(decoder.enter, their_neck.convs, strict=True):
        ours.load_state_dict(theirs.state_dict())
    for i, theirs in enumerate(their_neck.fusion_stage.layers[::-1]):
        decoder.project[i].load_state_dict(theirs.projection.state_dict())
        copy_unit(decoder.fused[i], theirs.residual_layer2)
        if i < 3:
            copy_unit(decoder.beside[i], theirs.residual_layer1)
    decoder.join.load_state_dict(their_head.head[0].state_dict())
    decoder.rest[0].load_state_dict(their_head.head[1].state_dict())
    decoder.head.load_state_dict(their_head.head[4].state_dict())

    size = (64, 96)
    maps = [x.double() for x in random_features(VIT, size)]
    tokens = [torch.cat((x.new_zeros(2, 1, 10), x.flatten(2).mT), 1) for x in maps]
    expected = their_head.head(their_neck(tokens, 4, 6)[-1])
    torch.testing.assert_close(decoder(neck(maps, size), size), expected)


@pytest.mark.parametrize(("strides", "expected"), [((4, 8), 2), ((2, 8), 4), ((1,), 1), ((14,), 7)])
def test_the_head_works_at_twice_the_resolution_of_the_finest_level(strides: tuple[int, ...], expected: int) -> None:
    decoder = DPTDecoder(FeatureInfo((4,) * len(strides), strides, 4), 2, num_channels=6)
    assert decoder.stride == expected
    assert decoder.head.in_channels == 6
    assert len(decoder.beside) == len(decoder.levels) - 1


def test_projecting_before_upsampling_is_the_same() -> None:
    x = torch.randn(1, 3, 4, 4)
    projection = nn.Conv2d(3, 5, 1)
    late = projection(F.interpolate(x, scale_factor=2, mode="bilinear"))
    early = F.interpolate(projection(x), scale_factor=2, mode="bilinear")
    torch.testing.assert_close(late, early)
