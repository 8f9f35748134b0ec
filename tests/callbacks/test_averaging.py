"""Averages of the weights: what is averaged, what is kept of it, and runs that go on."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision.__main__ import main
from lightning_vision.assembly import build_trainer
from lightning_vision.callbacks.averaging import WeightAverage
from lightning_vision.callbacks.swa import StochasticWeightAverage
from lightning_vision.checkpoint import RAW
from lightning_vision.config import compose
from lightning_vision.resolve import resolve
from lightning_vision.testing.discs import write_discs

EMA, SWA = "callbacks=[default,ema]", "callbacks=[default,swa]"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"), count=30)  # 18 rows to train on


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    return {
        "encoder": "unet",  # with BatchNorm
        "decoder": "classifier",
        "data": "table",
        "image_size": 16,
        "epochs": 4,
        "batch_size": 4,
        "lr": 0.02,
        "overrides": {
            "data.path": str(table),
            "data.target": "label",
            "encoder.base_channels": 2,
            "encoder.depth": 2,
            "output_dir": str(out),
            "preprocessing.lazy_cache_dir": str(out / "cache"),
            **values,
        },
    }


class Notes(Callback):
    """The weights behind each step of the optimizer, and those that are validated."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, Tensor]] = {}
        self.ends: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step not in self.steps:
            self.steps[trainer.global_step] = state_of(pl_module)
        if trainer.is_last_batch:
            self.ends.append(state_of(pl_module))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking and len(self.validated) < trainer.current_epoch + 1:
            self.validated.append(state_of(pl_module))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def run(
    words: list[str], config: dict[str, Any], folder: Path, checkpoint: Path | None = None
) -> tuple[Trainer, Notes]:
    """Train, with a checkpoint of every epoch and without all that a fit reports."""
    module, data = lv.build(words, **config)
    averages = {k: v for k, v in module.config["callbacks"].items() if k in ("ema", "swa")}
    each, notes = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True), Notes()
    trainer = build_trainer({**module.config, "callbacks": averages, "logger": {}})
    trainer.callbacks += [notes, each]
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer, notes


def averaged(states: list[dict[str, Tensor]], shares: list[float], name: str) -> Tensor:
    """Each state in turn goes in with its share, in double precision."""
    result = states[0][name].double()
    for state, share in zip(states[1:], shares, strict=True):
        result = (1 - share) * result + share * state[name].double()
    return result


