from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.label_sets import LabelSets
from lightning_vision.data.splits import rarest_label, split_by_fraction, split_id, split_sets_by_fraction
from lightning_vision.errors import ConfigError

FRACTIONS = st.tuples(st.floats(0, 0.49), st.floats(0, 0.49))
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80)


def names_of(count: int) -> list[str]:
    return [f"images/{i}.jpg" for i in range(count)]


@given(LABELS, FRACTIONS, st.integers(0, 5))
def test_every_class_gets_its_share(labels: list[int], fractions: tuple[float, float], seed: int) -> None:
    label = np.array(labels, np.int32)
    split = split_by_fraction(names_of(len(label)), label, *fractions, seed)
    total = np.bincount(split, minlength=3)
    for c in np.unique(label):
        counts = np.bincount(split[label == c], minlength=3)
        size = counts.sum()
        assert counts[0] >= 1  # no class is lost for training
        for part, fraction in ((1, fractions[0]), (2, fractions[1])):
            # At most one more than its share of what the split holds, the rounding up of an empty split aside.
            assert counts[part] <= total[part] * size / len(label) + 1 + (fractions[0] + fractions[1]) * 2
            if not fraction:
                assert counts[part] == 0


@given(st.integers(0, 300), FRACTIONS, st.integers(0, 5))
def test_sizes(count: int, fractions: tuple[float, float], seed: int) -> None:
    split = split_by_fraction(names_of(count), None, *fractions, seed)
    parts = np.bincount(split, minlength=3)
    assert parts.sum() == count
    assert parts[0] >= min(count, 1)
    for part, fraction in ((1, fractions[0]), (2, fractions[1])):
        if count >= 50:
            assert parts[part] == max(round(fraction * count), 1 if fraction else 0)


@given(LABELS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_plays_no_part(labels: list[int], random: object) -> None:
    label = np.array(labels, np.int32)
    names = names_of(len(label))
    order = list(range(len(label)))
    random.shuffle(order)  # type: ignore[attr-defined]
    split = split_by_fraction(names, label, 0.2, 0.2, seed=3)
    again = split_by_fraction([names[i] for i in order], label[order], 0.2, 0.2, seed=3)
    assert again.tolist() == split[order].tolist()


def test_the_seed_decides() -> None:
    draws = [split_by_fraction(names_of(200), None, 0.2, 0.2, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_the_draw_is_the_same_in_every_version() -> None:
    # Python's hash() of a text differs between processes; this one must not.
    split = split_by_fraction(list("abcdefghij"), None, 0.2, 0.2, 0)
    assert split.tolist() == [1, 0, 2, 2, 0, 0, 0, 1, 0, 0]


def test_stratified_exactly_where_it_divides() -> None:
    label = np.repeat(np.arange(4), 50).astype(np.int32)
    split = split_by_fraction(names_of(200), label, 0.1, 0.2, 0)
    for c in range(4):
        assert np.bincount(split[label == c]).tolist() == [35, 5, 10]


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(0, 3))
def test_repeats_of_an_image_stay_together(names: list[str], seed: int) -> None:
    label = np.arange(len(names), dtype=np.int32) % 3
    split = split_by_fraction(names, label, 0.3, 0.3, seed)
    assert (split == 0).any()
    for name in set(names):
        assert len({int(s) for n, s in zip(names, split, strict=True) if n == name}) == 1


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.1), (0.0, 1.0)])
def test_fractions_that_leave_nothing(fractions: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        split_by_fraction(names_of(10), None, *fractions, 0)


def test_synonyms() -> None:
    assert [split_id(n) for n in ("Train", " training", "VALID", "dev", "validation", "testing")] == [0, 0, 1, 1, 1, 2]
    assert split_id("fold1") is None


GROUPS = st.lists(st.integers(0, 8), min_size=1, max_size=40)


@given(GROUPS, FRACTIONS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_stay_whole_in_any_order(
    groups: list[int], fractions: tuple[float, float], seed: int, random: object
) -> None:
    names, texts = names_of(len(groups)), [f"patient {g}" for g in groups]
    label = np.array([g % 3 for g in groups], np.int32)
    split = split_by_fraction(names, label, *fractions, seed, texts)
    for text in set(texts):
        assert len({int(s) for t, s in zip(texts, split, strict=True) if t == text}) == 1
    assert set(label[split == 0]) == set(label), "no class is lost for training"
    order = list(range(len(groups)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = split_by_fraction([names[i] for i in order], label[order], *fractions, seed, [texts[i] for i in order])
    assert again.tolist() == split[order].tolist()


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.floats(0.01, 0.9), st.integers(0, 5))
def test_groups_come_as_near_as_they_can(sizes: list[int], fraction: float, seed: int) -> None:
    groups = [str(g) for g, size in enumerate(sizes) for _ in range(size)]
    split = split_by_fraction(names_of(len(groups)), None, fraction, 0.0, seed, groups)
    wanted = round(fraction * len(groups))
    sums = {0}
    for size in sizes:
        sums |= {s + size for s in sums}
    sums -= {sum(sizes)} | ({0} if len(sizes) >= 3 else set())  # train has a group, and so has val where it can be
    assert abs(int((split == 1).sum()) - wanted) == min(abs(s - wanted) for s in sums)


def test_many_groups() -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 2000)
    groups = [str(g) for g, size in enumerate(sizes) for _ in range(size)]
    split = split_by_fraction(names_of(len(groups)), None, 0.1, 0.2, 0, groups)
    assert np.bincount(split)[1:].tolist() == [round(0.1 * len(groups)), round(0.2 * len(groups))]
    other = split_by_fraction(names_of(len(groups)), None, 0.1, 0.2, 1, groups)
    assert (split != other).any()


def test_each_split_has_a_group_where_three_are_there() -> None:
    groups = ["a"] * 100 + ["b"] * 2 + ["c"] * 3
    for seed in range(5):
        split = split_by_fraction(names_of(105), None, 0.1, 0.1, seed, groups)
        assert sorted(np.bincount(split).tolist()) == [2, 3, 100]
        assert split[0] == 0


ROWS_OF_SETS = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.sampled_from([0, 0, 1, 255]), min_size=n, max_size=n), min_size=1, max_size=60)
)


