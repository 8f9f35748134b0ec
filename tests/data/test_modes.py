from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_vision.data import modes as modes_module
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.loader import Loader
from lightning_vision.data.modes import Eager, LazyCached, Mode, SampleDecoder, available_memory, open_mode
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_mask
from lightning_vision.types import Geometry, TargetSpec

N = 9
MODES = ["lazy", "eager", "eager on disk", "lazy_cached"]


@pytest.fixture
def index(tmp_path: Path) -> SampleIndex:
    rng = np.random.default_rng(0)
    for i in range(N):
        size = (10 + i, 14)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
            tmp_path / f"i{i}.{'jpg' if i % 2 else 'png'}"
        )
        write_mask(tmp_path / f"m{i}.png", rng.integers(0, 2, size, dtype=np.uint8))
    image = PackedStrings.from_strings(str(tmp_path / f"i{i}.{'jpg' if i % 2 else 'png'}") for i in range(N))
    mask = PackedStrings.from_strings(str(tmp_path / f"m{i}.png") for i in range(N))
    return SampleIndex(image, np.zeros(N, np.uint8), mask=mask, target=TargetSpec("mask", ("a", "b"), 255))


def mode_of(index: SampleIndex, cache: Path, mode: str, rows: np.ndarray | None = None, **settings: Any) -> Mode:
    name = mode.removesuffix(" on disk")
    settings |= {"in_memory": mode == name, "lazy_cache_dir": str(cache)}
    preprocessing = Preprocessing(mode=name, **settings)  # type: ignore[arg-type]
    geometry = Geometry(8, 9, 3, len(index.images))
    opened = open_mode(SampleDecoder(index, geometry, preprocessing), np.arange(N) if rows is None else rows)
    if name == "eager":
        with ThreadPoolExecutor(2) as pool:
            opened.prepare(pool)
    return opened


def fetch(mode: Mode, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor | None, list[int]]:
    with ThreadPoolExecutor(2) as pool:
        samples, wait = mode.start(np.array(rows, np.int64), pool)
        failures = wait()
    return samples["image"], samples.get("target"), [f.position for f in failures]


@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad"])
def test_the_three_modes_give_the_same_bits(index: SampleIndex, tmp_path: Path, method: str) -> None:
    orders = [[4, 2, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 8, 0], []]
    settings = {"resize_method": method}
    found = {}
    for name in MODES:
        mode = mode_of(index, tmp_path / "c", name, **settings)
        # Twice: the second time, the cache holds all rows.
        found[name] = [fetch(mode, rows) for rows in orders + orders]
        mode.close()
    for name in MODES[1:]:
        for (image, mask, _), (expected, expected_mask, _) in zip(found[name], found["lazy"], strict=True):
            assert torch.equal(image, expected)
            assert torch.equal(mask, expected_mask)
    assert found["lazy"][1][1].unique().numel() > 1


@pytest.mark.parametrize("name", MODES)
def test_rows_of_a_split_are_rows_of_the_index(index: SampleIndex, tmp_path: Path, name: str) -> None:
    part = mode_of(index, tmp_path / "c", name, np.array([2, 5, 6]))
    whole = mode_of(index, tmp_path / "c", "lazy")
    assert torch.equal(fetch(part, [6, 2])[0], fetch(whole, [6, 2])[0])


def test_a_cached_row_is_not_decoded_again(index: SampleIndex, tmp_path: Path) -> None:
    mode = mode_of(index, tmp_path / "c", "lazy_cached")
    first = fetch(mode, [0, 1, 2])  # the run is killed here: the store is not closed
    again = mode_of(index, tmp_path / "c", "lazy_cached")
    calls: list[int] = []

    class Counting(SampleDecoder):
        def __call__(self, row: int, image: torch.Tensor, mask: torch.Tensor | None) -> None:
            calls.append(row)
            super().__call__(row, image, mask)

    decoder = again.decoder
    again.decoder = Counting(decoder.index, decoder.geometry, decoder.preprocessing)
    second = fetch(again, [0, 1, 2, 3, 4])
    assert sorted(calls) == [3, 4]
    assert torch.equal(second[0][:3], first[0])
    fetch(again, [4, 3, 2, 1, 0])
    assert len(calls) == 2


@pytest.mark.parametrize("name", MODES)
def test_failures_are_placed(index: SampleIndex, tmp_path: Path, name: str) -> None:
    Path(index.image_path(4)).write_bytes(b"")
    mode = mode_of(index, tmp_path / "c", name, on_bad_image="skip")
    for _ in range(2):
        images, _, failed = fetch(mode, [1, 4, 2])
        assert failed == [1]
    good = fetch(mode, [1, 2])
    assert torch.equal(images[[0, 2]], good[0])
    assert good[2] == []
    if isinstance(mode, LazyCached):
        assert not mode.stores[0].complete(np.array([4])).any()


@pytest.mark.parametrize("name", ["eager", "eager on disk"])
def test_eager_stops_at_a_bad_image(index: SampleIndex, tmp_path: Path, name: str) -> None:
    Path(index.image_path(4)).write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)i4\.png.*try: +preprocessing\.on_bad_image=skip"):
        mode_of(index, tmp_path, name)


