"""Our trainer: what it adds to Lightning's, and what it refuses."""

from __future__ import annotations

import logging

import pytest

from lightning_vision.config import compose, instantiate
from lightning_vision.errors import ConfigError
from lightning_vision.trainer import Trainer

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def test_sync_batchnorm_is_left_out_on_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", sync_batchnorm=True, **QUIET)
    assert trainer.strategy._layer_sync is None
    assert caplog.text.count("sync_batchnorm is left out") == 1


def test_any_argument_of_lightnings_trainer_can_be_added() -> None:
    node = compose(
        ["+trainer.max_time='00:00:01:00'", "trainer.precision=auto", "+trainer.limit_train_batches=3"]
    ).trainer
    trainer = instantiate(node, Trainer, **QUIET)
    assert trainer.limit_train_batches == 3
    assert trainer.precision == "32-true"


@pytest.mark.parametrize(
    ("word", "better"),
    [
        ("trainer.precison=auto", r"trainer\.precision=auto"),
        ("trainer.precision=bf16mixed", r"trainer\.precision=bf16-mixed"),
        ("+trainer.max_tim=5", r"\+trainer\.max_time=5"),
        ("trainer.find_lr=yes", r"trainer\.find_lr=true"),
        ("+trainer.limit_train_batches=some", r"an integer or a number or null"),
    ],
)
def test_wrong_names_and_values_are_answered(word: str, better: str) -> None:
    with pytest.raises(ConfigError, match=better):
        compose([word])


def test_how_to_clip_needs_where() -> None:
    with pytest.raises(ConfigError, match=r"(?s)gradient_clip_algorithm does.*try: +trainer.gradient_clip_val=1.0"):
        instantiate(compose(["trainer.gradient_clip_algorithm=value"]).trainer, Trainer, **QUIET)
