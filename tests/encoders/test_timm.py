from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_features_are_timms_own(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, pretrained=False).eval()
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = TimmEncoder(name, weights=str(tmp_path)).eval()
    x = torch.randn(2, 3, 160, 160)
    expected = plain.forward_head(plain.forward_features(x), pre_logits=True)
    torch.testing.assert_close(encoder.embed(x), expected)
    maps = timm.create_model(name, pretrained=False, features_only=True)
    if name != "test_vit":
        assert encoder.info.channels == tuple(maps.feature_info.channels())
        assert encoder.info.strides == tuple(maps.feature_info.reduction())
    last = plain.forward_intermediates(x, norm=name == "test_vit", intermediates_only=True)[-1]
    torch.testing.assert_close(encoder.pyramid(x)[-1], last)


def test_position_embeddings_of_another_size_are_converted(tmp_path: Path) -> None:
    plain = timm.create_model("test_vit", pretrained=False, img_size=96)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = TimmEncoder("test_vit", weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(encoder.model.blocks[0].mlp.fc1.weight, plain.blocks[0].mlp.fc1.weight)


def test_one_scale_maps_come_from_spread_depths() -> None:
    encoder = TimmEncoder("vit_tiny_patch16_224", {"embed_dim": 24}, use_pretrained=False)
    assert encoder._indices == [2, 5, 8, 11]
    assert encoder.info.one_scale
    assert encoder.info.strides == (16, 16, 16, 16)


@pytest.mark.parametrize("name", ["test_maxvit", "test_vit_relpos"])
def test_models_tied_to_one_size_take_any(name: str) -> None:
    torch.manual_seed(0)

    def rebuild(**changes: Any) -> TimmEncoder:
        return TimmEncoder(**{"model_name": name, "use_pretrained": False, **changes})

    check_encoder(rebuild(), rebuild, sizes=((64, 64), (170, 95)))


def test_grey_weights_sum_the_kernels(tmp_path: Path) -> None:
    plain = timm.create_model("test_resnet", pretrained=False)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    rgb = TimmEncoder("test_resnet", weights=str(tmp_path)).eval()
    grey = TimmEncoder("test_resnet", weights=str(tmp_path), num_channels=1).eval()
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(grey.embed(x), rgb.embed(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


def test_a_hub_folder_says_how_its_pixels_are_scaled(tmp_path: Path) -> None:
    plain = timm.create_model("test_resnet", pretrained=False)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_resnet", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TimmEncoder("test_resnet", weights=str(tmp_path)).pixel_stats.mean == (0.1, 0.2, 0.3)
    with pytest.raises(ConfigError, match=r"encoder\.model_name=test_resnet"):
        TimmEncoder("test_vit", weights=str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "convnextv2_atoo"}, "did you mean: convnextv2_atto"),
        ({"model_name": "convnextv2_atto.fcmae_ft_in2k"}, "did you mean: convnextv2_atto.fcmae_ft_in1k"),
        ({"model_name": "test_vit", "model_kwargs": {"drop_pth_rate": 0.1}}, "drop_pth_rate"),
    ],
)
def test_wrong_names_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmEncoder(**arguments, use_pretrained=False)


def test_weights_that_cannot_be_downloaded_offer_two_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    with pytest.raises(ConfigError) as caught:
        TimmEncoder("test_vit.r160_in1k", model_cache_dir=str(tmp_path))
    assert caught.value.overrides == ["encoder.weights=FILE", "encoder.use_pretrained=false"]
