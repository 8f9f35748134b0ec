from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data import loader as loader_module
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.index import FurtherTarget, PackedStrings, SampleIndex
from lightning_vision.data.label_sets import LabelSets
from lightning_vision.data.loader import THREAD_PREFIX, Loader
from lightning_vision.data.modes import Failure, Lazy, Mode, SampleDecoder, Wait, first_occurrences
from lightning_vision.data.order import FixedOrder, ShuffledOrder
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import Geometry, TargetSpec


class Fake(Mode):
    """Fills each image with its row's number; some rows fail."""

    prefetch = 2

    def __init__(self, rows: np.ndarray, failing: tuple[int, ...] = ()) -> None:
        names = PackedStrings.from_strings(f"/f/{i}.png" for i in range(int(rows.max(initial=0)) + 1))
        n = len(names)
        index = SampleIndex(names, np.zeros(n, np.uint8), label=(np.arange(n) % 7).astype(np.int32))
        super().__init__(SampleDecoder(index, Geometry(1, 1, 1), Preprocessing()), rows)
        self.failing, self.started = failing, 0

    def _fill(self, rows: np.ndarray, images: torch.Tensor, masks: torch.Tensor | None, pool: Executor) -> Wait:
        self.started += 1
        images.copy_(torch.from_numpy(rows % 251).reshape(-1, 1, 1, 1))
        bad = [(i, int(r)) for i, r in enumerate(rows) if r in self.failing]
        return lambda: [Failure(i, DataError(f"/f/{r}.png: the file is empty")) for i, r in bad]


@contextmanager
def ranks(rank: int, world: int) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(loader_module, "rank_and_world", lambda: (rank, world))
    try:
        yield
    finally:
        patch.undo()


def indices(loader: Loader) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


rows_of = st.integers(1, 60).map(lambda n: np.arange(n) * 3 + 1)


repeated = st.sampled_from([1, 1, 2, 3])
items_of = st.none() | st.integers(1, 150)


@given(rows_of, st.integers(1, 9), st.integers(1, 6), st.integers(0, 3), repeated, items_of)
def test_training_shards(
    rows: np.ndarray, batch_size: int, world: int, epoch: int, repeats: int, items: int | None
) -> None:
    seen, steps, sizes = [], set(), set()
    for rank in range(world):
        with ranks(rank, world):
            mode = Fake(rows)
            loader = Loader(mode, batch_size, train=True, shuffle=True, seed=3, repeats=repeats, items=items)
            loader.sampler.set_epoch(epoch)
            batches = indices(loader)
            assert len(batches) == len(loader)
            added = loader.repeats_added
        steps.add(len(batches))
        sizes.add(tuple(map(len, batches)))
        seen.append([row for batch in batches for row in batch])
    assert len(steps) == len(sizes) == 1  # equal steps, or DDP hangs
    # The ranks take turns: the repeats of a row are spread over them, as timm does it.
    in_turn = [row for rows_at_once in zip(*seen, strict=True) for row in rows_at_once]
    expected = rows[loader.sampler.order()].tolist()
    assert in_turn[: len(expected)] == expected
    assert len(in_turn) - len(expected) == added <= world - 1
    if repeats == 1 and items is None:
        assert set(in_turn) == set(rows.tolist())
    lengths = next(iter(sizes))
    if len(lengths) > 1 and batch_size > 1:
        assert min(lengths) > 1
    assert max(lengths) <= batch_size + 1


