"""Splitting samples into train, val and test by fractions: seeded; each class gets its share, or groups stay whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lightning_vision.data.label_sets import YES, LabelSets
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.types import SPLITS

SPLIT_NAMES: dict[str, int] = {
    "train": 0, "training": 0, "trn": 0,
    "val": 1, "valid": 1, "validation": 1, "dev": 1,
    "test": 2, "testing": 2, "tst": 2,
}  # fmt: skip


def split_id(name: str) -> int | None:
    """Return 0 train, 1 val, 2 test for a name or its synonym in any case, or None."""
    return SPLIT_NAMES.get(name.strip().lower())


def unknown_split(name: str, where: str) -> DataError:
    """The error for a split value that means nothing."""
    return DataError(
        f"{where}: the split is neither train, val nor test",
        given=repr(name),
        expected=listed(SPLIT_NAMES),
        nearest=nearest(name.lower(), SPLIT_NAMES),
    )


def split_by_fraction(
    names: Sequence[str],
    labels: npt.NDArray[np.int32] | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw the split of every sample.

    The order of the rows plays no part: samples are ordered by a digest of the seed and their name, so the same files
    with the same seed are split the same way after the table is sorted anew. Rows with the same name (one image twice)
    fall into the same split. Val and test have ``round(fraction * N)`` samples each, at least one where the fraction
    is not 0 and three samples are there, shared among the classes by largest remainder. The last sample of a class
    stays in train.

    With groups, whole groups are drawn, whatever their classes: those that come nearest to the wanted sizes, earlier
    ones in the seeded order first. Val and test get at least one group each where three are there, and a group that
    has the last samples of a class goes back to train.

    Args:
        names: A name of each sample that does not depend on where the data lie, such as the path in the table.
        labels: int32 ``(N,)`` class ids for shares by class, or None.
        val_fraction: Share of val, at least 0.
        test_fraction: Share of test, at least 0; both together less than 1.
        seed: Another seed, another draw.
        groups: What each sample belongs to (a patient, a video), or None.

    Returns:
        uint8 ``(N,)``: 0 train, 1 val, 2 test. Train is never empty if there is a sample.

    Raises:
        ConfigError: Fractions below 0, or that leave nothing for train.
    """
    if val_fraction < 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
        raise ConfigError(
            "val_fraction and test_fraction leave nothing to train on",
            given=f"{val_fraction} and {test_fraction}",
            expected="both at least 0, together less than 1",
            override="data.val_fraction=0.1 data.test_fraction=0.1",
        )
    classes = np.zeros(len(names), np.int64) if labels is None else labels.astype(np.int64)
    if groups is not None:
        return _split_groups(groups, classes, ((2, test_fraction), (1, val_fraction)), seed)
    order = _seeded_order(names, seed)
    # Sorted once by class, in the drawn order within each: a pass for each class would take a minute of 5000 classes.
    order = order[np.argsort(classes[order], kind="stable")]
    free = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1) if len(order) else []
    sizes = [len(rows) for rows in free]
    split = np.zeros(len(names), np.uint8)
    for part, fraction in ((2, test_fraction), (1, val_fraction)):
        wanted = round(fraction * len(names))
        if fraction > 0 and len(names) >= len(SPLITS):
            wanted = max(wanted, 1)
        for i, count in enumerate(_shares(wanted, sizes, [len(rows) - 1 for rows in free])):
            split[free[i][:count]] = part
            free[i] = free[i][count:]
    return _join_repeats(names, split)


