"""Stochastic depth of the libraries' models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn
from torchvision import models
from torchvision.ops import StochasticDepth

from lightning_vision.config import compose, conf_dir
from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.drop_path import rates
from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.resnet_legacy import ResNetLegacy
from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.pairing import check_encoder_training

SMALL = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8]}
DINO = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 4, "image_size": 16}


def torchvision(family: str, variant: str = "tiny", **more: Any) -> Encoder:
    return TorchvisionEncoder(family, variant, use_pretrained=False, **more)


def timm(name: str, **more: Any) -> Encoder:
    return TimmEncoder(None, name, use_pretrained=False, **more)


def huggingface(family: str, config: dict[str, Any], **more: Any) -> Encoder:
    return HuggingFaceEncoder(family, "none", config, use_pretrained=False, **more)


def without_statistics(encoder: Encoder) -> Encoder:
    """Let no norm look at the other images of a batch."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return encoder


BUILT = [
    pytest.param(torchvision, ("efficientnet", "b0"), id="torchvision efficientnet"),
    pytest.param(timm, ("test_convnext",), id="timm convnext"),
    pytest.param(timm, ("test_vit",), id="timm vit"),
    pytest.param(timm, ("test_resnet",), id="timm resnet"),
    pytest.param(huggingface, ("dinov2", DINO), id="dinov2"),
    pytest.param(huggingface, ("auto", {"model_type": "convnextv2", **SMALL}), id="transformers convnextv2"),
]


@pytest.mark.parametrize(("build", "arguments"), BUILT)
def test_the_rate_acts_in_training_and_not_in_evaluation(build: Any, arguments: tuple[Any, ...]) -> None:
    torch.manual_seed(0)
    still, moving = build(*arguments, drop_path=0.0), build(*arguments, drop_path=0.8)
    for parameter in still.parameters():  # as they are drawn, branches begin with next to nothing
        nn.init.kaiming_normal_(parameter) if parameter.ndim > 1 else nn.init.constant_(parameter, 0.5)
    moving.load_state_dict(still.state_dict())
    assert max(rates(moving)) == pytest.approx(0.8, rel=0.3)
    assert not any(rates(still))
    # The same image many times: in training each goes its own way.
    image = torch.randn(1, 3, 32, 32).expand(16, -1, -1, -1)
    with torch.no_grad():
        ways, one = (without_statistics(encoder.train()).embed(image) for encoder in (moving, still))
        assert (ways - ways[:1]).abs().amax() > 1e-3 * ways.abs().amax()
        assert torch.allclose(one, one[:1].expand_as(one), rtol=1e-3, atol=1e-5)
        assert torch.equal(moving.eval().embed(image[:2]), still.eval().embed(image[:2]))


@pytest.mark.parametrize(("family", "variant"), [("convnext", "tiny"), ("swin_transformer", "t")])
def test_torchvisions_rates_keep_their_proportions(family: str, variant: str) -> None:
    with torch.device("meta"):
        theirs: Any = models.get_model({"swin_transformer": "swin_t"}.get(family, f"{family}_{variant}"))
        own = [block.p for block in theirs.modules() if isinstance(block, StochasticDepth)]
    ours = rates(torchvision(family, variant, drop_path=0.5))
    assert ours == pytest.approx([0.5 * p / max(own) for p in own])


def test_without_a_word_it_is_what_the_library_says() -> None:
    assert max(rates(torchvision("convnext"))) == pytest.approx(0.1)
    assert not any(rates(timm("test_convnext")))


@pytest.mark.parametrize(
    ("build", "arguments", "named"),
    [
        (torchvision, ("resnet", "18"), "swin_transformer"),
        (timm, ("vgg11",), "resnet50"),
        (huggingface, ("auto", {"model_type": "resnet", **SMALL, "embedding_size": 8}), "convnextv2"),
        (huggingface, ("clip", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}), "dinov2"),
    ],
)
def test_an_encoder_without_it_is_refused(build: Any, arguments: tuple[Any, ...], named: str) -> None:
    with pytest.raises(ConfigError, match="no stochastic depth") as error:
        build(*arguments, drop_path=0.1)
    assert named in str(error.value)
    assert error.value.overrides == ["encoder.drop_path=null"]


def test_two_rates_are_refused() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        timm("test_convnext", drop_path=0.1, model_kwargs={"drop_path_rate": 0.2})
    with pytest.raises(ConfigError, match="given twice"):
        huggingface("dinov2", {**DINO, "drop_path_rate": 0.2}, drop_path=0.1)


@pytest.mark.parametrize(
    "encoder",
    [
        pytest.param(lambda: timm("test_convnext", drop_path=0.3), id="timm"),
        pytest.param(lambda: huggingface("dinov2", DINO, drop_path=0.3), id="transformers"),
        pytest.param(lambda: ResNetLegacy("18", use_pretrained=False, drop_path=0.3), id="legacy"),
    ],
)
def test_it_is_built_again_from_a_checkpoint(encoder: Any) -> None:
    first = encoder()
    more = {"family": None} if type(first) is TimmEncoder else {}
    more |= {"family": "dinov2", "pretrained_model_name_or_path": "x"} if type(first) is HuggingFaceEncoder else {}
    more |= {"model_variant": "18"} if type(first) is ResNetLegacy else {}
    again = type(first)(**{**more, "drop_path": 0.3, **first.rebuild_kwargs()})
    again.load_state_dict(first.state_dict())
    assert rates(again) == rates(first)


def test_a_frozen_encoder_with_it_is_refused() -> None:
    config = {"encoder": {"drop_path": 0.1, "trainable": False}, "epochs": 3}
    with pytest.raises(ConfigError, match=r"encoder\.drop_path=0\.1 and encoder\.trainable=false"):
        check_encoder_training(config)
    check_encoder_training({"encoder": {"drop_path": None, "trainable": False}, "epochs": 3})


def test_every_file_of_these_encoders_has_it() -> None:
    for file in sorted((conf_dir() / "encoder").glob("*.yaml")):
        node: Any = OmegaConf.load(file)
        if "drop_path" in get_class(node._target_).__init__.__annotations__:
            assert node.drop_path is None
    with pytest.raises(ConfigError, match="drop_path"):
        compose(["encoder=convnext", "encoder.drop_path=1.0"])
