"""Swin's layers give what TorchVision's give, to the bit, at sizes of every kind."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)

from lightning_vision.encoders.torchvision_swin import Merging, WindowAttention

# One window, a part of one, whole windows, parts at either side, one row of windows.
SIZES = [(5, 5), (3, 4), (10, 10), (9, 6), (12, 5), (4, 12)]


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("shift", [0, 2])
def test_attention(kind: type[ShiftedWindowAttention], shift: int) -> None:
    torch.manual_seed(0)
    theirs = kind(8, [5, 5], [shift, shift], 2)
    torch.nn.init.normal_(theirs.qkv.bias)
    ours = WindowAttention(copy.deepcopy(theirs))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for size in SIZES:
        x = torch.randn(3, *size, 8)
        assert torch.equal(ours(x), theirs(x)), size


@pytest.mark.parametrize("kind", [PatchMerging, PatchMergingV2])
def test_merging(kind: type[PatchMerging]) -> None:
    theirs = kind(8)
    ours = Merging(copy.deepcopy(theirs))
    for size in SIZES:
        x = torch.randn(2, *size, 8)
        assert torch.equal(ours(x), theirs(x)), size


def test_one_graph_for_all_sizes() -> None:
    layer = WindowAttention(ShiftedWindowAttention(8, [5, 5], [2, 2], 2)).eval()
    dims = {
        0: torch.export.Dim("batch", min=1),
        1: torch.export.Dim("height", min=2),
        2: torch.export.Dim("width", min=2),
    }
    with torch.no_grad(), torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(
            layer,
            (torch.randn(2, 7, 12, 8),),
            dynamic_shapes={"x": dims},
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    for size in SIZES:
        x = torch.randn(1, *size, 8)
        torch.testing.assert_close(program.module()(x), layer(x), atol=1e-6, rtol=0)
