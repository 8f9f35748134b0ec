from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision import models

from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.types import IMAGENET_STATS


def test_a_file_of_weights_is_loaded_and_named(tmp_path: Path) -> None:
    plain = models.resnet18().eval()
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    plain.fc = torch.nn.Identity()
    encoder = TorchvisionEncoder("resnet", "18", weights=str(tmp_path / "weights.pth"), trainable=False).train()
    x = torch.randn(2, 3, 75, 97)
    torch.testing.assert_close(encoder.embed(x), plain(x), atol=1e-6, rtol=0)
    assert encoder.weights_origin == str(tmp_path / "weights.pth")


def real(data_root: Path, name: str, plain: torch.nn.Module) -> tuple[Path, Any]:
    """A file of real weights, and TorchVision's own model with them."""
    file = data_root / "weights" / f"{name}.safetensors"
    if not file.is_file():
        pytest.skip("these weights are not there")
    plain.load_state_dict(load_file(file))
    return file, plain.eval()


@pytest.mark.real_data
def test_real_weights_give_torchvisions_own_features(data_root: Path) -> None:
    file, plain = real(data_root, "mobilenet_v2-tflite_quant", models.mobilenet_v2())
    encoder = TorchvisionEncoder("mobilenetv2", "base", weights=str(file), trainable=False).train()
    for size in ((224, 224), (95, 127)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected = plain.features(x)
        torch.testing.assert_close(encoder.pyramid(x)[-1], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(encoder.embed(x), expected.mean((2, 3)), atol=1e-6, rtol=0)
    grey = TorchvisionEncoder("mobilenetv2", "base", num_channels=1, weights=str(file)).eval()
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(grey.embed(x), encoder.embed(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)


@pytest.mark.real_data
def test_real_weights_of_squeezenet_bring_their_classifier(data_root: Path) -> None:
    file, plain = real(data_root, "squeezenet1_1-ncnn_fp16", models.squeezenet1_1())
    encoder = TorchvisionEncoder("squeezenet", "1_1", weights=str(file), trainable=False, keep_head=True)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features, logits = plain.features(x), plain(x)
    torch.testing.assert_close(encoder.classify(x), logits)
    torch.testing.assert_close(encoder.embed(x), features.mean((2, 3)))
    torch.testing.assert_close(encoder.pyramid(x)[-1][..., :13, :13], features)
    assert encoder.head_classes[:2] == ("tench", "goldfish")


def test_levels_are_those_that_segmentation_libraries_use() -> None:
    mobilenet = TorchvisionEncoder("mobilenetv2", "base", use_pretrained=False)
    assert mobilenet.info.channels == (16, 24, 32, 96, 1280)
    resnet = TorchvisionEncoder("resnet", "18", use_pretrained=False)
    assert resnet.info.channels == (64, 64, 128, 256, 512)
    assert mobilenet.info.strides == resnet.info.strides == (2, 4, 8, 16, 32)
    assert mobilenet.pixel_stats == IMAGENET_STATS


def test_the_classifier_is_not_kept() -> None:
    encoder = TorchvisionEncoder("mobilenetv2", "base", use_pretrained=False)
    assert not any("classifier" in name for name in encoder.state_dict())
    with pytest.raises(ConfigError, match="without the classifier"):
        encoder.classify(torch.zeros(1, 3, 64, 64))


def test_a_classifier_that_is_kept_must_be_in_the_weights(tmp_path: Path) -> None:
    state = models.squeezenet1_1().state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("classifier")}, tmp_path / "features.pth")
    file = str(tmp_path / "features.pth")
    TorchvisionEncoder("squeezenet", "1_1", weights=file)
    with pytest.raises(ConfigError, match=r"missing: classifier\.1\.weight"):
        TorchvisionEncoder("squeezenet", "1_1", weights=file, keep_head=True)


@pytest.mark.parametrize(
    ("family", "variant", "message"),
    [("resnet", "51", "did you mean: 50"), ("resnt", "18", "did you mean: resnet"), ("mobilenetv2", "bse", "base")],
)
def test_wrong_names_are_refused(family: str, variant: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TorchvisionEncoder(family, variant, use_pretrained=False)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ConfigError, match="missing: features"):
        TorchvisionEncoder("mobilenetv2", "base", weights=str(tmp_path / "resnet.pth"))


def test_weights_that_cannot_be_downloaded_offer_two_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ConfigError) as caught:
        TorchvisionEncoder("resnet", "18", model_cache_dir=str(tmp_path))
    assert "no route to host" in str(caught.value)
    assert caught.value.overrides == ["encoder.weights=FILE", "encoder.use_pretrained=false"]


def test_downloads_go_where_they_are_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def fake(url: str, **kwargs: object) -> dict[str, torch.Tensor]:
        seen.update(kwargs, url=url)
        return models.resnet18().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fake)
    encoder = TorchvisionEncoder("resnet", "18", model_cache_dir=str(tmp_path))
    assert seen["model_dir"] == str(tmp_path)
    assert "resnet18" in str(seen["url"])
    assert encoder.weights_origin == "torchvision ResNet18_Weights.IMAGENET1K_V1"


def test_weights_that_are_named_but_not_to_be_used_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.use_pretrained=true"):
        TorchvisionEncoder("resnet", "18", use_pretrained=False, weights="resnet.pth")
