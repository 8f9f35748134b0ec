"""An encoder that is frozen for the first epochs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision.assembly import build_trainer
from lightning_vision.callbacks.unfreeze import FreezeEncoder
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.processes import Child, rank_environments


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    return {
        "encoder": "unet",  # with BatchNorm
        "decoder": "unet",
        "data": "table",
        "augmentation": "random_horizontal_flip",
        "image_size": [32, 40],
        "epochs": 3,
        "batch_size": 8,
        "overrides": {
            "data.path": str(table),
            "data.ignore_index": 255,
            "encoder.base_channels": 4,
            "decoder.channels": [16, 8, 8, 8],
            "encoder_freeze_epochs": 2,
            "output_dir": str(out),
            **values,
        },
    }


class Notes(Callback):
    """What the encoder and the optimizer hold at the end of each epoch."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.in_optimizer: list[int] = []
        self.training: list[bool] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.is_last_batch:
            self.training.append(any(m.training for m in pl_module.encoder.modules()))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        encoder = pl_module.encoder
        self.states.append({k: v.clone() for k, v in encoder.state_dict().items()})
        self.in_optimizer.append(sum(p in trainer.optimizers[0].state for p in encoder.parameters()))


def test_nothing_moves_before_its_time_and_everything_after(table: Path, tmp_path: Path) -> None:
    module, data = lv.build(**settings(table, tmp_path))
    before = {k: v.clone() for k, v in module.encoder.state_dict().items()}
    count = len(list(module.encoder.parameters()))
    notes = Notes()
    trainer = build_trainer({**module.config, "callbacks": {}, "logger": {}}, enable_checkpointing=False)
    trainer.callbacks.append(notes)
    trainer.fit(module, data)
    for state in notes.states[:2]:
        assert all(torch.equal(value, before[key]) for key, value in state.items()), "statistics of the norms too"
    assert notes.in_optimizer == [0, 0, count]
    assert notes.training == [False, False, True]
    assert not any(torch.equal(value, before[key]) for key, value in notes.states[2].items())
    assert len(trainer.optimizers[0].param_groups) == 4, "encoder and head, with and without weight decay"


@pytest.mark.parametrize("step", [5, 6, 7], ids=["before the boundary", "on it", "behind it"])
def test_resume_is_exact_across_the_boundary(table: Path, tmp_path: Path, step: int) -> None:
    words = [
        "+callbacks.steps._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "+callbacks.steps.filename='{step}'",
        "+callbacks.steps.every_n_train_steps=1",
        "+callbacks.steps.save_top_k=-1",
        f"+callbacks.steps.dirpath='{tmp_path / 'steps'}'",
    ]
    lv.fit(words, **settings(table, tmp_path / "whole"))
    part = settings(table, tmp_path / "part")
    part["checkpoint"] = str(tmp_path / "steps" / f"step={step}.ckpt")
    words[-1] = f"+callbacks.steps.dirpath='{tmp_path / 'more'}'"
    lv.fit(words, **part)
    a, b = (checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part"))
    assert a["global_step"] == b["global_step"] == 9
    for key, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][key]), key
    left, right = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert left.keys() == right.keys()
    assert all(torch.equal(state[k], right[parameter][k]) for parameter, state in left.items() for k in state)


def test_after_an_early_end_the_module_is_as_it_was_built(table: Path, tmp_path: Path) -> None:
    module, data = lv.build(**settings(table, tmp_path))
    quiet = {**module.config, "callbacks": {}, "logger": {}, "trainer": {**module.config["trainer"], "max_epochs": 1}}
    build_trainer(quiet, enable_checkpointing=False).fit(module, data)
    assert module.encoder.trainable
    assert all(p.requires_grad for p in module.encoder.parameters())


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["encoder.trainable=false"], "encoder.trainable=false"),
        (["encoder.skip=true"], "encoder.skip=true"),
        (["epochs=2"], "epochs=2"),
    ],
)
def test_where_there_is_nothing_to_unfreeze_it_is_refused(table: Path, words: list[str], named: str) -> None:
    base = ["data=table", "encoder=unet", "decoder=unet", "image_size=32", "encoder_freeze_epochs=2"]
    values = {"data.path": str(table), "data.ignore_index": 255}
    with pytest.raises(ConfigError, match="encoder_freeze_epochs=2") as error:
        resolve(compose([*base, *words], values))
    assert named in str(error.value)
    for override in error.value.overrides:
        resolve(compose([*base, *words, *override.split()], values))


def test_layer_decay_of_a_frozen_encoder_is_refused(table: Path) -> None:
    words = ["data=table", "encoder=unet", "decoder=unet", "image_size=32", "encoder.trainable=false"]
    with pytest.raises(ConfigError, match=r"encoder_layer_decay=0\.5 and encoder\.trainable=false"):
        resolve(compose([*words, "encoder_layer_decay=0.5"], {"data.path": str(table), "data.ignore_index": 255}))


def test_a_model_that_is_split_among_processes_is_refused() -> None:
    trainer: Any = SimpleNamespace(strategy=object())
    with pytest.raises(ConfigError, match=r"trainer\.strategy=ddp"):
        FreezeEncoder(1).setup(trainer, LightningModule(), "fit")


class Keep(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.save(pl_module.encoder.state_dict(), f"{trainer.current_epoch}_{trainer.global_rank}.pt")


def fit_and_keep(words: list[str]) -> None:
    module, data = lv.build(words)
    trainer = build_trainer({**module.config, "callbacks": {}, "logger": {}}, enable_checkpointing=False)
    trainer.callbacks.append(Keep())
    trainer.fit(module, data)


def test_two_processes_unfreeze_together_and_stay_equal(table: Path, tmp_path: Path) -> None:
    words = [f"{key}={value}" for key, value in settings(table, tmp_path / "run")["overrides"].items()]
    words = [word.replace(" ", "") for word in words]
    words += ["data=table", "encoder=unet", "decoder=unet", "image_size=[32,40]", "batch_size=4", "epochs=2"]
    words += ["encoder_freeze_epochs=1", "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
    for child in [Child(fit_and_keep, words, cwd=tmp_path, **rank) for rank in rank_environments()]:
        child.succeed()
    first, second = (
        [torch.load(tmp_path / f"{epoch}_{rank}.pt", weights_only=True) for rank in (0, 1)] for epoch in (0, 1)
    )
    weights = [key for key, value in first[0].items() if value.ndim > 1]
    for one, two in (first, second):
        assert all(torch.equal(one[key], two[key]) for key in weights), "each process has gradients of its own"
    assert not any(torch.equal(first[0][key], second[0][key]) for key in weights)


def test_a_fit_after_one_that_failed_unfreezes_all_the_same(table: Path, tmp_path: Path) -> None:
    module, _ = lv.build(**settings(table, tmp_path))
    assert module.freezing is not None
    trainer = type("Trainer", (), {"strategy": SingleDeviceStrategy(torch.device("cpu"))})()
    module.freezing.setup(trainer, module, "fit")
    count = len(module.freezing.parameters)
    module.freezing.setup(trainer, module, "fit")  # Lightning calls no teardown behind an exception
    assert len(module.freezing.parameters) == count > 0
