from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.errors import ConfigError
from lightning_vision.sweeps.words import read


def test_every_combination_in_the_order_of_the_words() -> None:
    words = read(["encoder=a,b", "source='x, y'", "lr=1e-3,1e-4", "+z=1", "sweep.jobs=2"], None)
    trials = [words.trial(values) for values in words.grid()]
    assert trials[0] == ["encoder=a", "source='x, y'", "lr=0.001", "+z=1"]
    assert [(t[0], t[2]) for t in trials] == [
        ("encoder=a", "lr=0.001"),
        ("encoder=a", "lr=0.0001"),
        ("encoder=b", "lr=0.001"),
        ("encoder=b", "lr=0.0001"),
    ]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_as_many_trials_as_the_product(counts: list[int]) -> None:
    words = read([f"k{i}={','.join(map(str, range(10, 10 + n)))}" for i, n in enumerate(counts)], None)
    trials = [tuple(words.trial(values)) for values in words.grid()]
    assert len(set(trials)) == len(trials) == math.prod(counts)
    swept = [n for n in counts if n > 1]
    assert len(list(words.corners())) == 1 + sum(n - 1 for n in swept)


def test_typed_words_override_those_of_hydras_settings() -> None:
    words = read(["lr=3"], {"lr": "1,2", "seed": "range(3)"})
    assert [words.trial(v) for v in words.grid()] == [["lr=3", f"seed={i}"] for i in range(3)]


def test_intervals() -> None:
    words = read(["lr=interval(1e-5,1e-2)", "a=tag(log, interval(1e-6,1e-1))", "b=int(interval(1,8))"], None)
    lr, a, b = words.swept.values()
    assert (lr.low, lr.high, lr.log, lr.whole) == (1e-5, 1e-2, False, False)
    assert (a.low, a.high, a.log) == (1e-6, 1e-1, True)
    assert (b.low, b.high, b.whole) == (1, 8, True)
    assert words.hints() == [
        "hint: lr is drawn evenly between 1e-05 and 0.01; by order of magnitude: 'lr=tag(log, interval(1e-05, 0.01))'"
    ]
    with pytest.raises(ConfigError, match="no list of trials") as caught:
        next(words.grid())
    assert caught.value.overrides == ["-m sweep.trials=20 'lr=interval(1e-5,1e-2)'", "-m lr=1e-05,0.01"]


def test_a_value_that_is_said_twice_is_tried_once() -> None:
    words = read(["seed=1,2,1", "lr=1e-3,0.001,1e-4"], None)
    assert [words.trial(v) for v in words.grid()] == [[f"seed={s}", f"lr={r}"] for s in (1, 2) for r in (0.001, 0.0001)]
    assert words.hints()[0] == "hint: seed has values that are said more than once, which are tried once: seed=1,2,1"
    assert len(words.hints()) == 2


def test_a_range_keeps_its_numbers() -> None:
    swept = read(["batch_size=range(8,65,8)"], None).swept["batch_size"]
    assert swept.values == [str(i) for i in range(8, 65, 8)]
    assert swept.numbers == [float(i) for i in range(8, 65, 8)]
    assert swept.whole


@pytest.mark.parametrize(
    "word", ["lr=interval(2,1)", "lr=tag(log, interval(0,1))", "lr=range(3,3)", "lr=range(8,65,0)"]
)
def test_nothing_to_draw_from(word: str) -> None:
    with pytest.raises(ConfigError):
        read([word], None)
