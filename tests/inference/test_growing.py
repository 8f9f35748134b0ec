"""Files that grow, are cut back, and become whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightning_vision.errors import ConfigError
from lightning_vision.inference.growing import GrowingArray, GrowingFile
from lightning_vision.inference.journal import Journal, State
from lightning_vision.inference.output import Output
from lightning_vision.inference.table_file import TableFile


def test_what_is_not_kept_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x"
    file = GrowingFile(path)
    file.add(b"whole\nhal")
    file.abandon()
    again = GrowingFile(path, 6)
    again.add(b"next\n")
    again.close()
    assert path.read_bytes() == b"whole\nnext\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_has_its_name_already_grows_again(tmp_path: Path) -> None:
    """Its process was killed between this file and the next."""
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    file = GrowingFile(path, 5)
    file.add(b"6")
    file.close()
    assert path.read_bytes() == b"123456"
    with pytest.raises(ConfigError, match="no longer whole"):
        GrowingFile(path, 5)


def test_an_array_goes_on(tmp_path: Path) -> None:
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    array = GrowingArray(tmp_path / "a.npy")
    for row in rows[:3]:
        array.add(row, "x")
    size = array.file.size
    array.add(rows[4], "not noted any more")
    array.abandon()
    array = GrowingArray(tmp_path / "a.npy", size, 3)
    with pytest.raises(ValueError, match="vector of 3 numbers"):
        array.add(np.zeros(4, np.float32), "x")
    for row in rows[3:]:
        array.add(row, "x")
    array.close()
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows)


def test_an_array_without_rows_begins_anew(tmp_path: Path) -> None:
    """The journal noted its header, for an unreadable image before the first row."""
    array = GrowingArray(tmp_path / "a.npy")
    size = array.file.size
    array.abandon()
    assert list(tmp_path.iterdir()) == []
    array = GrowingArray(tmp_path / "a.npy", size)
    array.add(np.ones(3, np.float32), "x")
    array.close()
    assert np.load(tmp_path / "a.npy").tolist() == [[1, 1, 1]]


def test_a_table_becomes_parquet_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("lightning_vision.inference.parquet.ROWS", 4)
    columns = {"path": str, "row": int, "share, a": float}
    table = TableFile(tmp_path / "t.csv", lambda: columns, Output(table="parquet"))
    cells = [[f'a\n"{i}", ü.jpg', str(i), f"{i / 8:.6g}"] for i in range(10)]
    cells[3][0], cells[4][2] = "no UTF-8: \udcff", ""
    for row in cells:
        table.add(row)
    table.close()
    table.close()
    assert {p.name for p in tmp_path.iterdir()} == {"t.parquet", "t.csv.partial"}
    table.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    found = parquet.ParquetFile(tmp_path / "t.parquet")
    assert found.num_row_groups == 3
    assert [str(kind) for kind in found.schema_arrow.types] == ["string", "int64", "float"]
    rows = found.read().to_pydict()
    cells[3][0] = r"no UTF-8: \xff"
    assert rows["path"] == [row[0] for row in cells]
    assert rows["row"] == list(range(10))
    assert rows["share, a"] == [None if i == 4 else i / 8 for i in range(10)]


ABOUT = {"model": "m", "batch_size": 4, "preprocessing.resize_method": "interpolate"}


def state(folder: Path) -> State:
    journal = Journal(folder, ABOUT)
    journal.leave()
    return journal.state


def test_a_journal_tells_the_last_whole_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    assert journal.state == State()
    journal.commit(State(4, 4, {"a": 10}))
    journal.commit(State(8, 7, {"a": 20}))
    journal.leave()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'{"row": 12, "cou')  # killed while it was written
    again = Journal(tmp_path, ABOUT)
    assert again.state == State(8, 7, {"a": 20})
    again.commit(State(12, 11, {"a": 30}))
    again.leave()
    assert state(tmp_path) == State(12, 11, {"a": 30})


def test_a_journal_without_a_batch_is_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    journal.leave()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "journal.jsonl.partial").write_text('{"model": "other"}\n')
    assert state(tmp_path) == State()


def test_another_prediction_does_not_go_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "predictions", ABOUT)
    journal.commit(State(4, 4, {}))
    journal.leave()
    with pytest.raises(ConfigError) as caught:
        Journal(tmp_path / "predictions", {**ABOUT, "model": "n", "batch_size": 8, "tta": "flips"})
    assert "another model, batch_size=8, was 4, tta=flips, was None" in str(caught.value)
    assert f"output_dir={tmp_path}-2" in str(caught.value)
    assert state(tmp_path / "predictions").row == 4
