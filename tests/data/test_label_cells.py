from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.label_cells import encode_flags, encode_sets, has_lists, is_set, list_text, names_in
from lightning_vision.errors import ConfigError, DataError

NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="|"), min_size=1, max_size=6).filter(
    lambda name: name == name.strip()
)
SETS = st.lists(st.lists(NAME, max_size=5), max_size=15)
FLAG = st.sampled_from(["1", "0", "1.0", "0.0", "true", "False", "YES", "no", "True", ""])
MEANS = {"1": 1, "1.0": 1, "true": 1, "yes": 1, "0": 0, "0.0": 0, "false": 0, "no": 0, "": 255}


def refuse(error: DataError) -> None:
    raise error


def where(row: int) -> str:
    return f"row {row}"


@given(SETS, st.sampled_from(["|", ";", ", "]), st.booleans())
def test_joined_names_and_lists_are_the_same_sets(rows: list[list[str]], separator: str, spaces: bool) -> None:
    rows = [[name.replace(";", ".").replace(",", ".") for name in names] for names in rows]
    known = sorted({name for names in rows for name in names})
    expected = [[int(name in names) for name in known] for names in rows]
    pad = " " if spaces else ""
    joined = PackedStrings.from_strings(f"{pad}{separator}{pad}".join(names) for names in rows)
    for cells in (joined, PackedStrings.from_strings(map(list_text, rows))):
        sets, names, wrong = encode_sets(cells, separator, where, tuple(known) or None, None, refuse)
        assert names == tuple(known)
        assert sets.rows(np.arange(len(rows))).tolist() == expected
        assert not wrong.any()
    assert has_lists(PackedStrings.from_strings(map(list_text, rows))) == bool(rows)
    assert not has_lists(joined)


@given(st.lists(st.lists(NAME, max_size=4), max_size=8))
def test_names_of_lists_may_hold_any_separator(rows: list[list[str]]) -> None:
    rows = [[f"{name}|{name}" for name in names] for names in rows]
    for names in rows:
        assert names_in(list_text(names), "|") == names


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.lists(FLAG, min_size=n, max_size=n), min_size=1, max_size=9)))
def test_columns_of_yes_and_no(rows: list[list[str]]) -> None:
    columns = {f"c{i}": PackedStrings.from_strings(column) for i, column in enumerate(zip(*rows, strict=True))}
    expected = [[MEANS[cell.lower()] for cell in row] for row in rows]
    sets, names, _ = encode_flags(columns, where, None, None, refuse)
    assert names == tuple(columns)
    assert sets.rows(np.arange(len(rows))).tolist() == expected
    turned = tuple(reversed(names))
    again, names, _ = encode_flags(columns, where, turned, None, refuse)
    assert names == turned
    assert again.rows(np.arange(len(rows))).tolist() == [row[::-1] for row in expected]


def sets_of(*cells: str, class_names: tuple[str, ...] | None = None, num_classes: int | None = None):  # type: ignore[no-untyped-def]
    sets, names, _ = encode_sets(PackedStrings.from_strings(cells), "|", where, class_names, num_classes, refuse)
    return names, sets.rows(np.arange(len(cells))).tolist()


def test_order_of_the_names() -> None:
    assert sets_of("b|a", "", "c|b|b") == (("a", "b", "c"), [[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    assert sets_of("b|a", class_names=("b", "x", "a")) == (("b", "x", "a"), [[1, 0, 1]])
    assert sets_of("10|9", "9") == (("9", "10"), [[1, 1], [1, 0]])
    assert sets_of("2|0", class_names=("sky", "sea", "sun")) == (("sky", "sea", "sun"), [[1, 0, 1]])
    assert sets_of("2|0", num_classes=4) == (("0", "1", "2", "3"), [[1, 0, 1, 0]])


def test_names_that_are_no_label() -> None:
    with pytest.raises(DataError, match=r"2 labels of 1 values") as error:
        sets_of("car|tre", "tree", "tre|tree", class_names=("car", "tree"))
    assert error.value.nearest == "tree"
    assert "'tre' (row 0)" in str(error.value.given)
    with pytest.raises(ConfigError, match=r"num_classes contradicts data\.class_names"):
        sets_of("a", class_names=("a",), num_classes=2)
    with pytest.raises(DataError, match="num_classes contradicts the labels"):
        sets_of("a|b|c", num_classes=2)


def test_rows_that_cannot_be_used_are_told() -> None:
    found: list[DataError] = []
    cells = PackedStrings.from_strings(["a", "x|a", "", "x"])
    _, _, wrong = encode_sets(cells, "|", where, ("a", "b"), None, found.append)
    assert wrong.tolist() == [False, True, False, True]
    columns = {"a": PackedStrings.from_strings(["1", "2", "0", "maybe"])}
    sets, _, wrong = encode_flags(columns, where, None, None, found.append)
    assert wrong.tolist() == [False, True, False, True]
    assert sets.rows([0, 1, 2, 3]).tolist() == [[1], [255], [0], [255]]
    assert len(found) == 2
    assert found[1].summary == "2 cells of column a are neither yes nor no"
    assert found[1].given == "'2' (row 1), 'maybe' (row 3)"
    assert "true or false" in str(found[1].expected)


def test_columns_and_class_names() -> None:
    cell = PackedStrings.from_strings(["1", "0"])
    sets, names, _ = encode_flags({"b": cell}, where, ("a", "b"), None, refuse)
    assert (names, sets.rows([0, 1]).tolist()) == (("a", "b"), [[255, 1], [255, 0]])
    sets, names, _ = encode_flags({"1": cell, "0": cell}, where, ("a", "b"), None, refuse)
    assert (names, sets.rows([0, 1]).tolist()) == (("a", "b"), [[1, 1], [0, 0]])
    with pytest.raises(DataError, match="not among the 2 class names") as error:
        encode_flags({"tre": cell}, where, ("car", "tree"), None, refuse)
    assert error.value.nearest == "tree"
    with pytest.raises(ConfigError, match="several columns are one label"):
        encode_flags({"1": cell, "01": cell}, where, ("a", "b"), None, refuse)
    with pytest.raises(ConfigError, match=r"contradicts data\.target"):
        encode_flags({"a": cell}, where, None, 2, refuse)


def test_what_looks_like_a_set() -> None:
    assert is_set("a|b", "|")
    assert is_set(list_text([]), "|")
    for cell in ("", "a", "a|", "|", " | b", "a;b"):
        assert not is_set(cell, "|")
