"""What holds for every dense decoder: any pyramid, a batch of one, fully connected layers at every pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.deeplabv3plus import DeepLabV3PlusDecoder
from lightning_vision.decoders.dpt import DPTDecoder
from lightning_vision.decoders.fpn import FPNDecoder
from lightning_vision.decoders.linear import LinearDecoder
from lightning_vision.decoders.segformer import SegFormerDecoder
from lightning_vision.decoders.unet import UNetDecoder
from lightning_vision.decoders.upernet import UPerNetDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_decoder, random_features
from lightning_vision.types import FeatureInfo

Make = Callable[..., Decoder]

SMALL = FeatureInfo((4, 6, 8), (2, 4, 8), 8)
PYRAMIDS = [
    SMALL,
    FeatureInfo((3,), (1,), 3),
    FeatureInfo((4, 5), (3, 9), 5),
    FeatureInfo((4, 5, 6, 7), (2, 2, 4, 4), 7),
    FeatureInfo((4, 5), (4, 32), 5),
    FeatureInfo((4, 5, 6, 7, 8, 9), (1, 2, 4, 8, 16, 32), 9),
    FeatureInfo((4, 5), (14, 14), 5),
]
# Those with fully connected layers.
DEEP: list[Any] = [
    pytest.param(UNetDecoder, id="unet"),
    pytest.param(partial(SegFormerDecoder, hidden_size=8), id="segformer"),
    pytest.param(partial(FPNDecoder, num_channels=8), id="fpn"),
    pytest.param(partial(UPerNetDecoder, num_channels=8), id="upernet"),
    pytest.param(partial(DeepLabV3PlusDecoder, num_channels=8), id="deeplabv3plus"),
    pytest.param(partial(DPTDecoder, num_channels=8), id="dpt"),
]
ALL = [*DEEP, pytest.param(partial(LinearDecoder, num_maps=None), id="linear")]


def strides(info: FeatureInfo) -> str:
    return "-".join(map(str, info.strides))


@pytest.mark.parametrize("info", PYRAMIDS, ids=strides)
@pytest.mark.parametrize("make", ALL[1:])  # the U-Net has more of them in its own file
def test_any_pyramid_will_do(make: Make, info: FeatureInfo) -> None:
    check_decoder(make(info, 3))


@pytest.mark.parametrize("make", ALL)
def test_one_image_whose_coarsest_map_is_one_cell_can_be_trained_on(make: Make) -> None:
    info = FeatureInfo((4, 5), (16, 32), 5)
    decoder = make(info, 3)
    features = random_features(info, (32, 32), batch=1)
    logits = decoder(features, (32, 32))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())


@pytest.mark.parametrize("make", ALL)
def test_the_images_of_a_batch_do_not_meet_in_evaluation(make: Make) -> None:
    decoder = make(SMALL, 3).eval()
    size = (37, 22)
    features = random_features(SMALL, size, batch=3)
    with torch.no_grad():
        together = decoder(features, size)
        alone = decoder([x[1:2] for x in features], size)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def fc_of(decoder: Decoder) -> Tensor:
    """What the fully connected layers make of one map, in evaluation."""
    torch.manual_seed(1)
    width = next(m.in_channels for m in decoder.fc if isinstance(m, torch.nn.Conv2d))
    with torch.no_grad():
        found: Tensor = decoder.eval().fc(torch.randn(2, width, 3, 3))
    return found


@pytest.mark.parametrize(
    "change",
    [
        {"num_fc_layers": 2},
        {"fc_output_size": 5},
        {"fc_weights_initializer": "ones"},
        {"fc_bias_initializer": "ones"},
        {"fc_norm": "layer"},
        {"fc_norm": "layer", "fc_norm_params": {"eps": 10.0}},
        {"fc_activation": "tanh"},
        {"fc_layers": [{"output_size": 4, "activation": None}]},
    ],
    ids=lambda change: "-".join(change),
)
@pytest.mark.parametrize("make", DEEP)
def test_every_setting_of_the_fully_connected_layers_has_its_effect(make: Make, change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"num_fc_layers": 1, "fc_output_size": 7}
    if "fc_norm_params" in change:
        base["fc_norm"] = "layer"
    found = []
    for arguments in (base, {**base, **change}):
        torch.manual_seed(0)
        found.append(fc_of(make(SMALL, 2, **arguments)))
    assert found[0].shape != found[1].shape or not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("make", DEEP)
def test_the_fully_connected_layers_are_what_was_asked_for(make: Make) -> None:
    decoder = make(SMALL, 2, num_fc_layers=2, fc_output_size=5, fc_use_bias=False, fc_dropout=0.25, fc_norm="batch")
    kinds = [type(m).__name__ for m in decoder.fc]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout"] * 2
    assert [m.bias for m in decoder.fc if isinstance(m, torch.nn.Conv2d)] == [None, None]
    assert [m.p for m in decoder.fc if isinstance(m, torch.nn.Dropout)] == [0.25, 0.25]
    assert decoder.head.in_channels == 5
    check_decoder(decoder, sizes=((32, 32),))


@pytest.mark.parametrize("make", DEEP)
def test_an_unknown_key_of_a_layer_is_refused(make: Make) -> None:
    with pytest.raises(ConfigError, match="did you mean: activation"):
        make(SMALL, 3, fc_layers=[{"activaton": "relu"}])


@pytest.mark.parametrize("make", [*DEEP[1:2], *DEEP[3:]])
def test_dropout_drops_whole_channels(make: Make) -> None:
    decoder = make(SMALL, 2, dropout=0.5)
    drop = next(m for m in decoder.modules() if isinstance(m, torch.nn.Dropout2d))
    torch.manual_seed(0)
    seen: list[tuple[Tensor, Tensor]] = []
    drop.register_forward_hook(lambda _module, given, output: seen.append((given[0], output)))
    features = random_features(SMALL, (32, 32), batch=4)
    decoder(features, (32, 32))
    decoder.eval()(features, (32, 32))
    (before, after), (before_eval, after_eval) = seen
    dropped = (after == 0).all(3).all(2)
    assert 4 < dropped.sum() < 28  # of 32
    torch.testing.assert_close(after, 2 * before * ~dropped[:, :, None, None])
    assert torch.equal(before_eval, after_eval)
