from __future__ import annotations

import pytest
import torch

from lightning_vision.encoders.unet import UNetEncoder
from lightning_vision.testing.conformance import check_encoder


def test_the_default_is_the_paper() -> None:
    with torch.device("meta"):
        encoder = UNetEncoder()
    assert encoder.info.channels == (64, 128, 256, 512, 1024)
    assert encoder.info.strides == (1, 2, 4, 8, 16)
    assert encoder.info.embed_dim == 1024


@pytest.mark.parametrize("conv_norm", ["batch", None])
@pytest.mark.parametrize("depth", [1, 3])
def test_keeps_the_contract(conv_norm: str | None, depth: int) -> None:
    torch.manual_seed(0)

    def build(**changes: object) -> UNetEncoder:
        return UNetEncoder(**{"conv_norm": conv_norm, "base_channels": 4, "depth": depth, **changes})  # type: ignore[arg-type]

    check_encoder(build(), build)