@given(st.integers(1, 30), st.integers(0, 5), repeated, items_of, st.integers(1, 6))
def test_all_epochs_are_one_sequence(n: int, seed: int, repeats: int, items: int | None, epochs: int) -> None:
    order = ShuffledOrder(n, seed, repeats, items)
    seen: list[int] = []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        assert len(list(order)) == len(order) == (n if items is None else items)
        seen += order
    naive: list[int] = []
    turn = 0
    while len(naive) < len(seen):
        naive += [row for row in np.random.default_rng((seed, turn)).permutation(n).tolist() for _ in range(repeats)]
        turn += 1
    assert seen == naive[: len(seen)]
    counts = np.bincount(seen, minlength=n)
    assert counts.max() - counts.min() <= repeats  # equally often, but for the permutation that is not done yet
    assert list(FixedOrder(n, repeats, items)) == [i // repeats % n for i in range(len(order))]


@given(rows_of, st.integers(1, 9), st.integers(1, 6))
def test_evaluation_shards(rows: np.ndarray, batch_size: int, world: int) -> None:
    seen, steps = [], set()
    for rank in range(world):
        with ranks(rank, world):
            loader = Loader(Fake(rows), batch_size)
            batches = list(loader)
            assert len(batches) == len(loader)
            assert loader.repeats_added == 0
        steps.add(len(batches))
        for batch in batches:
            assert batch["image"].shape == (len(batch["index"]), 1, 1, 1)
            assert batch["target"].shape == batch["index"].shape
            seen += batch["index"].tolist()
    assert len(steps) == 1
    assert sorted(seen) == rows.tolist()  # each exactly once


@given(rows_of, st.integers(1, 9), st.integers(0, 5), repeated, items_of, st.data())
def test_a_state_continues_exactly(
    rows: np.ndarray, batch_size: int, epoch: int, repeats: int, items: int | None, data: st.DataObject
) -> None:
    def make() -> Loader:
        return Loader(Fake(rows), batch_size, train=True, shuffle=True, seed=1, repeats=repeats, items=items)

    loader = make()
    loader.sampler.set_epoch(epoch)
    whole = indices(loader)
    stop = data.draw(st.integers(1, len(whole)))
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    state = loader.state_dict()
    assert all(type(value) is int for value in state.values())
    resumed = make()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    if stop == len(whole):
        assert (state["epoch"], state["batches"]) == (epoch + 1, 0)
        loader.sampler.set_epoch(epoch + 1)
        whole, stop = indices(loader), 0
    assert indices(resumed) == whole[stop:]
    # Only the first epoch after the resume is shortened.
    resumed.sampler.set_epoch(epoch)
    loader.sampler.set_epoch(epoch)
    assert indices(resumed) == indices(loader)


def test_a_state_of_an_epoch_that_ended_early_is_not_used_in_the_next() -> None:
    loader = Loader(Fake(np.arange(20)), 4, train=True, shuffle=True)
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batches": 3})
    loader.sampler.set_epoch(1)
    assert len(indices(loader)) == 5


def test_a_state_of_other_data_is_said_and_not_used() -> None:
    state = {**Loader(Fake(np.arange(20)), 4, train=True).state_dict(), "batches": 3}
    other = Loader(Fake(np.arange(21)), 4, train=True)
    with pytest.warns(UserWarning, match="rows 20 -> 21"):
        other.load_state_dict(state)
    assert sum(map(len, indices(other))) == 21


def test_a_state_of_another_length_of_epochs_is_said_and_not_used() -> None:
    state = {**Loader(Fake(np.arange(20)), 4, train=True).state_dict(), "batches": 3}
    older = {name: value for name, value in state.items() if name not in ("repeats", "items")}
    same = Loader(Fake(np.arange(20)), 4, train=True)
    same.load_state_dict(older)
    assert same.state_dict() == state
    with pytest.warns(UserWarning, match="repeats 1 -> 3, items 20 -> 60"):
        Loader(Fake(np.arange(20)), 4, train=True, repeats=3, items=60).load_state_dict(older)


def test_order_is_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        loader = Loader(Fake(np.arange(30)), 7, train=True, shuffle=True, seed=seed)
        loader.sampler.set_epoch(epoch)
        return indices(loader)

    first = order(0, 0)
    torch.manual_seed(5)
    np.random.default_rng(5)
    random.seed(5)
    assert order(0, 0) == first
    assert len({str(order(s, e)) for s in range(3) for e in range(3)}) == 9
    fixed = Loader(Fake(np.arange(30)), 7)
    assert [row for batch in indices(fixed) for row in batch] == list(range(30))


def test_batches_hold_what_they_say() -> None:
    loader = Loader(Fake(np.arange(40, 60)), 6, train=True, shuffle=True)
    for batch in loader:
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].is_contiguous()
        assert batch["target"].dtype == batch["index"].dtype == torch.int64
        assert torch.equal(batch["image"].flatten().long(), batch["index"])
        assert torch.equal(batch["target"], batch["index"] % 7)


@pytest.mark.parametrize("prefetch", [0, 1, 3, 100])
def test_prefetch_is_bounded_and_changes_nothing(prefetch: int) -> None:
    mode = Fake(np.arange(40))
    loader = Loader(mode, 4, prefetch=prefetch)
    seen = []
    for step, batch in enumerate(loader, 1):
        assert mode.started == min(10, step + prefetch)
        seen += batch["index"].tolist()
    assert seen == list(range(40))


