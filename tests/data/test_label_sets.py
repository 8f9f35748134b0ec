from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightning_vision.data.label_sets import LabelSets

CELLS = st.tuples(st.integers(0, 20), st.integers(0, 20)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255]))
)


def packed(cells: npt.NDArray[np.uint8], block: int = 7) -> LabelSets:
    blocks = (cells[i : i + block] for i in range(0, len(cells), block))
    return LabelSets.from_blocks(blocks, cells.shape[1])


@given(CELLS, st.integers(1, 9), st.data())
def test_cells_come_back(cells: npt.NDArray[np.uint8], block: int, data: st.DataObject) -> None:
    sets = packed(cells, block)
    assert len(sets) == len(cells)
    everything = sets.rows(np.arange(len(cells)))
    assert everything.dtype == np.uint8
    np.testing.assert_array_equal(everything, cells)
    rows = data.draw(st.lists(st.integers(0, len(cells) - 1), max_size=30)) if len(cells) else []
    np.testing.assert_array_equal(sets.rows(rows), cells[np.array(rows, int)])
    np.testing.assert_array_equal(sets.take(rows).rows(np.arange(len(rows))), cells[np.array(rows, int)])
    assert sets.take(rows) == packed(cells[np.array(rows, int)])
    assert pickle.loads(pickle.dumps(sets)) == sets


@given(CELLS)
def test_columns_and_blocks_are_the_same_bits(cells: npt.NDArray[np.uint8]) -> None:
    columns = [(i, cells[:, i]) for i in range(cells.shape[1])]
    assert LabelSets.from_columns(reversed(columns), len(cells), cells.shape[1]) == packed(cells)


@given(CELLS)
def test_counts_are_sums(cells: npt.NDArray[np.uint8]) -> None:
    sets = packed(cells)
    some = np.flatnonzero(np.arange(len(cells)) % 3)
    for rows in (None, some):
        wanted = cells if rows is None else cells[rows]
        yes, unknown = sets.counts(rows)
        assert yes.tolist() == (wanted == 1).sum(axis=0).tolist()
        assert unknown.tolist() == (wanted == 255).sum(axis=0).tolist()


@given(CELLS)
def test_keys_are_equal_where_rows_are(cells: npt.NDArray[np.uint8]) -> None:
    sets = packed(cells)
    for i in range(len(cells)):
        for j in range(i):
            assert (sets.key(i) == sets.key(j)) == (cells[i].tolist() == cells[j].tolist())


def test_a_label_without_a_column_is_unknown() -> None:
    sets = LabelSets.from_columns([(2, np.array([1, 0, 255], np.uint8))], 3, 4)
    assert sets.rows([0, 1, 2]).tolist() == [[255, 255, 1, 255], [255, 255, 0, 255], [255, 255, 255, 255]]


def test_bits_alone_are_kept() -> None:
    cells = np.random.default_rng(0).integers(0, 2, (1000, 80)).astype(np.uint8)
    assert packed(cells).nbytes == 1000 * 10
    cells[3, 5] = 255
    assert packed(cells).nbytes == 2 * 1000 * 10
    assert packed(cells).take(np.delete(np.arange(1000), 3)).nbytes == 999 * 10
    assert packed(cells) != packed(np.where(cells == 255, 0, cells))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="yes is uint8"):
        LabelSets(np.zeros((3, 1), np.uint8), 9)
    with pytest.raises(ValueError, match="unknown is bool"):
        LabelSets(np.zeros((3, 1), np.uint8), 8, np.zeros((3, 1), np.bool_))  # type: ignore[arg-type]
