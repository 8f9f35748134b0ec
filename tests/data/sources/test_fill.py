from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.fill import Absent
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image, write_mask

LINES = [
    "image,label,split",
    "0.png,a,train",  # row 2
    ",b,train",
    "1.png,b,test",
    "2.png,b,train",
    "3.png,a,val",
    "2.png,b,train",
    ",a,val",
    ",a,test",  # row 9
]


def table(folder: Path, lines: list[str] = LINES) -> Path:
    for i in range(4):
        write_image(folder / f"{i}.png", 6 + i, 8, seed=i)
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(
    path: Path, strategy: str, fill: Any = None, wanted: str = "label", strict: bool = True, **more: Any
) -> SampleIndex:
    preprocessing = Preprocessing(
        missing_value_strategy=strategy,  # type: ignore[arg-type]
        fill_value=fill,
        lazy_cache_dir=str(path.parent / "cache"),
    )
    return TableSource(str(path), **more).read(wanted, 0, strict, preprocessing)  # type: ignore[arg-type]


def rows(index: SampleIndex) -> list[tuple[str, str, str]]:
    """Name of the image, label and split of every row."""
    assert index.label is not None
    assert index.target is not None
    names = [Path(path).name for path in index.image]
    labels = [index.target.class_names[i] for i in index.label]
    return [(n, c, ("train", "val", "test")[s]) for n, c, s in zip(names, labels, index.split, strict=True)]


def notes(index: SampleIndex) -> str:
    return "\n".join(problem.message for problem in index.problems if problem.severity == "note")


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 cells of column image are empty") as error:
        read(table(tmp_path), "error")
    assert error.value.given == "row 3, 8, 9"
    assert error.value.overrides == ["preprocessing.missing_value_strategy=drop_row"]


def test_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = [*LINES, "0.png,,train"]
    index = read(table(tmp_path, lines), "drop_row")
    assert [name for name, *_ in rows(index)] == ["0.png", "1.png", "2.png", "3.png", "2.png"]
    assert "1 cells of column label are empty" in notes(index)
    assert "row 10" in notes(index)
    assert "row 3, 8, 9" in notes(index)


def test_the_next_row_of_the_same_split(tmp_path: Path) -> None:
    path = table(tmp_path, [*LINES, "0.png,a,val", "1.png,a,test"])
    index = read(path, "bfill")
    found = rows(index)
    assert found[1] == ("2.png", "b", "train"), "image and target come from one row"
    assert found[6] == ("0.png", "a", "val")
    assert found[7] == ("1.png", "a", "test")
    assert len(found) == 10
    assert "3 rows have no image" in notes(index)
    assert "row 3, 8, 9" in notes(index)


def test_nothing_to_take_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 rows have no image in column image, and none") as error:
        read(table(tmp_path), "bfill")
    assert "row 8, 9" in str(error.value.given)
    index = read(table(tmp_path), "bfill", strict=False)
    assert len(index) == 6
    assert [p.severity for p in index.problems].count("error") == 1


def test_the_previous_row_of_the_same_split(tmp_path: Path) -> None:
    found = rows(read(table(tmp_path), "ffill"))
    assert found[1] == ("0.png", "a", "train")
    assert found[6] == ("3.png", "a", "val")
    assert found[7] == ("1.png", "b", "test")


def test_the_most_frequent_row_of_the_same_split(tmp_path: Path) -> None:
    found = rows(read(table(tmp_path), "fill_with_mode"))
    assert found[1] == ("2.png", "b", "train")
    assert found[6] == ("3.png", "a", "val")
    assert found[7] == ("1.png", "b", "test")


@given(
    rows_=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=30),
    strategy=st.sampled_from(["bfill", "ffill", "fill_with_mode"]),
)
def test_no_row_comes_from_another_split(rows_: list[tuple[bool, int]], strategy: str) -> None:
    there = [part for empty, part in rows_ if not empty]
    before = [sum(not e for e, _ in rows_[:i]) for i, (empty, _) in enumerate(rows_) if empty]
    parts = np.array([part for empty, part in rows_ if empty], np.uint8)
    given_ = np.array(there, np.uint8)
    absent = Absent(strategy, np.array(before, np.int64), parts, np.zeros(len(before), np.int64), ["image"])
    donors = absent.donors(given_, given_, PackedStrings.from_strings("x" * len(there)))
    for place, part, donor in zip(before, parts.tolist(), donors.tolist(), strict=True):
        after = [i for i in range(place, len(there)) if there[i] == part]
        earlier = [i for i in range(place) if there[i] == part]
        fitting = {"bfill": after[:1], "ffill": earlier[-1:], "fill_with_mode": (earlier + after)[:1]}[strategy]
        assert donor == (fitting[0] if fitting else -1)


@pytest.mark.parametrize("strategy", ["bfill", "ffill", "fill_with_mode"])
def test_in_a_drawn_split_a_copy_goes_where_its_row_goes(tmp_path: Path, strategy: str) -> None:
    lines = ["image,label", *(f"{i}.png,{'ab'[i % 2]}" for i in range(40))]
    for at in (30, 20, 10):
        lines.insert(at, ",a")
    for i in range(40):
        write_image(tmp_path / f"{i}.png", 2, 2, seed=i)
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    index = read(path, strategy, val_fraction=0.3, test_fraction=0.3)
    assert len(index) == 43
    parts: dict[str, set[int]] = {}
    for image, part in zip(index.image, index.split.tolist(), strict=True):
        parts.setdefault(image, set()).add(part)
    assert all(len(found) == 1 for found in parts.values())


