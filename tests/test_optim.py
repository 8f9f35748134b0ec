"""Parameter groups and schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_vision.optim import Constant, Cosine, parameter_groups


def rates(schedule: type, total: int, **settings: float) -> list[float]:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = schedule(optimizer, total, **settings)
    result = []
    for _ in range(total):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return result


def test_groups_hold_every_trainable_parameter_once() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    head = nn.Linear(4, 2)
    encoder[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    groups = parameter_groups(encoder, [head], lr=1.0, weight_decay=0.1, encoder_lr_factor=0.01)
    named = {g["name"]: g for g in groups}
    assert {k: (g["lr"], g["weight_decay"]) for k, g in named.items()} == {
        "encoder": (0.01, 0.1),
        "encoder_no_decay": (0.01, 0.0),
        "head": (1.0, 0.1),
        "head_no_decay": (1.0, 0.0),
    }
    held = [p for g in groups for p in g["params"]]
    trainable = [p for m in (encoder, head) for p in m.parameters() if p.requires_grad]
    assert {id(p) for p in held} == {id(p) for p in trainable}
    assert len(held) == len(trainable)
    assert all(p.ndim > 1 for p in named["encoder"]["params"] + named["head"]["params"])


def test_a_frozen_encoder_has_no_group() -> None:
    encoder = nn.Conv2d(3, 4, 3).requires_grad_(False)
    groups = parameter_groups(encoder, [nn.Linear(2, 2)], 1.0, 0.0, 1.0)
    assert {g["name"] for g in groups} == {"head", "head_no_decay"}


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 10), (10, 10), (0, 0)])
def test_cosine_warms_up_in_a_fraction_or_in_steps(warmup: float, steps: int) -> None:
    found = rates(Cosine, 100, warmup=warmup)
    assert found[:steps] == pytest.approx([(i + 1) / (steps + 1) for i in range(steps)])
    expected = [0.5 * (1 + math.cos(math.pi * i / (100 - steps))) for i in range(100 - steps)]
    assert found[steps:] == pytest.approx(expected)


def test_cosine_ends_at_the_final_factor() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    scheduler = Cosine(optimizer, 5, warmup=0, final_factor=0.25)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_constant_stays() -> None:
    assert rates(Constant, 6, warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


@pytest.mark.parametrize("total", [1, 2])
def test_the_shortest_runs_have_a_positive_rate(total: int) -> None:
    assert all(rate > 0 for rate in rates(Cosine, total, warmup=0.5))
