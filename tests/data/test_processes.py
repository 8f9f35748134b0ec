"""Stores under real processes: killed ones, several at once, ranks of one run, and a limit on what may be written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.loader import Loader
from lightning_vision.data.modes import SampleDecoder, open_mode
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.testing.datasets import write_mask
from lightning_vision.testing.processes import Child
from lightning_vision.types import Geometry, TargetSpec

N, BATCH, EPOCHS = 43, 4, 2
MODES: dict[str, dict[str, Any]] = {
    "lazy": {},
    "lazy_cached": {"mode": "lazy_cached"},
    "eager": {"mode": "eager"},
    "eager on disk": {"mode": "eager", "in_memory": False},
}


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(N):
        pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"i{i}.jpg")
        write_mask(folder / f"m{i}.png", rng.integers(0, 3, pixels.shape[:2], dtype=np.uint8))


def loader_of(folder: Path, cache: Path, **settings: Any) -> Loader:
    names = ("i{}.jpg", "m{}.png")
    image, mask = (PackedStrings.from_strings(str(folder / name.format(i)) for i in range(N)) for name in names)
    target = TargetSpec("mask", ("a", "b", "c"), ignore_index=255)
    index = SampleIndex(image, np.zeros(N, np.uint8), mask=mask, target=target)
    preprocessing = Preprocessing(lazy_cache_dir=str(cache), **settings)
    mode = open_mode(SampleDecoder(index, Geometry(12, 16, 3), preprocessing), np.arange(N))
    if preprocessing.mode == "eager":
        with ThreadPoolExecutor(2) as pool:
            mode.prepare(pool)
    return Loader(mode, BATCH, train=True, shuffle=True, seed=3, prefetch=preprocessing.prefetch_size, threads=2)


def digests(loader: Loader) -> list[str]:
    """What every batch of two epochs is, to the last bit."""
    found = []
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            digest = hashlib.blake2b(batch["index"].numpy().tobytes())
            digest.update(batch["image"].numpy().tobytes())
            digest.update(batch["target"].numpy().tobytes())
            found.append(digest.hexdigest())
    loader.mode.close()
    return found


# What a process does. Each prints one line of JSON.


def run_epochs(folder: Path, cache: Path) -> None:
    """Two epochs of lazy_cached; says how many rows were decoded."""
    decoded = []
    decode = SampleDecoder.__call__

    def counting(self: SampleDecoder, row: int, *rest: Any) -> None:
        decoded.append(row)
        decode(self, row, *rest)

    SampleDecoder.__call__ = counting  # type: ignore[method-assign]
    found = digests(loader_of(folder, cache, mode="lazy_cached"))
    print(json.dumps({"batches": found, "decoded": len(decoded)}))


def run_until_killed(folder: Path, cache: Path) -> None:
    """Begin the first epoch of lazy_cached, and be killed in it, without a chance to clean up."""
    for i, _ in enumerate(loader_of(folder, cache, mode="lazy_cached", prefetch_size=1)):
        if i == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def run_rank(folder: Path, cache: Path, port: int, rank: int, world: int) -> None:
    """All modes, one after another, as one rank of several."""
    from torch import distributed

    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    print(json.dumps({name: digests(loader_of(folder, cache / name, **settings)) for name, settings in MODES.items()}))
    distributed.destroy_process_group()


def run_with_a_limit(folder: Path, cache: Path) -> None:
    """A store that is larger than a file may be."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        loader_of(folder, cache, mode="lazy_cached")
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))


def answer(process: Child) -> Any:
    return json.loads(process.succeed().splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path / "images"


def test_a_run_that_was_killed_in_its_first_epoch_goes_on(folder: Path, tmp_path: Path) -> None:
    code, _ = Child(run_until_killed, folder, tmp_path / "c").wait()
    assert code == -signal.SIGKILL
    after = answer(Child(run_epochs, folder, tmp_path / "c"))
    assert after["batches"] == digests(loader_of(folder, tmp_path / "unused"))
    # At least the four batches that were handed out were there already.
    assert 0 < after["decoded"] <= N - 4 * BATCH


def test_two_runs_at_once_share_a_store(folder: Path, tmp_path: Path) -> None:
    both = [Child(run_epochs, folder, tmp_path / "c") for _ in range(2)]
    expected = digests(loader_of(folder, tmp_path / "unused"))
    assert [answer(process)["batches"] for process in both] == [expected, expected]
    assert len([f for f in (tmp_path / "c").iterdir() if f.is_dir()]) == 1


def test_modes_agree_in_one_process_and_in_two(folder: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [Child(run_rank, folder, tmp_path / "two", port, rank, 2) for rank in range(2)]
    expected = digests(loader_of(folder, tmp_path / "unused"))
    for name, settings in MODES.items():
        assert digests(loader_of(folder, tmp_path / "one", **settings)) == expected, name
    found = [answer(process) for process in ranks]
    assert len(found[0]["lazy"]) == EPOCHS * -(-N // (2 * BATCH))
    for rank in found:
        for name in MODES:
            assert rank[name] == rank["lazy"], name
    assert found[0]["lazy"] != found[1]["lazy"]


def test_a_file_system_that_takes_no_more(folder: Path, tmp_path: Path) -> None:
    found = answer(Child(run_with_a_limit, folder, tmp_path / "c"))
    assert found["error"] == "StoreError"
    assert "do not fit" in found["text"]
    assert str(tmp_path / "c") in found["text"]
    assert "preprocessing.mode=lazy" in found["text"]
    # Nothing half made stays in the way where there is room again.
    assert digests(loader_of(folder, tmp_path / "c", mode="lazy_cached")) == digests(loader_of(folder, tmp_path))
