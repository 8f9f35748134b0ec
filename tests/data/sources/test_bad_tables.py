"""Tables that are odd or wrong: each is read right, or refused by row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import write_image, write_table


def read(path: Path, wanted: str | None = "label", strict: bool = True, **settings: Any) -> SampleIndex:
    return TableSource(str(path), **settings).read(wanted, 0, strict)  # type: ignore[arg-type]


def labelled(folder: Path, labels: list[str], splits: list[str] | None = None) -> Path:
    rows: list[dict[str, object]] = []
    for i, label in enumerate(labels):
        write_image(folder / f"{i}.png", 2, 2, seed=i)
        rows.append({"image": f"{i}.png", "label": label} | ({"split": splits[i]} if splits else {}))
    return write_table(folder / "t.csv", rows)


def messages(index: SampleIndex, severity: str) -> str:
    return "\n".join(p.message for p in index.problems if p.severity == severity)


def test_names_that_need_quotes(tmp_path: Path) -> None:
    names = ["with space.png", "a, b.png", "ünï\u4e2d.png", "line\nend.png", 'quo"te.png', "(1)=x.png"]
    for i, name in enumerate(names):
        write_image(tmp_path / name, 2, 2, seed=i)
    path = write_table(tmp_path / "t.csv", [{"image": n, "label": i % 2} for i, n in enumerate(names)])
    assert [Path(p).name for p in read(path).image] == names


def test_a_large_cell_that_is_not_needed(tmp_path: Path) -> None:
    for i in range(2):
        write_image(tmp_path / f"{i}.png", 2, 2, seed=i)
    rows = [{"image": f"{i}.png", "notes": "x" * 10_000_000, "label": "ab"[i]} for i in range(2)]
    assert len(read(write_table(tmp_path / "t.csv", rows), val_fraction=0, test_fraction=0)) == 2


def test_a_large_cell_that_is_no_path(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [{"image": "x" * 10_000_000, "label": "a"}])
    with pytest.raises(DataError, match="1 of 1 image files do not exist") as error:
        read(path)
    assert "row 2: " in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("content", "where"),
    [(b"image,label\na.png,x\nb\0.png,y\n", "row 3, column image"), (b"ima\0ge,label\na.png,x\n", "the header")],
)
def test_nul_bytes(tmp_path: Path, content: bytes, where: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"{where} holds a NUL byte"):
        read(tmp_path / "t.csv", image="image" if where != "the header" else None)


def test_utf16_without_a_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("image,label\na.png,x\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="NUL byte"):
        read(tmp_path / "t.csv")


def test_one_number_in_two_ways(tmp_path: Path) -> None:
    index = read(labelled(tmp_path, ["01", "1", "2", "10"]))
    assert index.target is not None
    assert index.target.class_names == ("1", "2", "10")
    assert "one class: 01 (row 2) and 1 (row 3)" in messages(index, "note")
    path = labelled(tmp_path, ["1", "2", "1.0", "2"])
    with pytest.raises(DataError, match="one number written in different ways") as error:
        read(path)
    assert error.value.given == "1 (row 2) and 1.0 (row 4)"
    named = read(path, class_names=["1", "1.0", "2"], val_fraction=0, test_fraction=0)
    assert named.label is not None
    assert named.label.tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10.0", "2.0", "1.0"], ("1.0", "2.0", "10.0")),
        (["0.5", "-1", "12", ".25"], ("-1", ".25", "0.5", "12")),
        (["10.0", "2.0", "x"], ("10.0", "2.0", "x")),
    ],
)
def test_numbers_are_in_their_order_as_they_are_written(
    tmp_path: Path, labels: list[str], names: tuple[str, ...]
) -> None:
    index = read(labelled(tmp_path, labels), val_fraction=0, test_fraction=0)
    assert index.target is not None
    assert index.label is not None
    assert index.target.class_names == names
    assert [names[i] for i in index.label] == labels


def test_words_for_missing_values_are_classes_and_said_to_be(tmp_path: Path) -> None:
    index = read(labelled(tmp_path, ["a", "nan", "a", "none"]), val_fraction=0, test_fraction=0)
    assert "stand for a missing value are classes here: nan (row 3)" in messages(index, "warning")


def test_one_row(tmp_path: Path) -> None:
    assert len(read(labelled(tmp_path, ["a"]), None)) == 1
    with pytest.raises(DataError, match="one label"):
        read(labelled(tmp_path, ["a"]))


def test_a_class_with_one_example_stays_in_train(tmp_path: Path) -> None:
    index = read(labelled(tmp_path, [*"ab" * 10, "c"]), val_fraction=0.3, test_fraction=0.3)
    assert index.split[-1] == 0


def test_repeated_rows_are_kept_and_counted(tmp_path: Path) -> None:
    path = labelled(tmp_path, ["a", "b", "a"])
    path.write_text(path.read_text() + "0.png,a\n0.png,a\n")
    index = read(path, val_fraction=0, test_fraction=0)
    assert len(index) == 5
    assert "2 rows repeat the image of another row" in messages(index, "note")
    assert "row 2, row 5, row 6" in messages(index, "note")


def test_an_empty_split_cell_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column split are empty\n  given: +row 3"):
        read(labelled(tmp_path, ["a", "b"], ["train", ""]))


def test_groups_in_several_splits_are_named(tmp_path: Path) -> None:
    path = labelled(tmp_path, ["a", "b", "a", "b"], ["train", "train", "val", "test"])
    lines = path.read_text().splitlines()
    patients = ["patient", "p1", "p2", "p1", "p3"]
    path.write_text("\n".join(f"{line},{p}" for line, p in zip(lines, patients, strict=True)))
    assert "1 of 3 groups are in more than one split: p1 (train, val)" in messages(
        read(path, group="patient"), "warning"
    )
    assert messages(read(path), "warning") == ""


def test_groups_stay_whole_where_val_is_drawn_from_train(tmp_path: Path) -> None:
    path = labelled(tmp_path, ["a", "b"] * 10, ["train"] * 16 + ["test"] * 4)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",video", *(f"{line},v{i // 4}" for i, line in enumerate(lines[1:]))]))
    index = read(path, group="video", val_fraction=0.25)
    assert index.counts() == {"train": 12, "val": 4, "test": 4}
    assert messages(index, "warning") == ""


@pytest.mark.parametrize("split", [True, False])
def test_one_group_leaves_no_val(tmp_path: Path, split: bool) -> None:
    path = labelled(tmp_path, list("abab"))
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{header},video,split", *(f"{row},v,train" for row in rows)]
    path.write_text("\n".join(line if split else line.rpartition(",")[0] for line in lines), encoding="utf-8")
    index = read(path, group="video")
    assert index.counts() == {"train": 4, "val": 0, "test": 0}
    assert "none could be drawn: the 4 samples belong to 1 group (data.group)" in messages(index, "warning")
    assert "became val" not in messages(index, "note")
