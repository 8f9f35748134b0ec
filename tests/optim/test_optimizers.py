"""Every optimizer of conf/: it learns, and it goes on from a saved state to the last bit."""

from __future__ import annotations

import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn
from torch.optim import Optimizer

import lightning_vision as lv
from lightning_vision.checkpoint import assert_plain
from lightning_vision.checks import plain
from lightning_vision.config import compose, instantiate
from lightning_vision.optim.checks import check_optimizer
from lightning_vision.optim.groups import parameter_groups
from lightning_vision.resolve import resolve
from lightning_vision.searchpath import options_of

BESIDE = ["optimizer._target_=torch.optim.RAdam", "optimizer._target_=timm.optim.Adan ~optimizer.betas"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


@cache
def node_of(words: str) -> Any:
    return compose(words.split()).optimizer


def built(words: str, model: nn.Module, lr: float) -> Any:
    node = node_of(words)
    groups = parameter_groups(nn.Identity(), [model], lr, node.get("weight_decay", 0.0), 1.0)
    return instantiate(node, Optimizer)(groups)


def train(model: nn.Module, optimizer: Any, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(6, 1, 6, 6, generator=generator), torch.arange(6) % 3
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("words", [*(f"optimizer={name}" for name in options_of("optimizer")), *BESIDE])
def test_it_learns_and_resumes_exactly(words: str, tmp_path: Path) -> None:
    rate = 3e-3 if "lion" in words else 1e-2
    whole, first, second = network(), network(), network()
    losses = train(whole, built(words, whole, rate), 40)
    assert losses[-1] < 0.6 * losses[0]
    optimizer = built(words, first, rate)
    train(first, optimizer, 15)
    state = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    assert_plain(state)
    torch.save(state, tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    second.load_state_dict(state["model"])
    resumed = built(words, second, rate)
    resumed.load_state_dict(state["optimizer"])
    assert losses[15:] == train(second, resumed, 25)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in whole.state_dict().items())


def test_lamb_is_its_paper_on_what_is_decayed_and_adam_on_the_rest() -> None:
    weight, bias = nn.Parameter(torch.tensor([[3.0, -4.0]])), nn.Parameter(torch.tensor([0.5, 2.0]))
    holder = nn.Module()
    holder.weight, holder.bias = weight, bias
    optimizer = built("optimizer=lamb optimizer.max_grad_norm=null", holder, 0.1)
    weight.grad, bias.grad = torch.tensor([[0.1, -0.7]]), torch.tensor([-2.0, 0.01])
    step = weight.grad / (weight.grad.abs() + 1e-6) + 0.02 * weight.detach()
    expected = weight.detach() - 0.1 * (5.0 / step.norm()) * step
    expected_bias = bias.detach() - 0.1 * bias.grad / (bias.grad.abs() + 1e-6)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(bias.detach(), expected_bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer._target_=torch.optim.SGD"], "optimizer=sgd"),
        (["optimizer._target_=torch.optim.RMSprop", "optimizer=sgd"], "optimizer=rmsprop"),
        (["optimizer._target_=torch.optim.ASGD"], "~optimizer.betas ~optimizer.eps"),
        (["optimizer._target_=torch.optim.Adafactor"], "Adafactor ~optimizer.betas ~optimizer.eps"),
        (["optimizer._target_=torch.optim.Adafactor", "~optimizer.betas"], "another kind of eps"),
    ],
)
def test_what_another_optimizer_does_not_take_is_refused_with_what_does(words: list[str], message: str) -> None:
    with pytest.raises(lv.ConfigError, match="brings along") as caught:
        compose(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scheduler.warmup=3", "scheduler.warmup_epochs=1"], "given twice"),
        (["optimizer._target_=torch.optim.LBFGS"], r"(?s)no groups of parameters.*try: +optimizer=adamw$"),
        (["optimizer._target_=torch.nn.Linear"], r"(?s)is no optimizer.*try: +optimizer=adamw$"),
        (["optimizer.lr=null"], "must be given"),
    ],
)
def test_what_cannot_be_used_is_refused_before_data_are_read(words: list[str], message: str) -> None:
    with pytest.raises(lv.ConfigError, match=message):
        resolve(compose([*words, "data=table", "data.path=there_is_no_such_table.csv"]))


def test_a_run_needs_a_schedule() -> None:
    config = {**compose(), "scheduler": None}
    with pytest.raises(lv.ConfigError, match="scheduler=constant"):
        check_optimizer(config)


@cache
def config_of(words: str) -> dict[str, Any]:
    return plain(compose(words.split()))


ADAFACTOR = "optimizer._target_=torch.optim.Adafactor ~optimizer.betas ~optimizer.eps"


@pytest.mark.parametrize(
    ("words", "name", "wrong", "better"),
    [
        ("optimizer=adamw", "weight_decay", -0.1, "optimizer.weight_decay=0.01"),
        ("optimizer=adamw", "weight_decay", None, "optimizer.weight_decay=0.01"),
        ("optimizer=adamw", "betas", [1.0, 2.0], "optimizer.betas=[0.9,0.999]"),
        ("optimizer=adamw", "betas", 0.9, "optimizer.betas=[0.9,0.999]"),
        ("optimizer=adamw", "eps", -1, "optimizer.eps=1e-08"),
        ("optimizer=muon", "weight_decay", -1, "optimizer.weight_decay=0.01"),
        ("optimizer=muon", "betas", [0.9], "optimizer.betas=[0.9,0.95]"),
        ("optimizer=sgd", "momentum", -1, "optimizer.momentum=0.9"),
        ("optimizer=sgd", "momentum", 0, "optimizer.nesterov=false"),
        (ADAFACTOR, "eps", 0.1, "optimizer.eps=[null,0.001]"),
    ],
)
def test_values_out_of_range_are_refused_with_one_that_works(words: str, name: str, wrong: Any, better: str) -> None:
    config = config_of(words)
    config = {**config, "optimizer": {**config["optimizer"], name: wrong}}
    with pytest.raises(lv.ConfigError) as caught:
        check_optimizer(config)
    assert [word for line in caught.value.overrides for word in shlex.split(line)] == [better]
    key, _, value = better.removeprefix("optimizer.").partition("=")
    config["optimizer"][key] = yaml.safe_load(value)
    if isinstance(config["optimizer"][key], str):  # YAML wants a point in 1e-08
        config["optimizer"][key] = float(value)
    check_optimizer(config)
    instantiate(config["optimizer"], Optimizer)([{"params": list(network().parameters())}])
