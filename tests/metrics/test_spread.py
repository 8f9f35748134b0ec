"""Some rows of a stream, evenly over it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_vision.metrics.spread import Spread


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 12))
def test_every_nth_row_is_kept_whatever_the_batches(sizes: list[int], most: int) -> None:
    spread, rows = Spread(most), torch.arange(sum(sizes))
    for batch in rows.split(sizes):
        spread.add(batch, -batch)
    kept = spread.columns[0] if spread.columns else rows
    step = int(kept[1] - kept[0]) if len(kept) > 1 else max(1, len(rows))
    assert kept.tolist() == rows[::step].tolist()
    assert min(most, len(rows)) <= len(kept) <= 2 * most or len(kept) == len(rows) <= 2 * most
    if spread.columns:
        assert (spread.columns[1] == -kept).all()
    spread.clear()
    assert spread.columns == []


def test_what_is_kept_is_no_part_of_a_batch() -> None:
    spread, batch = Spread(4), torch.arange(6)
    spread.add(batch)
    batch.zero_()  # a loader fills its buffers again
    spread.add(batch)
    assert spread.columns[0].tolist() == [0, 2, 4, 0, 0, 0]