def is_averaged(name: str) -> bool:
    return name.startswith(("encoder.", "heads.")) and not name.endswith(("num_batches_tracked", "temperature"))


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], range(1, 21)),
        (["trainer.accumulate_grad_batches=2", "callbacks.ema.decay=0.3"], range(1, 13)),
        (["callbacks.ema.update_every_n_steps=3", "callbacks.ema.update_starting_at_step=6"], range(9, 21, 3)),
        (["callbacks.ema.update_starting_at_epoch=2", "callbacks.ema.warmup=false"], range(11, 21)),
        (["encoder_freeze_epochs=2"], range(1, 21)),
    ],
    ids=["each step", "accumulated", "every third", "from the third epoch on", "frozen at first"],
)
def test_checkpoints_hold_the_average_and_the_raw_weights(
    table: Path, tmp_path: Path, words: list[str], chosen: range
) -> None:
    trainer, notes = run([EMA, *words], settings(table, tmp_path), tmp_path)
    saved = checkpoints.read(tmp_path / "epoch=3.ckpt")
    count, steps = len(chosen), [notes.steps[i] for i in chosen]
    node = saved[checkpoints.KEY]["config"]["callbacks"]["ema"]
    at_most = [(1 + n) / (10 + n) if node["warmup"] else 1.0 for n in range(1, count)]
    shares = [1 - min(node["decay"], share) for share in at_most]
    raw, last = notes.steps[max(notes.steps)], {**saved["state_dict"], **saved[RAW]}
    assert all(torch.equal(value, last[name]) for name, value in raw.items())
    for name, value in saved["state_dict"].items():
        if is_averaged(name):
            torch.testing.assert_close(value.double(), averaged(steps, shares, name), rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(value, raw[name]), f"{name} is not averaged"
    loaded = lv.load(tmp_path / "epoch=3.ckpt").state_dict()
    for state in (loaded, state_of(trainer.lightning_module), notes.validated[-1]):
        assert all(torch.equal(value, state[name]) for name, value in saved["state_dict"].items())
    assert any(not torch.equal(value, raw[name]) for name, value in loaded.items())
    if chosen[0] > 10:
        assert all(torch.equal(value, notes.ends[0][name]) for name, value in notes.validated[0].items())
        assert RAW not in checkpoints.read(tmp_path / "epoch=0.ckpt")


RUNS = [
    pytest.param([EMA], {}, id="ema"),
    pytest.param([EMA, "trainer.accumulate_grad_batches=2"], {}, id="ema, accumulated"),
    pytest.param(
        [EMA, "callbacks.ema.update_every_n_steps=3"], {"encoder_freeze_epochs": 2}, id="ema, frozen at first"
    ),
    pytest.param([EMA], {"encoder.trainable": False}, id="ema, frozen, cached features"),
    pytest.param(
        [EMA], {"encoder.trainable": False, "preprocessing.cache_encoder_embeddings": False}, id="ema, frozen"
    ),
    pytest.param([EMA, "trainer.precision=bf16-true", "+trainer.limit_val_batches=0"], {}, id="ema, half precision"),
    pytest.param([SWA, "callbacks.swa.start=0.25", "scheduler=constant"], {}, id="swa"),
]


@pytest.mark.parametrize(("words", "values"), RUNS)
def test_a_resumed_run_is_the_uninterrupted_one(
    table: Path, tmp_path: Path, words: list[str], values: dict[str, Any]
) -> None:
    words = [*words, "augmentation=random_horizontal_flip"] if "encoder.trainable" not in values else words
    trainer, notes = run(words, settings(table, tmp_path, **values), tmp_path)
    run(words, settings(table, tmp_path, **values), tmp_path / "more", tmp_path / "epoch=1.ckpt")
    a, b = (checkpoints.read(folder / "epoch=3.ckpt") for folder in (tmp_path, tmp_path / "more"))
    for part in ("state_dict", RAW):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items()), part
    left, right = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert all(torch.equal(state[k], right[i][k]) for i, state in left.items() for k in state)
    callbacks = [{k: v for k, v in c["callbacks"].items() if "Average" in k} for c in (a, b)]
    assert callbacks[0] == callbacks[1] != {}
    if "encoder.trainable" in values:
        assert not any(name.startswith("encoder.") for name in a[RAW]), "what is frozen is kept once"
        before = notes.steps[1]
        assert all(torch.equal(v, before[k]) for k, v in a["state_dict"].items() if k.startswith("encoder."))
        assert (trainer.lightning_module.embeddings is None) == (len(values) == 2)


