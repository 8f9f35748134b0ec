"""Schedules: the rate at every step, against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from lightning_vision.errors import ConfigError
from lightning_vision.optim.constant import Constant
from lightning_vision.optim.cosine import Cosine
from lightning_vision.optim.one_cycle import OneCycle
from lightning_vision.optim.plateau import Plateau
from lightning_vision.optim.polynomial import Polynomial
from lightning_vision.optim.schedule import Schedule
from lightning_vision.optim.step import Step

EACH: list[Any] = [Cosine, Constant, Step, OneCycle, Polynomial, Plateau]


def optimizer(lr: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD([{"params": nn.Parameter(torch.zeros(1)), "lr": lr * share} for share in (1, 0.1)])


def make(kind: Any, total: int, of_epoch: int = 1, lr: float = 1.0, **more: Any) -> Schedule:
    if kind is Plateau:
        more.setdefault("mode", "min")
    schedule: Schedule = kind(optimizer(lr), total, of_epoch, **more)
    return schedule


def rate(schedule: Any) -> float:
    value: float = schedule.optimizer.param_groups[0]["lr"]
    return value


def rates(schedule: Any, steps: int) -> list[float]:
    result = []
    for _ in range(steps):
        result.append(rate(schedule))
        schedule.optimizer.step()
        schedule.step()
    return result


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_cosine_is_torchs(final: float) -> None:
    theirs = lr_scheduler.CosineAnnealingLR(optimizer(0.3), 50, eta_min=0.3 * final)
    found = rates(make(Cosine, 50, lr=0.3, warmup=0, final_factor=final), 51)
    assert found == pytest.approx(rates(theirs, 51), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(("total", "warmup", "shape"), [(100, 0.3, "cosine"), (40, 10, "linear"), (7, 2, "cosine")])
def test_one_cycle_is_torchs(total: int, warmup: float, shape: Any) -> None:
    share = warmup if warmup < 1 else warmup / total
    annealing: Any = {"cosine": "cos", "linear": "linear"}[shape]
    theirs = lr_scheduler.OneCycleLR(
        optimizer(), [0.5, 0.05], total, pct_start=share, anneal_strategy=annealing, cycle_momentum=False
    )
    found = rates(make(OneCycle, total, lr=0.5, warmup=warmup, shape=shape), total - 1)
    assert found == pytest.approx(rates(theirs, total - 1), rel=1e-9)


@pytest.mark.parametrize("power", [0.9, 1.0, 3.0])
def test_polynomial_is_torchs(power: float) -> None:
    theirs = lr_scheduler.PolynomialLR(optimizer(), 30, power)
    assert rates(make(Polynomial, 30, power=power), 31) == pytest.approx(rates(theirs, 31), rel=1e-6, abs=1e-9)


def test_polynomial_ends_at_the_final_factor() -> None:
    found = rates(make(Polynomial, 8, final_factor=0.5, power=2.0), 10)
    assert found == pytest.approx([*(0.5 + 0.5 * (1 - i / 8) ** 2 for i in range(8)), 0.5, 0.5])


def test_step_is_torchs_by_epochs() -> None:
    theirs = lr_scheduler.StepLR(optimizer(), 3 * 4, gamma=0.2)
    found = rates(make(Step, 40, of_epoch=4, init_epochs=3, step_epochs=3, factor=0.2), 40)
    assert found == pytest.approx(rates(theirs, 40), rel=1e-9)


def test_the_first_step_has_a_length_of_its_own() -> None:
    found = rates(make(Step, 20, of_epoch=2, init_epochs=5, step_epochs=2), 20)
    assert found == pytest.approx([1.0] * 10 + [0.1] * 4 + [0.01] * 4 + [0.001] * 2)


@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.floats(0.1, 10) | st.just(math.nan), min_size=1, max_size=30),
    patience=st.integers(0, 3),
    mode=st.sampled_from(["min", "max"]),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    floor=st.sampled_from([0.0, 0.02]),
)
def test_plateau_is_torchs(values: list[float], patience: int, mode: Any, threshold: float, floor: float) -> None:
    ours: Any = make(Plateau, 100, mode=mode, factor=0.3, patience=patience, threshold=threshold, min_factor=floor)
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        opt, mode, factor=0.3, patience=patience, threshold=threshold, min_lr=floor, eps=0
    )
    for value in values:
        ours.observe(value)
        theirs.step(value)
        assert rate(ours) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-9)
        ours.optimizer.step()
        ours.step()
        assert rate(ours) == pytest.approx(opt.param_groups[0]["lr"], rel=1e-9)


def test_a_negative_figure_must_get_better_too() -> None:
    schedule: Any = make(Plateau, 9, mode="min", threshold=0.1, patience=0)
    schedule.observe(-1.0)
    schedule.observe(-1.05)
    assert schedule.best == -1.0
    assert rate(schedule) == pytest.approx(0.1)
    schedule.observe(-1.2)
    assert schedule.best == -1.2


def test_every_group_keeps_its_share_of_the_rate() -> None:
    schedule: Any = make(Plateau, 9, patience=0, factor=0.5)
    for _ in range(3):
        schedule.observe(1.0)
    assert [group["lr"] for group in schedule.optimizer.param_groups] == pytest.approx([0.25, 0.025])
    assert schedule.get_last_lr() == pytest.approx([0.25, 0.025])


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize(("words", "steps"), [({"warmup": 0.1}, 10), ({"warmup": 8}, 8), ({"warmup_epochs": 1.5}, 6)])
def test_warmup_in_a_fraction_in_steps_and_in_epochs(kind: Any, words: dict[str, float], steps: int) -> None:
    found = rates(make(kind, 100, of_epoch=4, **words), 100)
    if kind is OneCycle:
        assert found.index(max(found)) == steps - 1
        assert found[0] == pytest.approx(0.04)
    else:
        assert found[: steps + 1] == pytest.approx([(i + 1) / (steps + 1) for i in range(steps + 1)])
        assert max(found) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [Cosine, Constant, Step, Polynomial, Plateau])
def test_the_start_of_the_warmup_is_torchs_linear(kind: Any) -> None:
    theirs = lr_scheduler.LinearLR(optimizer(), start_factor=0.25, total_iters=5)
    assert rates(make(kind, 30, warmup=5, warmup_start=0.25), 6) == pytest.approx(rates(theirs, 6), rel=1e-9)


def test_cosine_is_as_it_was_to_the_last_bit() -> None:
    # Runs that were begun before there were other schedules go on.
    def before(step: int) -> float:
        if step < 3:
            return (step + 1) / 4
        return 0.3 + 0.7 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - 3) / 57)))

    assert rates(make(Cosine, 60, final_factor=0.3), 60) == [before(step) for step in range(60)]


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("total", [1, 2])
def test_the_shortest_runs_have_a_positive_rate(kind: Any, total: int) -> None:
    assert all(rate > 0 for rate in rates(make(kind, total, warmup=0.5), total))


@pytest.mark.parametrize("kind", EACH)
def test_a_warmup_longer_than_the_run_is_cut_with_a_word(kind: Any) -> None:
    schedule = make(kind, 10, of_epoch=5, warmup_epochs=4)
    assert "20 steps leaves no other step to a run of 10: it is cut to 9" in schedule.notice
    assert "scheduler.warmup=0.05 in place of scheduler.warmup_epochs" in schedule.notice
    assert "5 steps leaves no other step to a run of 5: it is cut to 4" in make(kind, 5, of_epoch=5, warmup=5).notice
    assert rates(schedule, 10)[-1] > 0
    assert not make(kind, 10, of_epoch=5, warmup=0.99).notice


@pytest.mark.parametrize("kind", EACH)
def test_a_warmup_given_twice_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        make(kind, 10, warmup=0.0, warmup_epochs=2)


@pytest.mark.parametrize("kind", EACH)
@pytest.mark.parametrize("stop", [0, 3, 11])
def test_a_resumed_schedule_goes_on_to_the_last_bit(kind: Any, stop: int) -> None:
    def go(schedule: Any, start: int, end: int) -> list[float]:
        found = []
        for step in range(start, end):
            found += rates(schedule, 1)
            if kind is Plateau and step % 2:
                schedule.observe(1.0)
        return found

    words = {"patience": 1} if kind is Plateau else {}
    whole = go(make(kind, 20, 2, warmup=4, **words), 0, 20)
    first, second = make(kind, 20, 2, warmup=4, **words), make(kind, 20, 2, warmup=4, **words)
    head = go(first, 0, stop)
    state, rates_then = first.state_dict(), first.optimizer.state_dict()
    second.optimizer.load_state_dict(rates_then)
    second.load_state_dict(state)
    assert head + go(second, stop, 20) == whole


@pytest.mark.parametrize("kind", EACH)
def test_a_longer_run_follows_the_function_of_its_length_at_once(kind: Any) -> None:
    short, long, resumed = make(kind, 10, 2), make(kind, 20, 2), make(kind, 20, 2)
    rates(short, 10)
    rates(long, 10)
    resumed.optimizer.load_state_dict(short.optimizer.state_dict())
    resumed.load_state_dict(short.state_dict())
    assert rates(resumed, 10) == rates(long, 10)


def test_states_hold_plain_numbers() -> None:
    from lightning_vision.checkpoint import assert_plain

    for kind in EACH:
        schedule = make(kind, 10)
        rates(schedule, 3)
        assert_plain(schedule.state_dict(), kind.__name__)