def sets_of(rows: list[list[int]]) -> LabelSets:
    return LabelSets.from_blocks([np.array(rows, np.uint8)], len(rows[0]))


@given(ROWS_OF_SETS)
def test_the_rarest_label(rows: list[list[int]]) -> None:
    counts = [sum(row[c] == 1 for row in rows) for c in range(len(rows[0]))]
    expected = [
        min((c for c, cell in enumerate(row) if cell == 1), key=lambda c: (counts[c], c), default=len(row))
        for row in rows
    ]
    assert rarest_label(sets_of(rows)).tolist() == expected


@given(ROWS_OF_SETS, FRACTIONS, st.integers(0, 3), st.booleans())
def test_no_label_is_lost_for_training(
    rows: list[list[int]], fractions: tuple[float, float], seed: int, grouped: bool
) -> None:
    names = names_of(len(rows))
    groups = [f"g{i // 3}" for i in range(len(rows))] if grouped else None
    sets = sets_of(rows)
    split = split_sets_by_fraction(names, sets, *fractions, seed, groups)
    assert split.shape == (len(rows),)
    yes = np.array(rows) == 1
    assert (yes[split == 0].any(axis=0) == yes.any(axis=0)).all()
    if groups is not None:
        for group in set(groups):
            assert len({int(part) for part, name in zip(split, groups, strict=True) if name == group}) == 1
    else:
        order = np.random.default_rng(seed).permutation(len(rows))
        again = split_sets_by_fraction([names[i] for i in order], sets.take(order), *fractions, seed)
        assert again.tolist() == split[order].tolist()


def test_rare_labels_get_their_shares() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((1000, 5)) < [0.9, 0.5, 0.1, 0.05, 0.02]).astype(np.uint8)
    split = split_sets_by_fraction(names_of(1000), sets_of(rows.tolist()), 0.2, 0.1, 0)
    assert np.bincount(split).tolist() == [700, 200, 100]
    for part, fraction in ((1, 0.2), (2, 0.1)):
        shares = rows[split == part].sum(axis=0) / rows.sum(axis=0)
        assert np.abs(shares - fraction).max() < 0.05
        assert abs(shares[4] - fraction) * rows[:, 4].sum() <= 1, "the rarest label gets exactly its share"
