"""Several kinds of features of the same images, from one pass of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.custom import CustomEncoder
from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.inputs import InputsEncoder
from lightning_vision.encoders.mlp_mixer import MLPMixer
from lightning_vision.encoders.stacked_cnn import StackedCNN
from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.encoders.unet import UNetEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder
from lightning_vision.testing.encoders import TinyEncoder

BOTH = ("embedding", "pyramid")
ALL = (*BOTH, "logits")
MIXER = {"embed_dim": 24, "num_blocks": 4}
RESNET = {"model_type": "resnet", "depths": [1, 1], "hidden_sizes": [8, 8], "embedding_size": 8, "layer_type": "basic"}


def unet(**settings: Any) -> UNetEncoder:
    return UNetEncoder(base_channels=4, depth=2, **settings)


def module() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())


NORMED: dict[str, Callable[[], Encoder]] = {
    "stacked_cnn": lambda: StackedCNN(num_conv_layers=2, conv_norm="batch"),
    "unet": unet,
    "torchvision": lambda: TorchvisionEncoder("resnet", "18", use_pretrained=False),
    "timm": lambda: TimmEncoder(None, "test_resnet", use_pretrained=False),
    "huggingface": lambda: HuggingFaceEncoder("auto", "x", RESNET, use_pretrained=False),
    "custom": lambda: CustomEncoder(module()),
    "inputs": lambda: InputsEncoder([unet(), unet()]),
}


def batches_seen(encoder: Encoder) -> set[int]:
    return {int(b) for name, b in encoder.named_buffers() if name.endswith("num_batches_tracked")}


def assert_as_alone(encoder: Encoder, x: Tensor, wanted: Sequence[str]) -> None:
    ways: dict[str, Callable[[Tensor], Any]] = {
        "embedding": encoder.embed,
        "pyramid": encoder.pyramid,
        "logits": encoder.classify,
    }
    found = encoder.features(x, wanted)
    assert list(found) == list(wanted)
    for kind in wanted:
        values, alone = found[kind], ways[kind](x)
        assert isinstance(values, list) == isinstance(alone, list)
        for a, b in zip(values, alone, strict=True):
            assert torch.equal(a, b), kind


@pytest.mark.parametrize("name", NORMED)
def test_running_statistics_see_a_batch_once(name: str) -> None:
    torch.manual_seed(0)
    encoder = NORMED[name]().train()
    before = batches_seen(encoder)
    encoder.features(torch.randn(2, encoder.num_channels, 64, 64), BOTH)
    assert before == {0}
    assert batches_seen(encoder) == {1}


@pytest.mark.parametrize(
    "name",
    [
        "dpn48b",
        "efficientformerv2_s0",
        "nextvit_small",
        "resnetv2_18",
        "starnet_s050",
        "swiftformer_xs",
        "visformer_tiny",
        "densenet121",
    ],
)
def test_a_final_norm_of_timm_sees_a_batch_once(name: str) -> None:
    torch.manual_seed(0)
    encoder, x = TimmEncoder(None, name, use_pretrained=False).train(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        encoder.features(x, BOTH)
        assert batches_seen(encoder) == {1}
        assert_as_alone(encoder.eval(), x, BOTH)


def test_dropout_is_the_same_for_both() -> None:
    torch.manual_seed(0)
    encoder = MLPMixer(8, 16, 16, 16, 4, dropout=0.5, image_size=32).train()
    x = torch.randn(2, 3, 32, 32)
    found = encoder.features(x, BOTH)
    torch.testing.assert_close(found["embedding"], found["pyramid"][-1].mean((2, 3)))
    assert not torch.allclose(encoder.embed(x), encoder.pyramid(x)[-1].mean((2, 3)))


def test_gradients_of_both_add_up() -> None:
    torch.manual_seed(0)
    encoder, x = unet(conv_norm=None).double(), torch.randn(2, 3, 20, 28, dtype=torch.float64)

    def gradients(*outputs: Tensor) -> list[Tensor]:
        encoder.zero_grad()
        torch.stack([o.square().sum() for o in outputs]).sum().backward()
        return [p.grad.clone() for p in encoder.parameters() if p.grad is not None]

    found = encoder.features(x, BOTH)
    together = gradients(found["embedding"], *found["pyramid"])  # type: ignore[arg-type]
    for a, b in zip(together, gradients(encoder.embed(x), *encoder.pyramid(x)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "build",
    [
        lambda: TorchvisionEncoder("squeezenet", "1_1", use_pretrained=False, keep_head=True),
        lambda: TorchvisionEncoder("mobilenetv3", "small", use_pretrained=False, keep_head=True),
        lambda: TimmEncoder(None, "test_vit", use_pretrained=False, keep_head=True),
        lambda: TimmEncoder(None, "mobilenetv4_conv_small_035", use_pretrained=False, keep_head=True),
        lambda: HuggingFaceEncoder("auto", "x", RESNET, use_pretrained=False, keep_head=True),
    ],
    ids=["squeezenet", "mobilenetv3", "timm_vit", "mobilenetv4", "huggingface"],
)
def test_logits_come_with_the_features(build: Callable[[], Encoder]) -> None:
    torch.manual_seed(0)
    encoder, x = build().eval(), torch.randn(2, 3, 64, 80)
    with torch.no_grad():
        for wanted in (ALL, ("logits", "embedding"), ("pyramid", "logits")):
            assert_as_alone(encoder, x, wanted)


def test_without_a_classifier_there_are_no_logits() -> None:
    with pytest.raises(ConfigError, match="without the classifier"):
        TinyEncoder().features(torch.zeros(1, 3, 8, 8), ALL)


@pytest.mark.parametrize(("side", "passes"), [(64, 1), (71, 2)])
@pytest.mark.parametrize(
    ("build", "first"),
    [
        (lambda: TimmEncoder(None, "mixer_s32_224", MIXER, use_pretrained=False), "model.stem.proj"),
        (lambda: CustomEncoder(module(), image_size=32), "module.0"),
    ],
    ids=["timm", "custom"],
)
def test_a_model_of_one_size_runs_twice_only_where_its_maps_need_padding(
    build: Callable[[], Encoder], first: str, side: int, passes: int
) -> None:
    torch.manual_seed(0)
    encoder = build().eval()
    x = torch.randn(1, 3, side, side)
    calls: list[int] = []
    with torch.no_grad():
        assert_as_alone(encoder, x, BOTH)
        encoder.get_submodule(first).register_forward_hook(lambda *_: calls.append(1))
        encoder.features(x, BOTH)
    assert len(calls) == passes


def test_only_what_is_wanted_is_computed() -> None:
    encoder = StackedCNN(num_conv_layers=2)
    calls: list[int] = []
    encoder.fc.register_forward_hook(lambda *_: calls.append(1))
    x = torch.zeros(1, 3, 32, 32)
    encoder.pyramid(x)
    assert not calls
    assert len(encoder.shared_features(x, ("embedding",))) == 1, "maps are not kept for an embedding"


def test_two_images_a_sample() -> None:
    torch.manual_seed(0)
    one = unet()
    for encoders in ([one, one], [unet(), unet()]):
        assert_as_alone(InputsEncoder(encoders).eval(), torch.randn(2, 6, 21, 30), BOTH)


def test_frozen_keeps_no_graph() -> None:
    encoder = unet(trainable=False).train()
    before = encoder.weights_digest()
    found = encoder.features(torch.randn(2, 3, 20, 20), BOTH)
    assert not any(f.requires_grad for f in (found["embedding"], *found["pyramid"]))  # type: ignore[union-attr]
    assert encoder.weights_digest() == before


def test_skipped_gives_the_image_and_its_mean() -> None:
    encoder, x = unet(skip=True), torch.rand(2, 3, 5, 7)
    assert_as_alone(encoder, x, BOTH)
    assert torch.equal(encoder.features(x, BOTH)["pyramid"][0], x)


def test_an_encoder_that_shares_nothing_runs_once_for_each() -> None:
    torch.manual_seed(0)
    encoder, x = TinyEncoder().train(), torch.randn(2, 3, 21, 30)
    encoder.features(x, BOTH)
    assert batches_seen(encoder) == {2}
    assert_as_alone(encoder.eval(), x, BOTH)


class Different(TinyEncoder):
    """Gives another embedding where maps are wanted too."""

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> Tensor:
        return x * len(wanted)


class Twice(TinyEncoder):
    """Runs everything again where both are wanted."""

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> Any:
        return [TinyEncoder.pyramid_features(self, x) for _ in wanted][-1]

    def embed_features(self, x: Any) -> Tensor:
        return x[-1].mean((2, 3))

    def pyramid_features(self, x: Any) -> list[Tensor]:
        return x


@pytest.mark.parametrize(
    ("broken", "message"), [(Different, "gives the embedding of embed"), (Twice, "levels.0.0 runs 2 times")]
)
def test_the_contract_is_checked(broken: type[TinyEncoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_encoder(broken())
