from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vision.data import store as store_module
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.store import Store, StoreError, open_stores, store_key
from lightning_vision.data.store_files import store_folder
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry, TargetSpec

SHAPE = (3, 4, 5)
IMAGES = {"images": (np.uint8, SHAPE)}
BOTH = {**IMAGES, "masks": (np.uint8, SHAPE[1:])}
TARGET = TargetSpec("mask", ("a", "b"), ignore_index=255)


def image_of(slot: int) -> torch.Tensor:
    return torch.full(SHAPE, slot + 1, dtype=torch.uint8)


def mask_of(slot: int) -> torch.Tensor:
    return torch.full(SHAPE[1:], 100 + slot, dtype=torch.uint8)


def row_of(slot: int) -> dict[str, torch.Tensor]:
    return {"images": image_of(slot), "masks": mask_of(slot)}


def buffers(n: int) -> dict[str, torch.Tensor]:
    return {name: torch.zeros((n, *shape), dtype=torch.uint8) for name, (_, shape) in BOTH.items()}


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_come_back_and_only_written_ones_are_complete(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 12))
    folder = tmp_path_factory.mktemp("store")
    written: set[int] = set()
    for _ in range(data.draw(st.integers(1, 3))):  # sessions, of which some are killed
        store = Store(folder, n, BOTH)
        assert set(np.flatnonzero(store.complete(np.arange(n)))) == written
        for slot in data.draw(st.lists(st.integers(0, n - 1), max_size=n)):
            store.write(slot, row_of(slot))
            written.add(slot)
        if written:
            slots = np.array(data.draw(st.lists(st.sampled_from(sorted(written)), min_size=1, max_size=6)))
            found = buffers(len(slots))
            store.will_need(slots)
            store.read(slots, found)
            assert torch.equal(found["images"], torch.stack([image_of(s) for s in slots]))
            assert torch.equal(found["masks"], torch.stack([mask_of(s) for s in slots]))
            one = {name: values[0] for name, values in buffers(1).items()}
            assert store.take(int(slots[0]), one)
            assert all(torch.equal(one[name], found[name][0]) for name in one)
        if data.draw(st.booleans()):
            store.close()


def test_two_openers_see_each_others_rows(tmp_path: Path) -> None:
    one, two = Store(tmp_path, 4, IMAGES), Store(tmp_path, 4, IMAGES)
    one.write(2, {"images": image_of(2)})
    assert two.complete(np.arange(4)).tolist() == [False, False, True, False]
    images = buffers(1)["images"]
    two.read(np.array([2]), {"images": images})
    assert torch.equal(images[0], image_of(2))
    one.close()
    two.close()


def test_unsynced_rows_do_not_outlive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, 3, IMAGES)
    store.write(0, {"images": image_of(0)})
    store.close()
    store = Store(tmp_path, 3, IMAGES)
    store.write(1, {"images": image_of(1)})  # killed: never closed
    assert Store(tmp_path, 3, IMAGES).complete(np.arange(3)).tolist() == [True, True, False]
    monkeypatch.setattr(store_module, "_boot_id", lambda: b"another".ljust(64))
    assert Store(tmp_path, 3, IMAGES).complete(np.arange(3)).tolist() == [True, False, False]


def test_lost_pixels_lose_their_flags(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        store = Store(tmp_path, 2, BOTH)
        store.write(0, row_of(0))
        store.close()
        (tmp_path / name).unlink()
        assert not Store(tmp_path, 2, BOTH).complete(np.arange(2)).any()


def test_close_twice(tmp_path: Path) -> None:
    store = Store(tmp_path, 1, IMAGES)
    store.close()
    store.close()


def test_a_full_disk_is_named_with_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=10)
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match="do not fit") as caught:
        Store(tmp_path / "s", 1000, IMAGES)
    assert str(tmp_path / "s") in str(caught.value)
    assert str(1000 * 60 + 4 * 1000 + 1000 + 64) in str(caught.value)
    assert "preprocessing.lazy_cache_dir" in str(caught.value)
    assert not (tmp_path / "s" / "images").exists()