def test_bad_images_raise_or_are_left_out() -> None:
    with pytest.raises(DataError, match=r"(?s)/f/5\.png.*try: +preprocessing\.on_bad_image=skip"):
        indices(Loader(Fake(np.arange(12), failing=(5,)), 4))
    loader = Loader(Fake(np.arange(12), failing=(5, 8, 9, 10, 11)), 4, on_bad_image="skip")
    assert indices(loader) == indices(loader) == [[0, 1, 2, 3], [4, 6, 7], []]
    assert loader.bad == [(f"/f/{i}.png", "the file is empty") for i in (5, 8, 9, 10, 11)]
    batch = list(loader)[1]
    assert batch["target"].tolist() == [4, 6, 0]
    assert batch["image"].flatten().tolist() == [4, 6, 7]


def test_a_training_batch_without_any_image_is_an_error() -> None:
    loader = Loader(Fake(np.arange(8), failing=(4, 5, 6, 7)), 4, train=True, on_bad_image="skip")
    with pytest.raises(DataError, match="no image of a training batch"):
        indices(loader)


def test_a_bad_image_is_left_out_wherever_it_stands() -> None:
    mode = Fake(np.arange(4), failing=(1,))
    loader = Loader(mode, 6, train=True, repeats=3, items=12, on_bad_image="skip")
    assert indices(loader) == [[0, 0, 0], [2, 2, 2, 3, 3, 3]]
    assert loader.bad == [("/f/1.png", "the file is empty")]


@given(st.lists(st.integers(0, 12), max_size=30))
def test_first_occurrences(rows: list[int]) -> None:
    source, firsts = first_occurrences(np.array(rows, np.int64))
    different = list(dict.fromkeys(rows))
    assert [rows[i] for i in firsts] == different
    assert firsts.tolist() == [rows.index(row) for row in different]
    assert [different[i] for i in source] == rows
    assert all(number <= place for place, number in enumerate(source))


@pytest.mark.parametrize("mode", ["lazy", "lazy_cached", "eager"])
def test_an_image_that_is_asked_for_twice_is_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    index = several_targets(tmp_path, mask=True)
    Image.new("RGB", (4, 4), (5, 5, 5)).save(tmp_path / "5.png")
    settings = Preprocessing(mode=mode, prefetch_size=0, lazy_cache_dir=str(tmp_path / "cache"))
    data = VisionDataModule(index, Geometry(4, 5, 3), settings, 7, seed=0, repeats=3, num_items_per_epoch=21)
    alone = [data.batch(np.array([row])) for row in range(len(index))]
    decoded: list[int] = []
    decode = SampleDecoder.__call__
    monkeypatch.setattr(
        SampleDecoder, "__call__", lambda self, row, *out: (decoded.append(row), decode(self, row, *out))
    )
    loader = data.train_dataloader()
    batches = list(loader)
    assert [len(batch["index"]) for batch in batches] == [7, 7, 7]
    for batch in batches:
        for i, row in enumerate(batch["index"].tolist()):
            assert torch.equal(batch["image"][i], alone[row]["image"][0])
            assert torch.equal(batch["target"][i], alone[row]["target"][0])
    once = [row for batch in batches for row in set(batch["index"].tolist())]
    wanted = {"lazy": once, "lazy_cached": set(once), "eager": range(len(index))}
    assert sorted(decoded) == sorted(wanted[mode])
    data.teardown()


def test_load_is_outside_of_any_epoch() -> None:
    loader = Loader(Fake(np.arange(20)), 4, train=True)
    iterator = iter(loader)
    next(iterator)
    with ranks(1, 2):
        assert loader.load(np.array([7, 3]))["index"].tolist() == [7, 3]
    assert loader.state_dict()["batches"] == 1


def test_what_lightning_looks_at() -> None:
    loader = Loader(Fake(np.arange(5)), 2, train=True, shuffle=True)
    assert loader.batch_sampler is None
    assert loader.batch_size == 2
    assert len(loader.sampler) == 5
    assert sorted(loader.sampler) == list(range(5))
    iter(loader)  # asked for and thrown away: nothing may start
    assert not decode_threads()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lazy:
    paths = [str(tmp_path / f"{i}.png") for i in range(40)]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    index = SampleIndex(PackedStrings.from_strings(paths), np.zeros(40, np.uint8))
    call = SampleDecoder.__call__

    def slowly(self: SampleDecoder, *arguments: Any) -> None:
        time.sleep(0.002)
        call(self, *arguments)

    monkeypatch.setattr(SampleDecoder, "__call__", slowly)
    return Lazy(SampleDecoder(index, Geometry(4, 4, 3), Preprocessing()), np.arange(40))


def decode_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)]


def test_threads_end_with_the_epoch_the_generator_or_close(slow: Lazy) -> None:
    loader = Loader(slow, 4, threads=3)
    iterator = iter(loader)
    assert not decode_threads()
    next(iterator)
    assert len(decode_threads()) == 3
    for _ in range(9):
        next(iterator)
    assert not decode_threads()  # the last batch is out, though nobody asked for its successor
    iterator = iter(loader)
    next(iterator)
    assert decode_threads()
    del iterator
    assert not decode_threads()
    iterator = iter(loader)
    next(iterator)
    loader.close()
    assert not decode_threads()


