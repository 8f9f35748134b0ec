from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.sources import delimited
from lightning_vision.data.sources.delimited import Delimited
from lightning_vision.data.sources.fast_csv import fast_columns
from lightning_vision.errors import DataError

pytest.importorskip("pyarrow")

CELL = st.text(
    st.sampled_from("ab1 é\u00a0\u2003\u3000\x1c\x85") | st.sampled_from(',;"\t\n\r\0') | st.characters(codec="utf-8"),
    max_size=5,
)
# Mostly plain: otherwise nearly every table is left to the csv module.
PLAIN = st.text(st.sampled_from("abc/.0123 é\u00a0\u2003ü"), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fast")


def outcome(table: Path, fast: bool, names: list[str]) -> object:
    """What reading gives: cells, row numbers and ragged rows, or the error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "LARGE", 0 if fast else 1 << 60)
        try:
            columns, rows, ragged = Delimited(str(table)).columns(names)
        except DataError as error:
            return str(error)
        return [list(column) for column in columns], rows.tolist(), ragged


@given(
    rows=st.lists(st.lists(PLAIN, min_size=3, max_size=3), max_size=8)
    | st.lists(st.lists(PLAIN | CELL, min_size=3, max_size=3), max_size=6)
    | st.lists(st.lists(PLAIN, max_size=4), max_size=5),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    delimiter=st.sampled_from([",", "\t", ";", "|"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    last_line_end=st.booleans(),
    quoted=st.booleans(),
)
def test_both_ways_agree(
    folder: Path,
    rows: list[list[str]],
    line_end: str,
    delimiter: str,
    mark: bytes,
    last_line_end: bool,
    quoted: bool,
) -> None:
    text = io.StringIO(newline="")
    table = [["image", "label", "split"], *rows]
    if quoted:
        csv.writer(text, delimiter=delimiter, lineterminator=line_end).writerows(table)
    else:
        text.writelines(delimiter.join(row) + line_end for row in table)
    content = text.getvalue() if last_line_end else text.getvalue().removesuffix(line_end)
    path = folder / "t.csv"
    path.write_bytes(mark + content.encode())
    for names in (["split", "image"], ["label"]):
        assert outcome(path, True, names) == outcome(path, False, names)


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=30), st.integers(1, 40))
def test_chunks_end_anywhere(folder: Path, rows: list[tuple[str, str]], size: int) -> None:
    path = folder / "t.csv"
    path.write_text("a,b\n" + "".join(f"x{a},{b}y\n" for a, b in rows), encoding="utf-8")
    columns = fast_columns(str(path), ",", 2, [1, 0], size)
    assert columns is not None, "plain rows are read by it"
    assert list(columns[0]) == [f"{b}y".strip() for _, b in rows]
    assert list(columns[1]) == [f"x{a}".strip() for a, _ in rows]


@pytest.mark.parametrize(
    "content",
    [b'a,b\n"1",2\n', b"a,b\n1,2\n\n3,4\n", b"a,b\n\n1,2\n", b"a,b\n1,2\n3\n", b"a,b\n1,\0\n", b"a,b\r1,2\r",
     b"a,b\n1,2\r\r\n", b"a,b\n1,\xff\n", b"a,b\n1,2\r\n\r\n", b'a,"b"\n1,2\n'],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_csv_module(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    assert fast_columns(str(path), ",", 2, [0, 1]) is None