def test_swa_is_the_mean_of_the_ends_with_statistics_of_its_own(table: Path, tmp_path: Path) -> None:
    words = [SWA, "callbacks.swa.start=0.5", "callbacks.swa.batch_norm_batches=null", "scheduler=constant"]
    trainer, notes = run(words, settings(table, tmp_path), tmp_path)
    saved = checkpoints.read(tmp_path / "epoch=3.ckpt")["state_dict"]
    module: Any = trainer.lightning_module
    for name, parameter in module.named_parameters():
        mean = torch.stack([state[name].double() for state in notes.ends[2:]]).mean(0)
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-5, atol=1e-7)
    assert not checkpoints.read(tmp_path / "epoch=1.ckpt").get(RAW)
    assert all(torch.equal(v, notes.validated[3][k]) for k, v in saved.items())
    # The first norm sees the convolution of the images: its statistics, over batches of four, can be had by hand.
    norm = next(n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d))
    conv = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    loader = trainer.datamodule.train_sample_dataloader()  # type: ignore[attr-defined]
    loader.sampler.set_epoch(3)
    trainer.datamodule.setup("fit")  # type: ignore[attr-defined]
    with torch.no_grad():
        batches = [conv(module.normalize(batch["image"])).double() for batch in loader]
    means = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0)
    torch.testing.assert_close(saved[f"{norm}.running_mean"].double(), means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(saved[f"{norm}.running_var"].double(), variances, rtol=1e-4, atol=1e-5)
    counters = [k for k in saved if k.endswith("num_batches_tracked")]
    assert all(saved[k] == 20 for k in counters), "the norms of the training count on"


def test_weights_alone_are_the_average(table: Path, tmp_path: Path) -> None:
    module, data = lv.build([EMA], **settings(table, tmp_path) | {"epochs": 1})
    trainer = build_trainer({**module.config, "callbacks": {"ema": module.config["callbacks"]["ema"]}, "logger": {}})
    for folder, alone in (("all", False), ("weights", True)):
        trainer.callbacks.append(ModelCheckpoint(tmp_path / folder, "x", save_weights_only=alone))
    trainer.fit(module, data)
    whole, weights = (checkpoints.read(tmp_path / folder / "x.ckpt") for folder in ("all", "weights"))
    assert all(torch.equal(value, weights["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert any(not torch.equal(value, weights["state_dict"][name]) for name, value in whole[RAW].items())
    assert RAW not in weights, "nothing goes on from it"


@pytest.mark.parametrize(("words", "broken"), [([SWA], "run_training_batch"), ([EMA], "validation_step")])
def test_an_error_leaves_the_raw_weights(
    table: Path, tmp_path: Path, words: list[str], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, data = lv.build([*words, "+trainer.num_sanity_val_steps=0"], **settings(table, tmp_path) | {"epochs": 1})
    averages = {k: v for k, v in module.config["callbacks"].items() if k in ("ema", "swa")}
    trainer = build_trainer({**module.config, "callbacks": averages, "logger": {}})
    (average,) = (c for c in trainer.callbacks if isinstance(c, WeightAverage))
    raw: dict[str, Tensor] = {}

    def fail(*_: Any) -> None:
        raw.update({name: tensor.clone() for name, tensor in average._raw.items()})
        raise RuntimeError("out of order")

    monkeypatch.setattr(module, broken, fail)
    with pytest.raises(RuntimeError, match="out of order"):
        trainer.fit(module, data)
    now = module.state_dict()
    assert raw
    assert all(torch.equal(value, now[name]) for name, value in raw.items())
    assert not average._raw
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms)
    assert all(norm.num_batches_tracked == 5 for norm in norms)
    assert norms[0].training == (broken == "run_training_batch")


def test_statistics_fork_the_random_numbers_of_their_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[Any] = []

    def fork_rng(devices: Any, device_type: str) -> Any:
        forked.append((list(devices), device_type))
        return nullcontext()

    average, device = StochasticWeightAverage(), torch.device("cuda", 1)
    module: Any = SimpleNamespace(device=device, modules=list, eval=lambda: None)
    monkeypatch.setattr(torch.random, "fork_rng", fork_rng)
    monkeypatch.setattr(average, "_batches", lambda trainer: [])
    average._take_statistics(SimpleNamespace(), module, [])  # type: ignore[arg-type]
    assert forked == [([device], "cuda")]


def test_a_run_that_ends_before_an_epoch_that_counts_is_refused(table: Path, tmp_path: Path) -> None:
    words = [SWA, "callbacks.swa.start=0.2", "scheduler=constant"]
    with pytest.raises(lv.ConfigError, match="ends before the weights of an epoch") as error:
        run([*words, "+trainer.max_steps=4"], settings(table, tmp_path), tmp_path)
    assert "+trainer.max_steps=5" in error.value.overrides
    run([*words, "+trainer.max_steps=5"], settings(table, tmp_path), tmp_path)
    assert checkpoints.read(tmp_path / "epoch=0.ckpt")[RAW]


def test_what_is_learned_of_the_validation_is_kept(table: Path, tmp_path: Path) -> None:
    run([EMA, "calibrate=temperature", "epochs=2"], settings(table, tmp_path) | {"epochs": 2}, tmp_path)
    assert lv.load(tmp_path / "epoch=1.ckpt").head().temperature != 1


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_a_run_goes_on_with_the_raw_weights_without_the_average(table: Path, tmp_path: Path) -> None:
    _, notes = run([EMA], settings(table, tmp_path), tmp_path)
    again, _ = run([], settings(table, tmp_path / "more"), tmp_path / "more", tmp_path / "epoch=1.ckpt")
    assert all(torch.equal(value, notes.steps[20][name]) for name, value in state_of(again.lightning_module).items())


def test_two_averages_are_refused(table: Path) -> None:
    base = ["data=table", "encoder=unet", "decoder=classifier", "image_size=16", "callbacks=[default,ema,swa]"]
    values = {"data.path": str(table), "data.target": "label"}
    with pytest.raises(lv.ConfigError, match="two ways at once") as error:
        resolve(compose(base, values))
    assert error.value.overrides
    for override in error.value.overrides:
        resolve(compose([*base, *override.split()], values))


def test_an_average_joins_the_other_callbacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["best", "last", "early_stopping", "progress", "ema"]
    assert list(compose([EMA]).callbacks) == names
    assert list(compose(callbacks=["default", "ema"]).callbacks) == names
    monkeypatch.chdir(tmp_path)
    for word in (EMA, "callbacks=[default, ema]"):
        monkeypatch.setattr(sys, "argv", ["lightning_vision", word, "callbacks.ema.decay=0.9", "--cfg", "job"])
        main()
        shown = capsys.readouterr().out
        assert "early_stopping:" in shown
        assert "decay: 0.9\n" in shown
