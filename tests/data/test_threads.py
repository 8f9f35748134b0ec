from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data import threads as threads_module
from lightning_vision.data.threads import available_cores, divide, each, local_ranks


@given(st.integers(1, 512), st.integers(1, 64))
def test_ranks_do_not_take_more_than_there_is(cores: int, ranks: int) -> None:
    share = divide(cores, ranks)
    assert share >= 1
    assert share * ranks <= max(cores, ranks)
    assert share * ranks > cores - ranks  # and leave less than one each


def test_nonsense_is_refused() -> None:
    for cores, ranks in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            divide(cores, ranks)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    own = len(os.sched_getaffinity(0))
    assert available_cores(tmp_path) == (own if cores is None else min(cores, own))


@pytest.mark.parametrize(
    ("told", "ranks"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "8"}, 1),  # no rank of a machine
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 4),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "2"}, 2),
        ({"LOCAL_RANK": "0"}, 1),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "many"}, 1),
    ],
)
def test_ranks_of_the_machine_share_its_cores(
    told: dict[str, str], ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert local_ranks() == ranks
    used: list[int] = []

    def pool(threads: int) -> ThreadPoolExecutor:
        used.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(threads_module, "available_cores", lambda: 8)
    monkeypatch.setattr(threads_module, "ThreadPoolExecutor", pool)
    assert list(each(lambda row: row * row, np.arange(600))) == [row * row for row in range(600)]
    assert list(each(str, np.arange(2), threads=3)) == ["0", "1"]
    assert used == [8 // ranks, 3]
