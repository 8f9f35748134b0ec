from __future__ import annotations

import pytest
import torch

from lightning_vision.necks.pyramid import PyramidNeck
from lightning_vision.testing.conformance import check_neck
from lightning_vision.types import FeatureInfo


@pytest.mark.parametrize(("stride", "levels"), [(14, 4), (16, 1), (8, 2), (32, 12), (7, 3), (16, 4)])
def test_makes_a_pyramid_of_any_stride_and_number_of_maps(stride: int, levels: int) -> None:
    torch.manual_seed(0)
    info = FeatureInfo(tuple(range(4, 4 + levels)), (stride,) * levels, 5)
    neck = PyramidNeck(info, channels=6)
    assert neck.info == FeatureInfo((6,) * 4, (4, 8, 16, 32), 5)
    if levels >= 4:  # with fewer, a map serves several levels; with more, some serve none
        assert neck.sources[0] == 0
    assert neck.sources[-1] == levels - 1
    check_neck(neck, info)


def test_shallow_maps_serve_the_fine_levels() -> None:
    assert PyramidNeck(FeatureInfo((4,) * 12, (16,) * 12, 4)).sources == (0, 4, 7, 11)


@pytest.mark.parametrize("stride", [14, 16])
def test_a_mark_stays_where_it_is(stride: int) -> None:
    """One bright patch comes out, at every level, over the pixels that it covers."""
    neck = PyramidNeck(FeatureInfo((1,), (stride,), 1), channels=1)
    with torch.no_grad():
        for name, parameter in neck.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        for level in neck.levels:
            for module in level:
                if isinstance(module, torch.nn.LayerNorm | torch.nn.GELU):
                    module.forward = lambda x: x  # type: ignore[method-assign] - one channel has no variance
    size = (stride * 8, stride * 8)
    x = torch.zeros(1, 1, 8, 8)
    x[..., 2, 5] = 1
    centre = torch.tensor([2.5 * stride, 5.5 * stride])
    for stride_out, level in zip((4, 8, 16, 32), neck([x], size), strict=True):
        mass = level[0, 0].clamp(min=0)
        rows = (torch.arange(mass.shape[0]) + 0.5) * stride_out
        columns = (torch.arange(mass.shape[1]) + 0.5) * stride_out
        found = torch.stack(((mass.sum(1) * rows).sum(), (mass.sum(0) * columns).sum())) / mass.sum()
        # Coarser cells cannot tell where inside them the patch was.
        assert (found - centre).abs().max() <= max(stride_out, stride) / 2 + 1