def test_an_error_in_a_thread_reaches_the_consumer_with_its_path(slow: Lazy) -> None:
    path = Path(slow.decoder.index.image_path(17))
    path.write_bytes(path.read_bytes()[:40])
    iterator = iter(Loader(slow, 4, threads=3))
    seen = [row for _ in range(4) for row in next(iterator)["index"].tolist()]
    with pytest.raises(DataError, match=r"17\.png"):
        next(iterator)
    assert seen == list(range(16))
    assert not decode_threads()


def test_an_index_without_targets_has_none(slow: Lazy) -> None:
    assert set(next(iter(Loader(slow, 4)))) == {"image", "index"}


SETS = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (8, 5))


def several_targets(folder: Path, *, mask: bool, labels: bool = True) -> SampleIndex:
    """Eight images with sets of labels, or masks, and further targets; number 5 is no image."""
    for i in range(8):
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"{i}.png")
        Image.new("L", (4, 4), i % 2).save(folder / f"m{i}.png")
    (folder / "5.png").write_bytes(b"none")
    sets = LabelSets.from_blocks([SETS], 5)
    names = tuple("abcde")
    further = {"tags": FurtherTarget(TargetSpec("labels", names), labels=sets)}
    if labels:
        further["kind"] = FurtherTarget(TargetSpec("label", names), np.arange(8, dtype=np.int32) % 5)
    return SampleIndex(
        PackedStrings.from_strings(str(folder / f"{i}.png") for i in range(8)),
        np.zeros(8, np.uint8),
        mask=PackedStrings.from_strings(str(folder / f"m{i}.png") for i in range(8)) if mask else None,
        labels=None if mask else sets,
        target=TargetSpec("mask", ("x", "y"), ignore_index=255) if mask else TargetSpec("labels", names),
        further_targets=further,
    )


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("mode", ["lazy", "eager", "lazy_cached"])
def test_sets_of_labels_and_further_targets(tmp_path: Path, mask: bool, mode: Any) -> None:
    index = several_targets(tmp_path, mask=mask)
    preprocessing = Preprocessing(mode=mode, on_bad_image="skip", lazy_cache_dir=str(tmp_path / "cache"))
    data = VisionDataModule(index, Geometry(4, 4, 3), preprocessing, 4, 0)
    data.setup("fit")
    seen = []
    for _ in range(2):
        for batch in data.train_dataloader():
            rows = batch["index"].numpy()
            seen += rows.tolist()
            assert batch["image"][:, 0, 0, 0].tolist() == rows.tolist()
            assert list(batch["targets"]) == ["tags", "kind"]
            assert batch["targets"]["tags"].dtype == torch.uint8
            assert batch["targets"]["tags"].tolist() == SETS[rows].tolist()
            assert batch["targets"]["kind"].dtype == torch.int64
            assert batch["targets"]["kind"].tolist() == (rows % 5).tolist()
            expected = [np.full((4, 4), row % 2).tolist() for row in rows] if mask else SETS[rows].tolist()
            assert batch["target"].dtype == torch.uint8
            assert batch["target"].tolist() == expected
    assert sorted(seen) == sorted([0, 1, 2, 3, 4, 6, 7] * 2)
    data.teardown()


def test_black_images_have_no_further_target(tmp_path: Path) -> None:
    preprocessing = Preprocessing(on_bad_image="blank")
    with pytest.raises(ConfigError, match="no label of the further outputs is ignored"):
        VisionDataModule(several_targets(tmp_path, mask=True), Geometry(4, 4, 3), preprocessing, 4, 0)
    index = several_targets(tmp_path, mask=False, labels=False)
    index.further_targets = dict(index.further_targets) | {
        "open": FurtherTarget(TargetSpec("label", ("a",), ignore_index=1), np.zeros(8, np.int32))
    }
    batch = VisionDataModule(index, Geometry(4, 4, 3), preprocessing, 4, 0).batch(np.array([4, 5, 6]))
    assert batch["blank"].tolist() == [False, True, False]
    assert batch["target"].tolist() == SETS[4:7].tolist(), "a black image keeps its main labels"
    assert batch["targets"]["tags"].tolist() == [SETS[4].tolist(), [255] * 5, SETS[6].tolist()]
    assert batch["targets"]["open"].tolist() == [0, 1, 0]


def test_batch_size_is_checked() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        Loader(Fake(np.arange(3)), 0)
