from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.mlp_mixer import MlpMixer as TimmMixer
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.config import compose
from lightning_vision.encoders.mlp_mixer import MixerBlock, MLPMixer
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder

SMALL: dict[str, Any] = {
    "patch_size": 8,
    "embed_size": 12,
    "token_size": 20,
    "channel_dim": 10,
    "num_layers": 4,
    "image_size": (32, 48),
}


def timm_state(encoder: MLPMixer) -> dict[str, Tensor]:
    """The same weights under timm's names."""
    names = {
        "patches": "stem.proj",
        "patch_norm": "norm1",
        "patch_mlp.0": "mlp_tokens.fc1",
        "patch_mlp.3": "mlp_tokens.fc2",
        "channel_norm": "norm2",
        "channel_mlp.0": "mlp_channels.fc1",
        "channel_mlp.3": "mlp_channels.fc2",
    }
    state = {}
    for key, value in encoder.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(f"{ours}.", f"{theirs}.")
        state[key] = value
    return state


def test_the_default_is_the_papers_small_network() -> None:
    with torch.device("meta"):
        encoder, reference = MLPMixer(), TimmMixer(patch_size=16, embed_dim=512, num_blocks=8, num_classes=0)
    own = {k: v.shape for k, v in timm_state(encoder).items()}
    assert own == {k: v.shape for k, v in reference.state_dict().items()}
    assert encoder.info.embed_dim == 512
    assert encoder.info.strides == (16,) * 4


def test_features_are_timms_at_the_size_that_it_is_built_for() -> None:
    torch.manual_seed(0)
    encoder = MLPMixer(**SMALL).eval()
    reference = TimmMixer(
        img_size=(32, 48), patch_size=8, embed_dim=12, mlp_ratio=(10 / 12, 20 / 12), num_blocks=4, num_classes=0
    ).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    reference.load_state_dict(timm_state(encoder))
    x = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(encoder.embed(x), reference(x))
    for depth, level in enumerate(encoder.pyramid(x)):
        expected = reference.forward_intermediates(x, indices=[depth], norm=True, intermediates_only=True)[0]
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize("grid", [(2, 3), (4, 6), (7, 5), (9, 14)])
def test_a_block_mixes_what_pooling_sees_on_any_grid(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = MixerBlock(5, (4, 6), 11, 7).double()
    x = torch.randn(2, *grid, 5, dtype=torch.float64)

    def pooled(y: Tensor, size: tuple[int, int]) -> Tensor:
        return F.adaptive_avg_pool2d(y, size)

    normed = F.layer_norm(x, (5,), block.patch_norm.weight, block.patch_norm.bias, 1e-6)
    first, _, _, second, _ = block.patch_mlp
    tokens = pooled(torch.einsum("bhwc->bchw", normed), (4, 6)).reshape(2, 5, 24)
    hidden = F.gelu(torch.einsum("bct,ut->bcu", tokens, first.weight) + first.bias)
    mixed = torch.einsum("bcu,tu->bct", hidden, second.weight) + second.bias
    y = x + torch.einsum("bchw->bhwc", pooled(mixed.reshape(2, 5, 4, 6), grid))
    normed = F.layer_norm(y, (5,), block.channel_norm.weight, block.channel_norm.bias, 1e-6)
    first, _, _, second, _ = block.channel_mlp
    hidden = F.gelu(torch.einsum("bhwc,uc->bhwu", normed, first.weight) + first.bias)
    expected = y + torch.einsum("bhwu,cu->bhwc", hidden, second.weight) + second.bias
    torch.testing.assert_close(block(x), expected)


def test_a_patch_becomes_the_cell_over_it_at_any_size() -> None:
    torch.manual_seed(0)
    encoder = MLPMixer(**SMALL).eval()
    x = torch.zeros(1, 3, 72, 88)
    moved = x.clone()
    moved[..., 40:48, 16:24] = 3
    change = (encoder.pyramid(moved)[0] - encoder.pyramid(x)[0]).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 11) == (5, 2)


def test_all_patches_instead_of_their_average() -> None:
    torch.manual_seed(0)
    encoder = MLPMixer(**SMALL, avg_pool=False).eval()
    assert encoder.info.embed_dim == 4 * 6 * 12
    x = torch.randn(2, 3, 32, 48)
    assert torch.equal(encoder.embed(x), encoder.pyramid(x)[-1].movedim(1, -1).flatten(1))
    assert encoder.embed(torch.randn(1, 3, 100, 9)).shape == (1, 4 * 6 * 12)


@pytest.mark.parametrize("arguments", [{}, {"avg_pool": False, "dropout": 0.2}, {"num_layers": 2, "patch_size": 5}])
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    torch.manual_seed(0)

    def build(**changes: Any) -> MLPMixer:
        return MLPMixer(**{**SMALL, **arguments, **changes})

    check_encoder(build(), build)


EFFECTS: dict[str, Any] = {
    "patch_size": 4,
    "embed_size": 8,
    "token_size": 9,
    "channel_dim": 9,
    "num_layers": 3,
    "dropout": 0.5,
    "avg_pool": False,
    "image_size": 64,
}


@pytest.mark.parametrize("name", EFFECTS)
def test_every_setting_has_an_effect(name: str) -> None:
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    outputs = []
    for change in ({}, {name: EFFECTS[name]}):
        torch.manual_seed(0)
        encoder = MLPMixer(**{**SMALL, **change}).train()
        torch.manual_seed(0)
        outputs.append(encoder.embed(x))
    assert outputs[0].shape != outputs[1].shape or not torch.allclose(outputs[0], outputs[1])


def test_the_documented_defaults() -> None:
    encoder = compose(["encoder=mlp_mixer", "encoder.image_size=96"]).encoder
    documented = {
        "dropout": 0.0,
        "num_layers": 8,
        "patch_size": 16,
        "skip": False,
        "adapter": None,
        "num_channels": None,
        "embed_size": 512,
        "token_size": 2048,
        "channel_dim": 256,
        "avg_pool": True,
    }
    assert {k: encoder[k] for k in documented} == documented
    assert encoder.image_size == 96
    assert compose(["encoder=mlp_mixer"]).encoder.image_size == "auto"
    with pytest.raises(ConfigError, match="dropout"):
        compose(["encoder=mlp_mixer", "encoder.dropout=1.0"])
