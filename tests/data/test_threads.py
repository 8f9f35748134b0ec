from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.threads import available_cores, divide


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
