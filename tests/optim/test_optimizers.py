"""Every optimizer of conf/: it learns, and it goes on from a saved state to the last bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import lightning_vision as lv
from lightning_vision.checkpoint import assert_plain
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
        (
            ["optimizer._target_=torch.optim.LBFGS", "~optimizer.betas", "~optimizer.eps", "~optimizer.weight_decay"],
            "no groups of parameters",
        ),
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