def test_a_quota_that_ends_while_reserving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(store_module.os, "posix_fallocate", fails)
    with pytest.raises(DataError, match="do not fit"):
        Store(tmp_path, 10, IMAGES)
    assert not (tmp_path / "images").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        Store(tmp_path / "file" / "s", 1, IMAGES)


@pytest.fixture
def index(tmp_path: Path) -> SampleIndex:
    (tmp_path / "files").mkdir()
    paths = [tmp_path / "files" / f"{kind}{i}" for kind in "im" for i in range(4)]
    for path in paths:
        path.write_bytes(b"0123")
    names = [str(p) for p in paths]
    image, mask = PackedStrings.from_strings(names[:4]), PackedStrings.from_strings(names[4:])
    return SampleIndex(image, np.zeros(4, np.uint8), mask=mask, target=TARGET)


def test_the_key_is_what_the_rows_are(index: SampleIndex) -> None:
    rows, geometry, plain = np.arange(4), Geometry(4, 5, 3), Preprocessing()

    def touched(path: str, size: bool) -> str:
        stat = os.stat(path)
        content = Path(path).read_bytes()
        Path(path).write_bytes(content + b"x" if size else content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (0 if size else 1)))
        found = store_key(index, rows, geometry, plain)
        Path(path).write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return found

    first = store_key(index, rows, geometry, plain)
    other_target = SampleIndex(
        index.image, index.split, mask=index.mask, target=TargetSpec("mask", ("a", "b", "c"), ignore_index=255)
    )
    others = [
        store_key(index, rows[:3], geometry, plain),
        store_key(index, rows[1:], geometry, plain),
        store_key(index.take([1, 0, 2, 3]), rows, geometry, plain),
        store_key(index, rows, Geometry(5, 4, 3), plain),
        store_key(index, rows, Geometry(4, 5, 1), plain),
        store_key(index, rows, geometry, Preprocessing(resize_method="crop_or_pad")),
        store_key(index, rows, geometry, Preprocessing(exact_decode=False)),
        store_key(SampleIndex(index.image, index.split), rows, geometry, plain),
        store_key(other_target, rows, geometry, plain),
        touched(index.image_path(2), size=True),
        touched(index.image_path(2), size=False),
        touched(index.mask_path(2), size=True),
        touched(index.mask_path(2), size=False),
    ]
    assert len({first, *others}) == len(others) + 1
    # The files were put back, with their times: it is the system's own time that tells.
    again = store_key(index, rows, geometry, plain)
    assert again not in (first, *others)
    settings = Preprocessing(mode="lazy_cached", prefetch_size=9, decode_threads=3)
    assert store_key(index.take(rows), rows, geometry, settings) == again


def test_a_palette_counts_where_it_decides_the_ids(index: SampleIndex) -> None:
    def key(**target: Any) -> str:
        spec = TargetSpec("mask", ("a", "b"), **target)
        samples = SampleIndex(index.image, index.split, mask=index.mask, target=spec)
        return store_key(samples, np.arange(4), Geometry(4, 5, 3), Preprocessing())

    palettes = (((0, 0, 0), (1, 1, 1)), ((1, 1, 1), (0, 0, 0)))
    for values in ("index", "binary"):
        assert len({key(mask_values=values, palette=palette) for palette in (None, *palettes)}) == 1
    assert len({key(mask_values="color", palette=palette) for palette in palettes}) == 2