@pytest.mark.parametrize("name", MODES)
def test_a_bad_image_is_black_and_its_mask_does_not_count(index: SampleIndex, tmp_path: Path, name: str) -> None:
    Path(index.image_path(4)).write_bytes(b"")
    mode = mode_of(index, tmp_path / "c", name, on_bad_image="blank")
    for _ in range(2):
        images, masks, failed = fetch(mode, [1, 4, 2])
        assert failed == [1]
        assert masks is not None
        assert not images[1].any()
        assert (masks[1] == 255).all()
        assert images[0].any()
        assert (masks[0] != 255).all()
    # Mended, it is itself again: a black image is never stored.
    write_mask(Path(index.image_path(4)), np.full((14, 14), 9, np.uint8))
    write_mask(Path(index.mask_path(4)), np.zeros((14, 14), np.uint8))
    fresh = mode_of(index, tmp_path / "c", name, on_bad_image="blank")
    assert (fetch(fresh, [4])[0] == 9).all()


def test_prepare_leaves_nothing_to_decode(index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mode = mode_of(index, tmp_path / "c", "eager on disk")
    assert isinstance(mode, LazyCached)
    mode.close()
    again = mode_of(index, tmp_path / "c", "lazy_cached")
    monkeypatch.setattr(SampleDecoder, "__call__", lambda *_: pytest.fail("decoded"))
    assert fetch(again, list(range(N)))[0].any()


def test_a_damaged_row_is_decoded_anew(index: SampleIndex, tmp_path: Path) -> None:
    mode = mode_of(index, tmp_path / "c", "lazy_cached")
    assert isinstance(mode, LazyCached)
    before = fetch(mode, list(range(N)))
    mode.close()
    images = mode.stores[0].folder / "images"
    data = bytearray(images.read_bytes())
    data[3 * 8 * 9 * 5 + 7] ^= 1  # in row 5
    images.write_bytes(data)
    again = mode_of(index, tmp_path / "c", "lazy_cached")
    assert isinstance(again, LazyCached)
    for _ in range(2):
        after = fetch(again, list(range(N)))
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], before[1])
    assert again.stores[0].damaged == 1


def test_several_images_a_sample_from_stores_of_their_own(index: SampleIndex, tmp_path: Path) -> None:
    turned = PackedStrings.from_strings(reversed(list(index.image)))
    pair = SampleIndex(index.image, index.split, mask=index.mask, target=index.target, further=(turned,))
    expected = fetch(mode_of(pair, tmp_path / "c", "lazy"), [3, 0, 8])
    cached = mode_of(pair, tmp_path / "c", "lazy_cached")
    assert isinstance(cached, LazyCached)
    assert len(cached.stores) == 2
    for _ in range(2):
        found = fetch(cached, [3, 0, 8])
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    # A row of the second image that is lost is made anew, beside the first.
    cached.stores[1]._flags[0] = 0
    assert torch.equal(fetch(cached, [3, 0, 8])[0], expected[0])
    assert cached.stores[1].complete(np.array([0])).all()


@pytest.mark.parametrize("name", MODES)
def test_a_mask_that_does_not_fit_is_named(index: SampleIndex, tmp_path: Path, name: str) -> None:
    write_mask(Path(index.mask_path(3)), np.zeros((14, 10), np.uint8))
    mode = mode_of(index, tmp_path / "c", name, on_bad_image="skip")
    assert fetch(mode, [2, 3])[2] == [1]


def test_eager_refuses_what_does_not_fit_in_memory(
    index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = N * (3 * 8 * 9 + 8 * 9)
    monkeypatch.setattr(modes_module, "available_memory", lambda: needed)
    decoder = mode_of(index, tmp_path, "eager").decoder
    with pytest.raises(ConfigError, match=r"preprocessing\.mode=lazy"):
        Eager(decoder, np.arange(N), ranks=2)  # each of them holds a copy
    monkeypatch.setattr(modes_module, "available_memory", lambda: needed - 1)
    with pytest.raises(ConfigError, match="do not fit in memory"):
        mode_of(index, tmp_path, "eager")


def test_available_memory_is_plausible() -> None:
    free = available_memory()
    assert free is None or 2**20 < free < 2**60


def test_without_masks(index: SampleIndex, tmp_path: Path) -> None:
    plain = SampleIndex(index.image, index.split)
    found = [fetch(mode_of(plain, tmp_path / "c", name), [3, 1])[0] for name in MODES]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("policy", ["error", "skip", "blank"])
def test_a_full_disk_is_no_bad_image(
    index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    mode = mode_of(index, tmp_path / "c", "lazy_cached", on_bad_image=policy)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match=r"(?s)do not fit.*preprocessing\.lazy_cache_dir=FOLDER"):
        fetch(mode, [0, 1])


@pytest.mark.parametrize("name", MODES)
def test_labels_stay_with_blank_and_cached_images(index: SampleIndex, tmp_path: Path, name: str) -> None:
    Path(index.image_path(4)).write_bytes(b"")
    labelled = SampleIndex(index.image, index.split, label=np.arange(N), target=TargetSpec("label", tuple("abcdefghi")))
    mode = mode_of(labelled, tmp_path / "c", name, on_bad_image="blank")
    loader = Loader(mode, 4, prefetch=2, on_bad_image="blank")
    for _ in range(2):
        batches = list(loader)
        assert torch.cat([batch["target"] for batch in batches]).tolist() == list(range(N))
        assert [bool(image.any()) for batch in batches for image in batch["image"]] == [i != 4 for i in range(N)]
    assert [path for path, _ in loader.bad] == [index.image_path(4)]
