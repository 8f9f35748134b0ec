from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_vision.encoders.base import pad_to_multiple
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder, check_frozen
from lightning_vision.testing.encoders import TinyEncoder


def test_the_tiny_encoder_keeps_the_contract() -> None:
    check_encoder(TinyEncoder(), TinyEncoder)


def test_frozen_from_the_start_is_frozen_for_good() -> None:
    encoder = TinyEncoder(trainable=False)
    check_frozen(encoder, torch.randn(2, 3, 20, 20))


def test_trainable_moves_its_statistics() -> None:
    encoder = TinyEncoder().train()
    before = encoder.weights_digest()
    encoder.embed(torch.randn(2, 3, 20, 20))
    assert encoder.weights_digest() != before


def test_the_digest_tells_apart_names_shapes_and_values() -> None:
    first, second = TinyEncoder(), TinyEncoder()
    second.load_state_dict(first.state_dict())
    assert first.weights_digest() == second.weights_digest()
    with torch.no_grad():
        next(second.parameters()).view(-1)[0] += 1e-6
    assert first.weights_digest() != second.weights_digest()


def test_other_channels_and_no_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_channels=1"):
        TinyEncoder().embed(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError, match="at least one channel"):
        TinyEncoder(num_channels=0)


def test_an_image_below_the_smallest_size_is_refused_with_a_size_that_works() -> None:
    encoder = TinyEncoder()
    encoder.min_size = (8, 16)
    with pytest.raises(ConfigError, match=r"image_size=\[20,16\]"):
        encoder.pyramid(torch.zeros(1, 3, 20, 15))


def test_padding_is_at_the_right_and_bottom() -> None:
    x = torch.ones(1, 1, 3, 4)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 4, 4)
    assert torch.equal(padded[..., :3, :], x)
    assert not padded[..., 3, :].any()
    assert pad_to_multiple(padded, 4) is padded


class TestAdapter:
    def test_starts_as_no_change_and_trains_only_itself(self) -> None:
        pytest.importorskip("peft")
        plain, adapted = TinyEncoder(), TinyEncoder(adapter={"type": "lora", "r": 2, "alpha": 4, "dropout": 0.5})
        own = adapted.state_dict()
        for name, value in plain.state_dict().items():
            stem, _, last = name.rpartition(".")
            own[f"{stem}.base_layer.{last}" if f"{stem}.base_layer.{last}" in own else name].copy_(value)
        x = torch.randn(2, 3, 20, 20)
        assert torch.equal(plain.eval().embed(x), adapted.eval().embed(x))
        trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
        assert trained
        assert all("lora_" in n for n in trained)

    def test_batchnorm_stands_still_and_dropout_does_not(self) -> None:
        pytest.importorskip("peft")
        encoder = TinyEncoder(adapter={"dropout": 0.5}).train()
        before = [b.clone() for b in encoder.buffers()]
        x = torch.randn(2, 3, 20, 20)
        encoder.embed(x).square().sum().backward()
        assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))
        assert any(isinstance(m, nn.Dropout) and m.training for m in encoder.modules())
        encoder.eval()
        assert not any(m.training for m in encoder.modules())

    def test_rebuilds_with_its_weights(self) -> None:
        pytest.importorskip("peft")
        encoder = TinyEncoder(adapter="lora")
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, std=0.1)
        again = TinyEncoder(**{"adapter": "lora", **encoder.rebuild_kwargs()})
        again.load_state_dict(encoder.state_dict())
        x = torch.randn(1, 3, 16, 16)
        assert torch.equal(again.eval().embed(x), encoder.eval().embed(x))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"adapter": "lorra"}, "encoder.adapter=lora"),
            ({"adapter": {"rank": 3}}, "no such setting"),
            ({"adapter": {"alfa": 3}}, "did you mean: alpha"),
            ({"adapter": {"r": 0}}, "r >= 1"),
            ({"adapter": "lora", "trainable": False}, "a frozen encoder is not"),
            ({"adapter": {"target_modules": ["nowhere"]}}, "does not fit"),
        ],
    )
    def test_wrong_settings_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        pytest.importorskip("peft")
        with pytest.raises(ConfigError, match=message):
            TinyEncoder(**arguments)

    def test_without_peft_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "peft", None)
        with pytest.raises(ConfigError, match=r"pip install 'lightning_vision\[peft\]'"):
            TinyEncoder(adapter="lora")
