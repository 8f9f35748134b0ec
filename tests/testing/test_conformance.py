"""The checks themselves: each must refuse a part that breaks the rule that it is for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.losses.base import Loss
from lightning_vision.testing.conformance import check_decoder, check_encoder, check_loss
from lightning_vision.testing.encoders import TinyEncoder
from lightning_vision.types import FeatureInfo


class StaysInTraining(TinyEncoder):
    def train(self, mode: bool = True) -> StaysInTraining:
        nn.Module.train(self, mode)
        return self


class ShortMaps(TinyEncoder):
    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        return [m[..., :-1] for m in super().pyramid_features(x)]


class Untruthful(TinyEncoder):
    def finish(self) -> None:
        self.info = FeatureInfo(self.info.channels, self.info.strides, self.info.embed_dim + 1)
        super().finish()


class TooLargeStride(TinyEncoder):
    def finish(self) -> None:
        self.info = FeatureInfo(self.info.channels, (2, 4, 16), self.info.embed_dim)
        super().finish()


class Unused(TinyEncoder):
    def finish(self) -> None:
        self.extra = nn.Parameter(torch.ones(1))
        super().finish()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (StaysInTraining, "stays in eval mode"),
        (ShortMaps, "maps .* instead of"),
        (Untruthful, "embedding"),
        (TooLargeStride, "has not the stride 16"),
        (Unused, "no gradient reaches extra"),
    ],
)
def test_a_broken_encoder_is_refused(broken: type[TinyEncoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_encoder(broken())


class Stretching(Decoder):
    consumes = "pyramid"
    output = "mask"

    def __init__(self, info: FeatureInfo, num_classes: int) -> None:
        super().__init__(info, num_classes)
        self.head = nn.Conv2d(info.channels[0], num_classes, 1)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        return self.head(features[0])


def test_a_decoder_that_returns_another_size_is_refused() -> None:
    with pytest.raises(AssertionError, match="logits"):
        check_decoder(Stretching(FeatureInfo((4,), (2,), 4), 3))


class Elsewhere(Stretching):
    consumes = "maps"


class Unknown(Stretching):
    output = "classes"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Elsewhere, "consumes = 'maps' of Elsewhere\n.*one of embedding, pyramid, logits"),
        (Unknown, "output = 'classes' of Unknown\n.*one of label, mask, score, embedding"),
    ],
)
def test_a_decoder_of_an_unknown_kind_is_refused_by_name(broken: type[Decoder], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_decoder(broken(FeatureInfo((4,), (2,), 4), 3))


class CountsIgnored(Loss):
    tasks = ("classification",)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.long() % self.num_classes
        return nn.functional.cross_entropy(logits.float(), target)


def test_a_loss_that_counts_what_is_ignored_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match="what is ignored does not count"):
        check_loss(CountsIgnored(4, None, 255), 4)