def test_a_grey_value(tmp_path: Path) -> None:
    index = read(table(tmp_path), "fill_with_const", 90)
    found = rows(index)
    assert [(c, s) for _, c, s in found] == [tuple(line.split(",")[1:]) for line in LINES[1:]], "targets are their own"
    with Image.open(index.image_path(1)) as image:
        assert (image.size, image.mode) == ((8, 6), "RGB")
        assert np.unique(np.asarray(image)).tolist() == [90]
    assert str(tmp_path / "cache") in index.image_path(1)
    assert "constant" in notes(index)
    assert "row 3, 8, 9" in notes(index)
    assert not [p for p in index.problems if p.severity == "warning"]


def test_a_constant_has_the_size_of_the_mask(tmp_path: Path) -> None:
    for i, shape in enumerate(((3, 5), (7, 4))):
        write_mask(tmp_path / f"m{i}.png", np.arange(shape[0] * shape[1]).reshape(shape) % 2)
    write_image(tmp_path / "0.png", 3, 5, "L")
    path = tmp_path / "t.csv"
    path.write_text("image,mask,split\n0.png,m0.png,train\n,m1.png,train\n", encoding="utf-8")
    index = read(path, "fill_with_const", 255, "mask", val_fraction=0)
    with Image.open(index.image_path(1)) as image:
        assert (image.size, image.mode) == ((4, 7), "L")


def test_an_unreadable_first_image_tells_no_size(tmp_path: Path) -> None:
    path = table(tmp_path)
    (tmp_path / "0.png").write_bytes(b"torn")
    with Image.open(read(path, "fill_with_const", 90).image_path(1)) as image:
        assert image.size == (8, 7), "that of 1.png"
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"torn")
    with pytest.raises(DataError, match="none of the first 5 images can be read"):
        read(path, "fill_with_const", 90)


@pytest.mark.parametrize("fill", [7, "gone.png"])
def test_what_cannot_be_filled_is_one_problem_of_check(tmp_path: Path, fill: int | str) -> None:
    path = table(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(b"torn")
    index = read(path, "fill_with_const", fill, strict=False)
    assert len(index) == 5
    errors = [p.message for p in index.problems if p.severity == "error"]
    assert len(errors) == 1
    assert "preprocessing.fill_value" in errors[0]


def test_an_unreadable_mask_tells_no_size(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / f"{i}.png", 3, 5, "L", seed=i)
        write_mask(tmp_path / f"m{i}.png", np.eye(3, 5, dtype=np.int64))
    (tmp_path / "m1.png").unlink()
    path = tmp_path / "t.csv"
    rest = "".join(f"{i}.png,m{i}.png,train\n" for i in (2, 3))
    path.write_text(f"image,mask,split\n0.png,m0.png,train\n,m1.png,train\n{rest}", encoding="utf-8")
    index = read(path, "fill_with_const", 255, "mask", strict=False, val_fraction=0)
    with Image.open(index.image_path(1)) as image:
        assert image.size == (5, 3)
    assert [p.severity for p in index.problems if "1 of 4 mask files do not exist" in p.message] == ["error"]


def test_a_path(tmp_path: Path) -> None:
    path = table(tmp_path)
    for given_ in ("3.png", str(tmp_path / "3.png")):
        assert [name for name, *_ in rows(read(path, "fill_with_const", given_))].count("3.png") == 4
    with pytest.raises(ConfigError, match="fill_value is no file"):
        read(path, "fill_with_const", "gone.png")


def test_constants_are_rows_of_their_own_in_a_drawn_split(tmp_path: Path) -> None:
    lines = ["image,label", *("0.png,a" for _ in range(3)), *(f",{'ab'[i % 2]}" for i in range(40))]
    path = table(tmp_path, lines)
    counts = read(path, "fill_with_const", 0, val_fraction=0.2, test_fraction=0.2).counts()
    assert counts["val"] == counts["test"] == 9


@pytest.mark.parametrize(
    ("strategy", "fill", "word"),
    [
        ("fill_with_const", None, "needs preprocessing.fill_value"),
        ("fill_with_const", 256, "no grey value"),
        ("fill_with_const", -1, "no grey value"),
        ("bfill", 3, "fill_with_const alone"),
    ],
)
def test_fill_values_that_mean_nothing(tmp_path: Path, strategy: str, fill: int | None, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read(table(tmp_path), strategy, fill)


def test_all_images_of_a_row_are_taken(tmp_path: Path) -> None:
    lines = ["left,right,label,split", "0.png,1.png,a,train", ",2.png,b,train", "3.png,2.png,b,train"]
    path = table(tmp_path, lines)
    index = read(path, "bfill", inputs=["left", "right"], val_fraction=0)
    assert [Path(p).name for p in index.image] == ["0.png", "3.png", "3.png"]
    assert [Path(p).name for p in index.further[0]] == ["1.png", "2.png", "2.png"]
    filled = read(path, "fill_with_const", 5, inputs=["left", "right"], val_fraction=0)
    assert Path(filled.further[0][1]).name == "2.png", "only what is missing is filled"
    assert Path(filled.image_path(1)).parent.name == "constant"


def test_words_are_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a word is the name of a file"):
        read(table(tmp_path, ["image,label,split", "0.png,a,train", "NaN,b,train"]), "drop_row")
