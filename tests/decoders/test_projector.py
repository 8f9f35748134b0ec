from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_vision.decoders.projector import ProjectorDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_decoder
from lightning_vision.types import FeatureInfo

INFO = FeatureInfo((6,), (4,), 6)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"output_size": 3, "num_fc_layers": 0},
        {"num_fc_layers": 2, "fc_output_size": 5, "fc_norm": "batch", "fc_dropout": 0.3},
        {"fc_layers": [{"output_size": 4, "activation": "geglu"}, {"output_size": 3}], "predicts": "projection"},
    ],
)
def test_gives_vectors_of_its_size_with_gradients_to_all_parameters(arguments: dict[str, Any]) -> None:
    decoder = ProjectorDecoder(INFO, 0, **arguments)
    check_decoder(decoder)
    decoder.train().zero_grad()
    features = torch.randn(4, 6, requires_grad=True)
    vectors = decoder(features, (8, 8))
    assert vectors.shape == (4, arguments.get("output_size", 128))
    (vectors * torch.randn_like(vectors)).sum().backward()
    for name, parameter in [("features", features), *decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_is_the_formula_of_the_paper() -> None:
    decoder = ProjectorDecoder(INFO, 3, output_size=2)
    hidden, last = (m for m in decoder.modules() if isinstance(m, nn.Linear))
    assert (hidden.in_features, hidden.out_features, last.out_features) == (6, 6, 2)
    x = torch.randn(5, 6)
    expected = (x @ hidden.weight.T + hidden.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(decoder(x, (8, 8)), expected)


def test_what_is_kept_is_the_embedding_untouched() -> None:
    decoder = ProjectorDecoder(INFO, 3)
    x = torch.randn(5, 6)
    assert decoder.hidden(x, (8, 8)) is x
    assert torch.equal(decoder.last(x), decoder(x, (8, 8)))


def test_a_pyramid_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedding"):
        ProjectorDecoder(INFO, 3)([torch.zeros(1, 6, 2, 2)], (8, 8))


def test_wrong_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean: relu"):
        ProjectorDecoder(INFO, 3, fc_activation="rellu")  # type: ignore[arg-type]
