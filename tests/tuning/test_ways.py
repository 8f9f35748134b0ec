"""Precision, memory format and compilation by measuring: what is chosen and said, and that nothing else changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import lightning_vision as lv
from lightning_vision import compiled
from lightning_vision.actions.arguments import composed
from lightning_vision.actions.models import build_parts
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.resolve import Plan, resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.tuning import run, ways
from lightning_vision.tuning.trial import copy_of, first_batches, steps_of_run
from lightning_vision.tuning.ways import Measured, Steps, Way

CPU = torch.device("cpu")
AUTO = {"trainer.precision": "auto", "trainer.channels_last": "auto"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture
def long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring pays in the shortest run."""
    monkeypatch.setattr(ways, "SHARE", 10.0)
    monkeypatch.setattr(ways, "MOST", 3)


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    norms = {"encoder.out_channels": 8, "encoder.conv_norm": "batch", "encoder.conv_dropout": 0.1}
    data = {"data.path": str(table), "data.target": "label", "data.class_names": None}
    given = {**data, **norms, "output_dir": str(out), **values}
    words = {"encoder": "stacked_cnn", "decoder": "classifier", "data": "table", "image_size": [32, 40]}
    return {**words, "epochs": 2, "batch_size": 8, "overrides": given}


def built(table: Path, out: Path, **values: Any) -> tuple[Plan, Any, Any]:
    plan = resolve(composed(None, settings(table, out, **values), "build"))
    return plan, *build_parts(plan)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_measured_run_that_stays_plain_is_the_plain_run(
    table: Path, tmp_path: Path, long_run: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lv.fit(
        **settings(
            table, tmp_path / "plain", **{"augmentation": "random_horizontal_flip", "trainer.deterministic": True}
        )
    )
    monkeypatch.setattr(ways, "GAIN", 1.0)  # nothing is that fast
    capsys.readouterr()
    lv.fit(**settings(table, tmp_path / "auto", **{"augmentation": "random_horizontal_flip", **AUTO}))
    said = capsys.readouterr().out
    assert said.count("precision: 32-true, channels_last: false (no other is faster by 100%; 3 steps each, CPU") == 2
    plain, auto = weights(tmp_path / "plain"), weights(tmp_path / "auto")
    assert all(torch.equal(plain[key], auto[key]) for key in plain)
    assert (tmp_path / "plain" / "metrics.csv").read_text() == (tmp_path / "auto" / "metrics.csv").read_text()
    config = (tmp_path / "auto" / "config.yaml").read_text()
    assert "# trainer.precision: no other is faster by 100%" in config
    assert yaml.safe_load(config)["trainer"]["precision"] == "32-true"


def test_the_choice_is_kept_when_the_run_goes_on(
    table: Path, tmp_path: Path, long_run: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def costs(self: Steps, way: Way, turn: int, counts: bool = True) -> Measured:
        return self.results.setdefault(way, Measured([0.5 if way == Way("bf16-mixed", True) else 1.0], [1.0]))

    monkeypatch.setattr(Steps, "once", costs)
    first = lv.fit(**settings(table, tmp_path / "one", **AUTO))
    chosen = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())["trainer"]
    assert (chosen["precision"], chosen["channels_last"]) == ("bf16-mixed", True)
    assert first.module.normalize.memory_format == torch.channels_last
    monkeypatch.setattr(run, "choose_way", None)  # nothing is measured again
    last = tmp_path / "one" / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    again = lv.fit(["epochs=3", "trainer.precision=auto", f"checkpoint={last}", f"output_dir={tmp_path / 'two'}"])
    assert again.module.config["trainer"] == {**chosen, "max_epochs": 3}
    assert "trainer.precision: nothing is looked for when a run goes on" in capsys.readouterr().out
    assert {k: v.shape for k, v in weights(tmp_path / "two").items()} == {
        k: v.shape for k, v in weights(tmp_path / "one").items()
    }
    # What is loaded and predicts knows nothing of it.
    loaded = lv.load(tmp_path / "two" / "checkpoints" / "last.ckpt")
    assert loaded.normalize.memory_format == torch.contiguous_format


def test_random_numbers_weights_and_statistics_stay(table: Path, tmp_path: Path, long_run: None) -> None:
    plan, module, data = built(table, tmp_path, **AUTO)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    before = data.train_dataloader().state_dict()
    run.tune(plan, module, data)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert (np.random.get_state()[1] == drawn[2]).all()
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert data.train_dataloader().state_dict() == before
    assert module.training
    assert not module.compiled
    assert all(p.grad is None for p in module.parameters())


def test_a_loss_that_is_wrong_is_never_chosen(
    table: Path, tmp_path: Path, long_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, module, data = built(table, tmp_path, **{"trainer.precision": "auto"})
    monkeypatch.setattr(ways, "TOLERANCE", (0.0, -1.0))
    monkeypatch.setattr(ways, "GAIN", -100.0)
    reasons = ways.choose_way(plan.config, module, data, CPU)
    assert plan.config["trainer"]["precision"] == "32-true"
    assert "bf16-mixed its loss is" in reasons["precision"]


@pytest.mark.parametrize("half_fits", [True, False])
def test_what_does_not_fit_into_memory_is_left_out(
    half_fits: bool, table: Path, tmp_path: Path, long_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = VisionModule.training_step

    def step(self: VisionModule, *given: Any) -> Any:
        if not (half_fits and torch.is_autocast_enabled("cpu")):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, *given)

    monkeypatch.setattr(VisionModule, "training_step", step)
    plan, module, data = built(table, tmp_path, **{"trainer.precision": "auto", "trainer.compile": "auto"})
    said = ways.choose_way(plan.config, module, data, CPU)["precision"]
    assert "32-true does not fit into memory" in said
    assert plan.config["trainer"]["precision"] == ("bf16-mixed" if half_fits else "32-true")
    assert said.startswith("32-true cannot be used; 3 steps" if half_fits else "nothing can be measured; 0 steps")
    assert plan.config["trainer"]["compile"] is False


def test_all_precisions_share_one_copy_and_no_gradient_stays(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Any] = []
    monkeypatch.setattr(ways, "copy_of", lambda module: copies.append(copy_of(module)) or copies[-1])
    plan, module, data = built(table, tmp_path)
    steps = Steps(module, first_batches(data, 1), plan.config, CPU)
    tried = [Way(precision, last) for last in (False, True) for precision in ("32-true", "bf16-mixed")]
    for way in tried:
        assert steps.once(way, 0).median > 0
        assert all(p.grad is None for copy in copies for p in copy.parameters())
    assert len(copies) == 2
    steps.close(tried[2])
    assert list(steps._copies) == [False, True]
    steps.close(tried[3])
    assert list(steps._copies) == [False]


def test_steps_are_those_of_each_process(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"trainer.devices": 2, "trainer.accelerator": "cpu", "trainer.strategy": "ddp"}
    plan, module, data = built(table, tmp_path, **AUTO, **values)
    rows = len(data.index.rows("train"))
    assert [steps_of_run(plan.config, data, n) for n in (1, 2, 5)] == [2 * -(-rows // (8 * n)) for n in (1, 2, 5)]
    told: list[Any] = []
    monkeypatch.setattr(run, "choose_way", lambda *given: told.append(given[-1]) or {})
    monkeypatch.setenv(run.CHOICES, "")
    run.tune(plan, module, data)
    assert told == [2]


def test_a_short_run_is_not_measured(table: Path, tmp_path: Path) -> None:
    plan, module, data = built(table, tmp_path, **AUTO, **{"trainer.compile": "auto"})
    (line,) = run.tune(plan, module, data)
    assert line.startswith("precision: 32-true, channels_last: false, compile: false (a run of ")
    assert line.endswith(" steps is too short for measuring to pay)")


@pytest.mark.parametrize(
    ("seconds", "compiling", "chosen"), [((1.0, 0.5), 0.0, True), ((1.0, 0.99), 0.0, False), ((1.0, 0.5), 60.0, False)]
)
def test_compiling_counts_against_what_is_left(
    seconds: tuple[float, float], compiling: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, fast = Way("32-true"), Way("32-true", compile=True)
    monkeypatch.setattr(ways, "WORTH_COMPILING", 0.0)
    clock = iter([0.0, compiling])
    monkeypatch.setattr(ways.time, "perf_counter", lambda: next(clock))
    steps: Any = Steps.__new__(Steps)
    steps.results, steps._open, steps._copies = {eager: Measured([seconds[0]], [seconds[0]])}, {}, {}

    def once(way: Way, turn: int, counts: bool = True) -> None:
        if counts:
            result, value = steps.results.setdefault(way, Measured()), seconds[way.compile]
            result.taken.append(value)
            result.elapsed.append(value)

    steps.once = once
    way, why = ways._compiled(steps, eager, 3, total=100)
    assert (way == fast) == chosen
    assert f"takes {compiling:.0f} s" in why


def test_where_nothing_compiles_it_is_said(
    table: Path, tmp_path: Path, long_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler is found")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    monkeypatch.setattr(ways, "WORTH_COMPILING", 0.0)
    plan, module, data = built(table, tmp_path, **{"trainer.compile": "auto"})
    reasons = ways.choose_way(plan.config, module, data, CPU)
    assert plan.config["trainer"]["compile"] is False
    assert "compiling fails here" in reasons["compile"]
    assert "no compiler is found" in reasons["compile"]
    with pytest.raises(ConfigError, match=r"trainer\.compile=false"):
        compiled.require_compiler(CPU)


def test_compiled_steps_leave_the_checkpoint_as_it_is(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "BACKEND", "eager")  # traced, not translated
    calls = []
    monkeypatch.setattr(torch, "compile", lambda f, **more: lambda *x: (calls.append(len(x[0])), f(*x))[1])
    lv.fit(**settings(table, tmp_path / "eager"))
    lv.fit(**settings(table, tmp_path / "compiled", **{"trainer.compile": True}))
    assert {8} == set(calls[1:])  # full batches of training; the first is the trial
    one, two = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("frozen", [True, False], ids=["cached features", "averaged weights"])
def test_channels_last_changes_nothing_but_the_rounding(frozen: bool, table: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"trainer.channels_last": False, "encoder.conv_dropout": 0.0}
    if frozen:
        more |= {"encoder.trainable": False, "preprocessing.cache_encoder_embeddings": True}
    words = settings(table, tmp_path / "plain", **more)
    callbacks = [] if frozen else ["callbacks=[default,ema]"]
    plain = lv.fit(callbacks, **words)
    words["overrides"] |= {"trainer.channels_last": True, "output_dir": str(tmp_path / "last")}
    found = lv.fit(callbacks, **words)
    assert found.module.normalize.memory_format == torch.channels_last
    # Not the weights: Adam makes steps of one size of gradients that are nothing but rounding.
    assert found.metrics["test/loss"] == pytest.approx(plain.metrics["test/loss"], rel=0.02)
    assert weights(tmp_path / "plain").keys() == weights(tmp_path / "last").keys()
    if not frozen:
        last = tmp_path / "last" / "checkpoints" / "last.ckpt"
        resumed = lv.fit(["epochs=3", f"checkpoint={last}", f"output_dir={tmp_path / 'more'}"])
        assert resumed.metrics["epochs"] == 3
