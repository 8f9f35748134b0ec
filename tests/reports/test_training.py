"""What the end of a fit says about the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_vision.data.embeddings import EmbeddingCache
from lightning_vision.decoders.classifier import ClassifierDecoder
from lightning_vision.head import Head
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.module import VisionModule
from lightning_vision.reports.training import training_lines
from lightning_vision.tasks.classification import Classification
from lightning_vision.testing.encoders import TinyEncoder
from lightning_vision.types import IMAGENET_STATS, Geometry, TargetSpec


def module(encoder: TinyEncoder, adapter: str | None = None, **more: Any) -> VisionModule:
    return VisionModule(
        encoder,
        {
            "output": Head(
                ClassifierDecoder(encoder.info, 2),
                Classification(TargetSpec("label", ("a", "b"))),
                SoftmaxCrossEntropyLoss(2),
            )
        },
        Geometry(8, 8, 3),
        IMAGENET_STATS,
        config={"encoder": {"adapter": adapter}},
        **more,
    )


ENCODER = 3 * 4 * 9 + 2 * 4 + 4 * 8 * 9 + 2 * 8  # two convolutions without bias, each with a norm
HEAD = 2 * (8 + 1)


def test_a_frozen_encoder_with_its_cache() -> None:
    built = module(TinyEncoder(4, 2, trainable=False))
    lines = training_lines(built)
    assert lines[0] == f"trained  {HEAD} of {ENCODER + HEAD} parameters ({100 * HEAD / (ENCODER + HEAD):.3g} %)"
    assert lines[1:] == ["encoder  frozen"]
    built.embeddings = EmbeddingCache(built.encode_to_store, [(8,)], dict)
    assert training_lines(built) == lines, "nothing was opened"
    usage = built.embeddings.usage
    usage.rows, usage.nbytes, usage.folder, usage.encoded, usage.seconds, usage.read = (
        30,
        1200000,
        Path("f"),
        30,
        2.0,
        60,
    )
    assert training_lines(built)[2:] == ["cache    embeddings of 30 samples, 1.2 MB in f: 30 encoded in 2.0 s, 60 read"]
    usage.too_large = 4
    assert "4 times" in training_lines(built)[2]


def test_rates_and_the_epochs_of_an_encoder_that_is_trained() -> None:
    built = module(TinyEncoder(4, 2), encoder_lr_factor=0.1, encoder_layer_decay=0.5, encoder_freeze_epochs=3)
    built.encoder_rates = [2.5e-5, 5e-5, 1e-4]
    first, second = training_lines(built)
    assert first.endswith("(100 %)")
    assert second == (
        "encoder  rate 0.0001 (encoder_lr_factor 0.1) down to 2.5e-05 in 3 layers (encoder_layer_decay 0.5), "
        "frozen in the first 3 epochs"
    )


def test_the_parameters_of_an_adapter() -> None:
    built = module(TinyEncoder(4, 2), adapter="lora")
    for parameter in built.encoder.levels[0].parameters():
        parameter.requires_grad_(False)
    inside = 4 * 8 * 9 + 2 * 8
    assert training_lines(built)[0].endswith(f", {inside} of them in the encoder's adapter")
