from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import SegformerConfig
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from lightning_vision.config import compose, instantiate
from lightning_vision.decoders.segformer import SegFormerDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import random_features
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((4, 6, 8), (4, 8, 16), 8)


def test_equals_the_head_of_transformers() -> None:
    config = SegformerConfig(
        num_encoder_blocks=3,
        hidden_sizes=list(INFO.channels),
        decoder_hidden_size=5,
        num_labels=3,
        classifier_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    reference = SegformerDecodeHead(config).double().train()
    decoder = SegFormerDecoder(INFO, 3, hidden_size=5, dropout=0.0).double().train()
    with torch.no_grad():
        # It joins the coarsest map first.
        decoder.join.weight.copy_(torch.cat(reference.linear_fuse.weight.split(5, 1)[::-1], 1))
        for ours, theirs in zip(decoder.project, reference.linear_projections, strict=True):
            ours.weight[:, :, 0, 0] = theirs.proj.weight
            ours.bias.copy_(theirs.proj.bias)
        for ours, theirs in ((decoder.fuse[0], reference.batch_norm), (decoder.head, reference.classifier)):
            for parameter in (*ours.parameters(), *theirs.parameters()):
                torch.nn.init.normal_(parameter)
            ours.load_state_dict(theirs.state_dict())
    features = [x.double() for x in random_features(INFO, (64, 96))]
    expected = F.interpolate(reference(features), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(decoder(features, (64, 96)), expected)


def test_fine_maps_are_left_out_where_there_are_coarser_ones() -> None:
    info = FeatureInfo((3, 4, 5, 6), (1, 2, 4, 8), 6)
    assert list(SegFormerDecoder(info, 2).levels) == [4, 8]
    assert list(SegFormerDecoder(FeatureInfo((3, 4), (1, 2), 4), 2).levels) == [1, 2]


def test_the_width_has_two_names() -> None:
    assert SegFormerDecoder(INFO, 2).head.in_channels == 256
    assert SegFormerDecoder(INFO, 2, hidden_size=12).head.in_channels == 12
    assert SegFormerDecoder(INFO, 2, hidden_dim=12).head.in_channels == 12
    assert SegFormerDecoder(INFO, 2, hidden_size=12, hidden_dim=12).head.in_channels == 12
    with pytest.raises(ConfigError, match=r"hidden_size=8 and decoder\.hidden_dim=12"):
        SegFormerDecoder(INFO, 2, hidden_size=8, hidden_dim=12)


@pytest.mark.parametrize("name", ["hidden_size", "hidden_dim"])
def test_both_names_can_be_typed(name: str) -> None:
    config = compose(["decoder=segformer", f"decoder.{name}=24"])
    decoder = instantiate(config.decoder, SegFormerDecoder, info=INFO, num_classes=2)
    assert decoder.head.in_channels == 24