def test_a_changed_file_version_or_decoder_changes_the_key(index: SampleIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (index, np.arange(4), Geometry(4, 5, 3), Preprocessing())
    keys = {store_key(*arguments)}
    for name, value in (("FORMAT_VERSION", 99), ("ROUTE", "other")):
        monkeypatch.setattr(store_module, name, value)
        keys.add(store_key(*arguments))
    assert len(keys) == 3


def test_missing_files_have_a_key(index: SampleIndex) -> None:
    os.unlink(index.image_path(0))
    assert store_key(index, np.arange(4), Geometry(4, 5, 3), Preprocessing())


def test_where_stores_lie(index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("LIGHTNING_VISION_CACHE", raising=False)
    assert store_folder() == tmp_path / "xdg" / "lightning_vision" / "store"
    monkeypatch.setenv("LIGHTNING_VISION_CACHE", str(tmp_path / "own"))
    assert store_folder() == tmp_path / "own" / "store"
    assert store_folder(str(tmp_path / "given")) == tmp_path / "given"
    settings = Preprocessing(lazy_cache_dir=str(tmp_path / "given"))
    (store,) = open_stores(index, np.arange(4), Geometry(4, 5, 3), settings)
    assert store.folder.parent == tmp_path / "given"
    names = {"images", "masks", "checksums", "rows", "about.json", "in_use", "lock"}
    assert {p.name for p in store.folder.iterdir()} == names
    store.close()


def test_each_image_of_a_sample_has_its_own_store(index: SampleIndex, tmp_path: Path) -> None:
    settings = Preprocessing(lazy_cache_dir=str(tmp_path / "c"))
    rows, geometry = np.arange(4), Geometry(4, 5, 3, num_inputs=2)
    (tmp_path / "other").mkdir()
    others = [tmp_path / "other" / str(i) for i in range(4)]
    for path in others:
        path.write_bytes(b"x")
    further = PackedStrings.from_strings(str(path) for path in others)
    pair = SampleIndex(index.image, index.split, mask=index.mask, target=TARGET, further=(further,))
    first, second = open_stores(pair, rows, geometry, settings)
    assert (first.folder / "masks").exists()
    assert not (second.folder / "masks").exists()
    (alone,) = open_stores(index, rows, Geometry(4, 5, 3), settings)
    assert alone.folder == first.folder  # what was cached for two serves a run on one
    others[0].write_bytes(b"changed")
    again = open_stores(pair, rows, geometry, settings)
    assert [store.folder for store in again] == [first.folder, again[1].folder]
    assert again[1].folder != second.folder


def flip_bit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("column", ["images", "masks"])
def test_a_flipped_bit_is_found_when_the_store_is_opened_again(tmp_path: Path, column: str) -> None:
    store = Store(tmp_path, 3, BOTH)
    for slot in range(3):
        store.write(slot, row_of(slot))
    assert store.verified(np.arange(3)).all()
    store.close()
    flip_bit(tmp_path / column, int(np.prod(BOTH[column][1])))  # the first byte of row 1
    store = Store(tmp_path, 3, BOTH)
    assert store.complete(np.arange(3)).all()
    assert not store.verified(np.arange(3)).any()
    assert store.verify(np.array([2, 1, 1])).tolist() == [True, False, False]
    assert store.damaged == 1
    assert store.complete(np.arange(3)).tolist() == [True, False, True]
    store.write(1, row_of(1))
    assert store.verify(np.arange(3)).all()
    assert store.damaged == 1


def test_a_lost_checksum_is_a_damaged_row(tmp_path: Path) -> None:
    store = Store(tmp_path, 2, BOTH)
    for slot in range(2):
        store.write(slot, row_of(slot))
    store.close()
    flip_bit(tmp_path / "checksums", 0)
    assert Store(tmp_path, 2, BOTH).verify(np.arange(2)).tolist() == [False, True]


def test_take_finds_what_is_missing_or_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path, 2, BOTH)
    out = {name: values[0] for name, values in buffers(1).items()}
    assert not store.take(0, out)
    store.write(0, row_of(0))
    store.close()
    flip_bit(tmp_path / "masks", 3)
    store = Store(tmp_path, 2, BOTH)
    assert not store.take(0, out)
    assert store.damaged == 1
    assert not store.complete(np.array([0]))[0]


def test_a_disk_that_fills_up_while_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path, 2, BOTH)
    store.write(0, row_of(0))
    monkeypatch.setattr(store_module.os, "pwrite", full)
    with pytest.raises(StoreError, match="do not fit") as caught:
        store.write(1, row_of(1))
    assert str(tmp_path) in str(caught.value)
    monkeypatch.undo()
    # What was written before is not lost.
    assert store.complete(np.arange(2)).tolist() == [True, False]
    store.close()
    assert Store(tmp_path, 2, BOTH).verify(np.arange(2)).tolist() == [True, False]
