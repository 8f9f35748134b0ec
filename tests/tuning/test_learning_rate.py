"""The search for a learning rate: its curve, its choice, the ratios of the groups, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

import lightning_vision as lv
from lightning_vision.actions.arguments import composed
from lightning_vision.actions.models import build_parts
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.tuning import learning_rate, run
from lightning_vision.tuning.learning_rate import HIGHEST, LOWEST, Curve, chosen_rate, find_lr


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    data = {"data.path": str(table), "data.target": "label", "encoder.out_channels": 8, "output_dir": str(out)}
    words = {"encoder": "stacked_cnn", "decoder": "classifier", "data": "table", "image_size": [32, 40]}
    return {**words, "epochs": 1, "batch_size": 8, "overrides": {**data, **values}}


def test_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    rates = [10 ** (-6 + i / 10) for i in range(60)]
    losses = [1.0] * 20 + [1.0 - 0.04 * i for i in range(20)] + [0.2 + 0.5 * i for i in range(20)]
    found = chosen_rate(Curve(rates, losses))
    assert found is not None
    assert rates[38] / 10 <= found <= rates[44] / 10  # the running mean lags by a few steps
    assert chosen_rate(Curve(rates, [1.0 + 0.01 * i for i in range(60)])) is None
    assert chosen_rate(Curve(rates, [1.0] * 60)) is None
    assert chosen_rate(Curve([], [])) is None


def test_the_search_leaves_nothing_but_the_rate(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learning_rate, "STEPS", 40)
    monkeypatch.setattr(find_lr, "__defaults__", (40,))
    found = lv.fit(**settings(table, tmp_path / "found", **{"trainer.find_lr": True}))
    said = capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "found" / "config.yaml").read_text())
    rate = config["lr"]
    assert f"lr       {rate:.2g} found; lr={rate:.2g} sets it" in said
    assert config["optimizer"]["lr"] == rate != 1e-3
    assert config["trainer"]["find_lr"] is False
    assert found.module.config == config
    assert (tmp_path / "found" / "plots" / "learning_rate.png").is_file()
    # The same run with that rate typed: same weights, same table, same files but for the picture.
    lv.fit(**settings(table, tmp_path / "typed", lr=rate))
    one, two = (torch.load(tmp_path / f / "checkpoints" / "last.ckpt", weights_only=True) for f in ("found", "typed"))
    assert all(torch.equal(value, two["state_dict"][key]) for key, value in one["state_dict"].items())
    assert one["global_step"] == two["global_step"] == 3
    left, right = ({str(p.relative_to(tmp_path / f)) for p in (tmp_path / f).rglob("*")} for f in ("found", "typed"))
    assert left - right == {"plots/learning_rate.png"}
    assert right <= left
    assert (tmp_path / "found" / "metrics.csv").read_text() == (tmp_path / "typed" / "metrics.csv").read_text()


def test_groups_keep_the_ratios_of_their_rates(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[dict[str, float]] = []
    inner = learning_rate._RangeTest.on_before_optimizer_step

    def noted(self: Any, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        inner(self, trainer, pl_module, optimizer)
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})

    monkeypatch.setattr(learning_rate._RangeTest, "on_before_optimizer_step", noted)
    values = {"encoder_lr_factor": 0.25, "trainer.accumulate_grad_batches": 2, "scheduler.warmup": 3}
    plan = resolve(composed(None, settings(table, tmp_path, **values), "build"))
    module, data = build_parts(plan)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    curve = find_lr(plan.config, module, data, steps=10)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert len(curve.rates) >= len(curve.losses) > 3
    assert curve.rates[0] == LOWEST
    assert curve.rates[-1] <= HIGHEST * 1.0001
    for step, rate in zip(rates, curve.rates, strict=True):
        assert step["head"] == pytest.approx(rate)
        assert step["encoder"] == pytest.approx(rate / 4)


@pytest.mark.parametrize("name", ["find_lr", "find_batch_size"])
def test_several_processes_are_refused(name: str, table: Path, tmp_path: Path) -> None:
    values = {
        "trainer.devices": 2,
        "trainer.accelerator": "cpu",
        "trainer.strategy": "ddp",
        f"trainer.{name}": True,
    }
    plan = resolve(composed(None, settings(table, tmp_path, **values), "build"))
    with pytest.raises(ConfigError, match=rf"trainer\.{name} works with one process only"):
        run.tune(plan, *build_parts(plan))
