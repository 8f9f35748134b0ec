from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.upernet.modeling_upernet import UperNetHead

from lightning_vision.decoders.upernet import UPerNetDecoder
from lightning_vision.testing.conformance import random_features
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((4, 6, 8), (4, 8, 16), 8)


def copy(theirs: nn.Module, conv: nn.Conv2d, norm: nn.Module) -> None:
    conv.load_state_dict(theirs.conv.state_dict())
    norm.load_state_dict(theirs.batch_norm.state_dict())


@pytest.mark.parametrize("pool_sizes", [(1, 2, 3, 6), (1, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_equals_the_head_of_transformers(pool_sizes: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    config = SimpleNamespace(pool_scales=pool_sizes, hidden_size=5, num_labels=3)
    reference = UperNetHead(config, list(INFO.channels)).double().train(training)
    decoder = UPerNetDecoder(INFO, 3, 5, pool_sizes, dropout=0.0).double().train(training)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.5)
    for ours, theirs in zip(decoder.pooling.project, reference.psp_modules.blocks, strict=True):
        copy(theirs.layers[1], ours[0], ours[1])
    copy(reference.bottleneck, decoder.pooling.join[0], decoder.pooling.join[1])
    for ours, theirs in zip(
        [*decoder.lateral, *decoder.smooth], [*reference.lateral_convs, *reference.fpn_convs], strict=True
    ):
        copy(theirs, ours[0], ours[1])
    copy(reference.fpn_bottleneck, decoder.join, decoder.rest[0])
    decoder.head.load_state_dict(reference.classifier.state_dict())
    features = [x.double() for x in random_features(INFO, (64, 96))]
    expected = F.interpolate(reference(features), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(decoder(features, (64, 96)), expected)


def test_settings_have_their_effect() -> None:
    decoder = UPerNetDecoder(INFO, 3, num_channels=7, pool_sizes=(1, 3))
    assert decoder.head.in_channels == decoder.join.out_channels == 7
    assert len(decoder.pooling.project) == 2
