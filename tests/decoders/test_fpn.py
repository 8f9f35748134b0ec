from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from lightning_vision.decoders.fpn import FPNDecoder
from lightning_vision.testing.conformance import check_decoder, random_features
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((3, 4, 6, 8), (2, 4, 8, 16), 8)


def naive(decoder: FPNDecoder, levels: list[Tensor]) -> Tensor:
    """The semantic branch of panoptic FPN, every level by itself, for strides that double."""
    total = torch.zeros(())
    for i, (x, branch) in enumerate(zip(levels, decoder.branches, strict=True)):
        convs = [branch.first[0], *branch.joins]
        norms = [branch.first[1], *(rest[0] for rest in branch.rests)]
        assert len(convs) == max(1, i)
        for conv, norm in zip(convs, norms, strict=True):
            x = F.conv2d(x, conv.weight, padding=1)
            x = F.relu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias))
            if i > 0:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
        total = total + x
    return F.interpolate(decoder.head(total), scale_factor=decoder.strides[0], mode="bilinear")


@pytest.mark.parametrize("num_levels", [1, 2, 3, 4])
def test_equals_torchvisions_pyramid_and_a_naive_branch(num_levels: int) -> None:
    torch.manual_seed(0)
    decoder = FPNDecoder(INFO, 3, num_channels=8, num_levels=num_levels).double()
    reference = FeaturePyramidNetwork(list(INFO.channels[-num_levels:]), 8).double()
    with torch.no_grad():
        for p in decoder.parameters():
            torch.nn.init.normal_(p, std=0.3)
        for lateral, theirs, smooth in zip(
            decoder.lateral, reference.inner_blocks, reference.layer_blocks, strict=True
        ):
            theirs[0].load_state_dict(lateral.state_dict())
            # Its 3 x 3 convolution behind each level is the first of the branch here.
            torch.nn.init.dirac_(smooth[0].weight)
    features = [x.double() for x in random_features(INFO, (64, 96))]
    levels = reference(OrderedDict((str(i), x) for i, x in enumerate(features[-num_levels:])))
    torch.testing.assert_close(decoder(features, (64, 96)), naive(decoder, list(levels.values())))


def test_levels_that_the_encoder_does_not_have_are_pooled() -> None:
    decoder = FPNDecoder(INFO, 3, num_channels=8, num_levels=6)
    assert decoder.strides == [2, 4, 8, 16, 32, 64]
    check_decoder(decoder)
    seen: list[Tensor] = []
    decoder.lateral[-1].register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
    features = random_features(INFO, (64, 64))
    decoder(features, (64, 64))
    assert torch.equal(seen[0], F.adaptive_max_pool2d(features[-1], 1))


def test_the_top_down_way_upsamples_as_it_is_told() -> None:
    torch.manual_seed(0)
    nearest = FPNDecoder(INFO, 3, num_channels=8)
    bilinear = FPNDecoder(INFO, 3, num_channels=8, upsample_mode="bilinear")
    bilinear.load_state_dict(nearest.state_dict())
    features = random_features(INFO, (64, 64))
    assert not torch.allclose(nearest(features, (64, 64)), bilinear(features, (64, 64)), atol=1e-3)
    flat = [torch.ones_like(x) for x in features]
    for decoder in (nearest, bilinear):  # of one value everywhere both make the same, away from the border
        seen: list[Tensor] = []
        decoder.branches[0].register_forward_hook(lambda _module, given, _output, seen=seen: seen.append(given[0]))
        decoder(flat, (64, 64))
        assert seen[0].std((2, 3)).max() < 1e-6


def test_widths_follow_num_channels() -> None:
    decoder = FPNDecoder(INFO, 3, num_channels=24)
    assert [m.out_channels for m in decoder.lateral] == [24] * 4
    assert decoder.head.in_channels == 12
