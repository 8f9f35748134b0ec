from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_vision.decoders.classifier import ClassifierDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_decoder
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((6,), (4,), 6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_fc_layers": 2, "fc_output_size": 5, "fc_norm": "batch", "fc_dropout": 0.3},
        {"num_fc_layers": 1, "fc_norm": "layer", "fc_norm_params": {"eps": 1e-6}, "fc_use_bias": False},
        {"fc_layers": [{"output_size": 4, "activation": "geglu"}, {"output_size": 3}]},
        {"num_fc_layers": 1, "normalize": True},
    ],
)
def test_keeps_the_contract(arguments: dict[str, Any]) -> None:
    check_decoder(ClassifierDecoder(INFO, 3, **arguments))


def test_layers_take_their_own_values_over_the_defaults() -> None:
    decoder = ClassifierDecoder(
        INFO,
        3,
        num_fc_layers=7,
        fc_output_size=9,
        fc_bias_initializer="ones",
        fc_weights_initializer={"type": "normal", "std": 5.0},
        fc_layers=[{"output_size": 4}, {"bias_initializer": "zeros"}],
    )
    linear = [m for m in decoder.fc if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in linear] == [4, 9]
    assert linear[0].bias.tolist() == [1.0] * 4
    assert not linear[1].bias.any()
    assert linear[1].weight.std() > 2


def test_normalised_embeddings_have_one_length() -> None:
    decoder = ClassifierDecoder(INFO, 3, normalize=True)
    embedding = torch.randn(5, 6) * torch.tensor([1e-3, 0.1, 1, 10, 1e3])[:, None]
    hidden = decoder.hidden(embedding, (8, 8))
    length = (embedding.double() ** 2).sum(1, keepdim=True).sqrt()
    assert torch.allclose(hidden.double(), embedding.double() / length * 6**0.5, atol=1e-6)
    assert torch.allclose(hidden.square().mean(1), torch.ones(5))
    logits = decoder(embedding, (8, 8))
    assert torch.equal(logits, decoder.head(hidden))
    assert torch.allclose(decoder(embedding * 7, (8, 8)), logits, atol=1e-6)
    assert not decoder.hidden(torch.zeros(1, 6), (8, 8)).isnan().any()


def test_a_pyramid_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedding"):
        ClassifierDecoder(INFO, 3)([torch.zeros(1, 6, 2, 2)], (8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_fc_layers": 1, "fc_activation": "rellu"}, "did you mean: relu"),
        ({"num_fc_layers": 1, "fc_norm": "bach"}, "did you mean: batch"),
        ({"num_fc_layers": 1, "fc_norm": "batch", "fc_norm_params": {"momentun": 0.1}}, "did you mean: momentum"),
        ({"num_fc_layers": 1, "fc_weights_initializer": "xavier"}, "There is no such initializer"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassifierDecoder(INFO, **{"num_classes": 3, **arguments})
