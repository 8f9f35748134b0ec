"""Rows of single images: kept in their order, with what is worth a look."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.errors import DataError
from lightning_vision.reports.per_image import KEPT, Lowest, PerImageTable
from lightning_vision.tasks.base import PerImage


@given(st.lists(st.one_of(st.integers(-5, 5).map(float), st.just(float("nan"))), max_size=40), st.integers(1, 9))
def test_the_lowest_are_those_of_a_sorted_list(values: list[float], size: int) -> None:
    lowest, rows = Lowest(4), np.arange(len(values))
    for start in range(0, len(values), size):
        lowest.add(np.array(values[start : start + size]), rows[start : start + size])
    lowest.gather()
    known = [(value, row) for row, value in enumerate(values) if value == value]
    assert lowest.rows.tolist() == [row for _, row in sorted(known)[:4]]


def table(out: Path, paths: list[str], names: tuple[str, ...] = ("one",)) -> PerImageTable:
    def per_image(scores: Any, head: Any, output: torch.Tensor, target: None) -> PerImage:
        texts = [f'a,"{value:.0f}"\nb' for value in output.tolist()]
        return PerImage({"score": output, "text": texts}, output, None)

    head = SimpleNamespace(task=SimpleNamespace(per_image=per_image), target=lambda batch: None, test_scores=None)
    module = SimpleNamespace(
        names=names,
        named_heads=lambda: [(name, head) for name in names],
        prefix=lambda name: f"{name}/" if len(names) > 1 else "",
    )
    data = SimpleNamespace(index=SimpleNamespace(image_path=paths.__getitem__))
    return PerImageTable(module, data, out)  # type: ignore[arg-type]


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    paths = ['grün, "x".png', "line\nbreak.png", "\udcff.png"]
    rows = table(tmp_path / "per_image.csv", paths)
    rows.add({"index": torch.tensor([0, 1])}, {"one": torch.tensor([1.0, torch.nan])})  # type: ignore[dict-item]
    rows.add({"index": torch.tensor([2])}, {"one": torch.tensor([3.0])})  # type: ignore[dict-item]
    rows.finish()
    with (tmp_path / "per_image.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        found = list(csv.DictReader(file))
    assert [row["path"] for row in found] == paths
    assert [row["score"] for row in found] == ["1", "", "3"]
    assert found[0]["text"] == 'a,"1"\nb'
    assert rows.worst("one").tolist() == [2, 0]
    assert rows.prominent("one").tolist() == []


def test_several_processes_give_the_table_of_one(tmp_path: Path, monkeypatch: Any) -> None:
    from lightning_vision.reports import per_image

    paths = [f"{i}.png" for i in range(31)]
    values = torch.arange(31).float() * 7 % 31
    one = table(tmp_path / "one.csv", paths, ("a", "b"))
    one.add({"index": torch.arange(31)}, {"a": values, "b": -values})  # type: ignore[dict-item]
    one.finish()
    ranks = [table(tmp_path / "two.csv", paths, ("a", "b")) for _ in range(2)]
    for rank, mine in enumerate(ranks):
        for rows in torch.arange(rank, 31, 2).split(3):
            mine.add({"index": rows}, {"a": values[rows], "b": -values[rows]})  # type: ignore[dict-item]
    other = {
        "columns": [ranks[1]._columns],
        "lines": ranks[1]._lines(),
        "lowest": [[(low.values, low.rows)] for low in (*ranks[1]._worst.values(), *ranks[1]._prominent.values())],
    }
    answers = iter([*other["lowest"], other["columns"]])
    monkeypatch.setattr(per_image, "rank_and_world", lambda: (0, 2))
    monkeypatch.setattr(per_image, "gathered", lambda mine: [*mine, *next(answers)])
    monkeypatch.setattr(per_image, "gathered_by_first", lambda mine: [*mine, *other["lines"]])
    ranks[0].finish()
    ranks[1].close()
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    for name in ("a", "b"):
        assert ranks[0].worst(name).tolist() == one.worst(name).tolist()
        assert len(one.worst(name)) == KEPT


def test_a_split_without_images_has_a_table_without_rows(tmp_path: Path) -> None:
    table(tmp_path / "made" / "per_image.csv", []).finish()
    assert (tmp_path / "made" / "per_image.csv").read_text() == "path\n"


def test_rows_wait_where_the_table_is_going_to_be(tmp_path: Path, monkeypatch: Any) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no room in the system's own place")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    rows = table(tmp_path / "run" / "per_image.csv", ["0.png"])
    rows.add({"index": torch.tensor([0])}, {"one": torch.tensor([1.0])})  # type: ignore[dict-item]
    rows.close()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match="run"):
        table(tmp_path / "run" / "per_image.csv", [])