def split_sets_by_fraction(
    names: Sequence[str],
    sets: LabelSets,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw the split of samples with sets of labels; see ``split_by_fraction``.

    Each sample counts as one of the class that is its rarest label, so that rare labels get their shares. That is the
    order in which iterative stratification deals with labels (Sechidis et al., "On the stratification of multi-label
    data", 2011), in one pass: frequent labels get about their shares only. A label that would be in val or test but
    not in train goes back to train with the smallest group, or the first sample, that has it.

    Args:
        names: As for ``split_by_fraction``.
        sets: The labels of each sample.
        val_fraction: Share of val.
        test_fraction: Share of test.
        seed: Another seed, another draw.
        groups: What each sample belongs to, or None.

    Returns:
        uint8 ``(N,)``: 0 train, 1 val, 2 test.
    """
    split = split_by_fraction(names, rarest_label(sets), val_fraction, test_fraction, seed, groups)
    units = names if groups is None else groups
    lost = np.flatnonzero((sets.counts()[0] > 0) & (sets.counts(np.flatnonzero(split == 0))[0] == 0))
    for label in lost.tolist():
        having = np.flatnonzero(np.concatenate([cells[:, label] == YES for cells in sets.blocks()]))
        if (split[having] == 0).any():
            continue  # it came back with a label before
        sizes: dict[str, int] = {}
        for i in having.tolist():
            sizes.setdefault(units[i], 0)
        for unit in units:
            if unit in sizes:
                sizes[unit] += 1
        chosen = min(sizes, key=lambda unit: (sizes[unit], unit))
        split[[i for i, unit in enumerate(units) if unit == chosen]] = 0
    return split


def rarest_label(sets: LabelSets) -> npt.NDArray[np.int32]:
    """The label of each sample that fewest samples have, the first of several; one past the last where it has none."""
    count, _ = sets.counts()
    order = np.argsort(count, kind="stable")
    found = []
    for cells in sets.blocks():
        has = cells[:, order] == YES
        none = ~has.any(axis=1)
        first = has.argmax(axis=1) if sets.num_labels else np.zeros(len(cells), np.int64)
        found.append(np.where(none, sets.num_labels, np.append(order, 0)[first]).astype(np.int32))
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def _seeded_order(names: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    prefix = hashlib.blake2b(f"{seed}\0".encode(), digest_size=8)
    keys = np.empty(len(names), np.uint64)
    for i, name in enumerate(names):
        digest = prefix.copy()
        digest.update(name.encode("utf-8", "surrogateescape"))
        keys[i] = int.from_bytes(digest.digest(), "big")
    return np.argsort(keys, kind="stable").astype(np.int64)


def _shares(wanted: int, sizes: list[int], room: list[int]) -> list[int]:
    """Divide ``wanted`` samples among classes in proportion to ``sizes``, at most ``room`` of each."""
    wanted, total = min(wanted, sum(room)), sum(sizes)
    exact = [wanted * size / total for size in sizes]
    shares = [min(int(e), r) for e, r in zip(exact, room, strict=True)]
    # Largest remainder first; ties go to the larger class, then to the smaller id.
    by_remainder = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], -sizes[i], i))
    while (missing := wanted - sum(shares)) > 0:
        for i in by_remainder:
            if missing and shares[i] < room[i]:
                shares[i] += 1
                missing -= 1
    return shares


def _join_repeats(names: Sequence[str], split: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give every repeat of a name the first split (train before val before test) that one of them has."""
    if len(set(names)) == len(names):
        return split
    first: dict[str, int] = {}
    for name, part in zip(names, split.tolist(), strict=True):
        first[name] = min(first.get(name, part), part)
    return np.array([first[name] for name in names], np.uint8)


_UNDECIDED = (
    256  # groups whose best choice is searched; of more than that, the first in the seeded order are just taken
)


def _split_groups(
    groups: Sequence[str], classes: npt.NDArray[np.int64], parts: Sequence[tuple[int, float]], seed: int
) -> npt.NDArray[np.uint8]:
    number: dict[str, int] = {}
    group = np.array([number.setdefault(name, len(number)) for name in groups], np.int64)
    sizes = np.bincount(group, minlength=len(number))
    split = np.zeros(len(number), np.uint8)
    free = _seeded_order(list(number), seed)
    wanted_parts = [(part, fraction) for part, fraction in parts if fraction > 0]
    for k, (part, fraction) in enumerate(wanted_parts):
        least = 1 if len(number) >= len(SPLITS) else 0
        chosen = _nearest_sum(sizes[free].tolist(), round(fraction * len(groups)), least)
        # What is drawn after this, and train, get a group each.
        chosen.sort(key=lambda i: sizes[free[i]], reverse=True)
        while chosen and len(free) - len(chosen) < len(wanted_parts) - k:
            chosen.pop()
        split[free[chosen]] = part
        free = np.delete(free, chosen)
    names = list(number)
    for c in np.unique(classes):
        having = np.unique(group[classes == c])
        if split[having].all():  # no group in train has this class: the smallest that has it goes there
            split[min(having.tolist(), key=lambda g: (sizes[g], names[g]))] = 0
    return split[group]


def _nearest_sum(sizes: Sequence[int], wanted: int, least: int) -> list[int]:
    """Positions of sizes whose sum is nearest to ``wanted``: at least ``least``, the lower of two; early ones first."""
    chosen, rest = [], 0
    while len(sizes) - rest > _UNDECIDED:
        if sizes[rest] <= wanted:
            chosen.append(rest)
            wanted -= sizes[rest]
        rest += 1
    least -= sum(sizes[i] for i in chosen)
    # Bit s of reachable[i]: some of the sizes from i on sum to s. Sums above twice the wanted one are never nearest.
    limit = (1 << (2 * max(wanted, least) + max(sizes, default=0) + 1)) - 1
    reachable = [1]
    for size in reversed(sizes[rest:]):
        reachable.append(reachable[-1] | (reachable[-1] << size) & limit)
    reachable.reverse()
    sums = (s for s, bit in enumerate(bin(reachable[0])[:1:-1]) if bit == "1" and s >= least)
    total = min(sums, key=lambda s: (abs(s - wanted), s), default=0)
    for i, size in enumerate(sizes[rest:]):
        if size <= total and reachable[i + 1] >> (total - size) & 1:
            chosen.append(rest + i)
            total -= size
    return chosen
