from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_vision.data.sources.delimited import Delimited
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import mask_table, write_image, write_mask, write_table

CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',;"\n\t|'), max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv")


@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=10),
    line_end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", "\t", ";"]),
    mark=st.sampled_from(["", "\ufeff"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_cells_come_back(
    folder: Path, rows: list[tuple[str, str, str]], line_end: str, delimiter: str, mark: str, quoting: int
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(["image", "label", "split"])
    writer.writerows(rows)
    path = folder / "t.csv"
    path.write_bytes((mark + text.getvalue()).encode())
    table = Delimited(str(path))
    assert (table.header, table.delimiter) == (["image", "label", "split"], delimiter)
    columns, numbers, ragged = table.columns(["split", "image"])
    assert ragged == []
    assert numbers.tolist() == list(range(2, len(rows) + 2))
    assert list(columns[0]) == [row[2].strip() for row in rows]
    assert list(columns[1]) == [row[0].strip() for row in rows]


def images(folder: Path, count: int) -> list[str]:
    return [write_image(folder / f"{i}.png", 4, 4, seed=i).name for i in range(count)]


def read(table: Path, wanted: str | None = "label", strict: bool = True, **settings_: object):  # type: ignore[no-untyped-def]
    return TableSource(str(table), **settings_).read(wanted, 0, strict)  # type: ignore[arg-type]


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_labels_and_splits(tmp_path: Path) -> None:
    names = images(tmp_path, 4)
    kinds = zip(names, ["b", "a", "a", "b"], ["Train", "training", "valid", "TEST"], strict=True)
    table = write_table(tmp_path / "t.csv", [{"Filename": n, "Class": c, "subset": s} for n, c, s in kinds])
    index = read(table)
    assert index.target.class_names == ("a", "b")
    assert index.label.tolist() == [1, 0, 0, 1]
    assert index.split.tolist() == [0, 0, 1, 2]
    assert index.image_path(2) == str(tmp_path / "2.png")
    assert index.is_split


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_forms_of_tables(tmp_path: Path, name: str, encoding: str) -> None:
    names = images(tmp_path, 4)
    delimiter = "\t" if name == "t.tsv" else ";"
    lines = [f'"image"{delimiter}"label"', *(f'"{n}"{delimiter}"ü, ""{i % 2}"""' for i, n in enumerate(names)), ""]
    (tmp_path / name).write_bytes("\r\n".join(lines).encode(encoding))
    assert read(tmp_path / name).target.class_names == ('ü, "0"', 'ü, "1"')


def test_masks(tmp_path: Path) -> None:
    index = read(mask_table(tmp_path), "mask")
    assert index.target.kind == "mask"
    assert index.target.num_classes == 3
    assert index.label is None
    assert index.mask_path(0) == str(tmp_path / "masks/0.png")


def test_only_images(tmp_path: Path) -> None:
    index = read(mask_table(tmp_path), None)
    assert (index.target, index.label, index.mask) == (None, None, None)


def test_both_targets_in_one_table(tmp_path: Path) -> None:
    names = images(tmp_path, 4)
    write_mask(tmp_path / "m.png", [[0, 1]])
    table = write_table(
        tmp_path / "t.csv",
        [{"image": n, "target": "m.png", "label": i % 2, "split": "train"} for i, n in enumerate(names)],
    )
    assert read(table, "label", val_fraction=0).target.kind == "label"
    assert read(table, "mask", val_fraction=0).mask_path(0) == str(tmp_path / "m.png")
    with pytest.raises(ConfigError, match="the decoder needs a mask an image") as error:
        read(table, "mask", target="label")
    assert error.value.overrides == ["decoder=classifier", "data.target=target"]


def test_the_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the decoder needs one label an image") as error:
        read(mask_table(tmp_path), "label")
    assert error.value.overrides == ["decoder=unet"]


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.csv", [{"foto": n, "sort": "a"} for n in images(tmp_path, 2)])
    with pytest.raises(ConfigError) as error:
        read(table)
    assert error.value.overrides == ["data.image=foto"]
    with pytest.raises(ConfigError) as error:
        read(table, image="foto")
    assert error.value.overrides == ["data.target=sort"]
    with pytest.raises(ConfigError, match="foto, sort") as error:
        read(table, image="fotos")
    assert error.value.nearest == "foto"
    assert error.value.overrides == ["data.image=foto"]


def test_tables_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read(tmp_path / "no.csv")
    with pytest.raises(ConfigError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.path=FILE"):
        TableSource("").read(None, 0)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read(tmp_path / "empty.csv")
    with pytest.raises(DataError, match="no samples"):
        read(write_lines(tmp_path / "header.csv", "image,label"))
    with pytest.raises(DataError, match="first row holds data"):
        read(write_lines(tmp_path / "headless.csv", "a.jpg,cat", "b.jpg,dog"))
    with pytest.raises(DataError, match="a column twice"):
        read(write_lines(tmp_path / "twice.csv", "image,label,label", "a.jpg,1,2"))
    with pytest.raises(DataError, match="line"):
        read(write_lines(tmp_path / "quote.csv", "image,label", 'a.jpg,"b'))
    (tmp_path / "latin.csv").write_bytes("image,label\na.jpg,hütte\n".encode("latin-1"))
    with pytest.raises(DataError, match="not utf-8"):
        read(tmp_path / "latin.csv")


def test_rows_with_holes_are_named(tmp_path: Path) -> None:
    names = images(tmp_path, 4)
    lines = [
        "image,label,split",
        f"{names[0]},a,train",
        f"{names[1]},,train",
        "",
        f"{names[2]},b,train",
        f"{names[3]},b",
    ]
    table = write_lines(tmp_path / "t.csv", *lines)
    with pytest.raises(DataError, match="row 6 has 2 cells"):
        read(table)
    index = read(table, strict=False, val_fraction=0)
    errors = [p.message for p in index.problems if p.severity == "error"]
    assert len(errors) == 2
    assert "row 6" in errors[0]
    assert "column label are empty\n  given:        row 3" in errors[1]
    assert [Path(p).name for p in index.image] == ["0.png", "2.png"]


def test_unknown_splits_are_named(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "t.csv", "image,label,split", *(f"{n},a,trian" for n in images(tmp_path, 1)))
    with pytest.raises(DataError, match="row 2") as error:
        read(table)
    assert error.value.given == "'trian'"
    assert error.value.nearest == "train"


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    names = images(tmp_path, 2) + [f"gone/{i}.png" for i in range(9)]
    table = write_table(tmp_path / "t.csv", [{"image": n, "label": i % 2} for i, n in enumerate(names)])
    with pytest.raises(DataError, match="9 of 11 image files do not exist") as error:
        read(table)
    text = str(error.value)
    assert f"row 4: {tmp_path}/gone/0.png" in text
    assert "row 9" not in text
    assert "4 more" in text


def test_root_and_absolute_paths(tmp_path: Path) -> None:
    names = images(tmp_path / "data" / "x", 4)
    absolute = [str(tmp_path / "data" / "x" / names[0]), "./" + names[1], "../x/" + names[2], names[3]]
    table = write_table(tmp_path / "t.csv", [{"image": n, "label": i % 2} for i, n in enumerate(absolute)])
    index = read(table, root="data/x")
    assert sorted(index.image) == [str(tmp_path / "data" / "x" / n) for n in names]


def labelled(folder: Path, values: list[object], splits: list[str] | None = None) -> Path:
    names = images(folder, len(values))
    rows = [{"image": n, "label": v} for n, v in zip(names, values, strict=True)]
    for row, split in zip(rows, splits or [], strict=False):
        row["split"] = split
    return write_table(folder / "t.csv", rows)


def test_integers_are_sorted_as_numbers(tmp_path: Path) -> None:
    index = read(labelled(tmp_path, [10, 9, 2, 9]))
    assert index.target.class_names == ("2", "9", "10")
    assert index.label.tolist() == [2, 1, 0, 1]


def test_num_classes(tmp_path: Path) -> None:
    table = labelled(tmp_path, [0, 2, 0, 2])
    assert read(table, num_classes=4).label.tolist() == [0, 2, 0, 2]
    with pytest.raises(DataError, match=r"num_classes=2, and \d+ distinct|num_classes=2"):
        read(labelled(tmp_path, ["a", "b", "c"]), num_classes=2)
    with pytest.raises(ConfigError, match="num_classes=3, and 2 class names"):
        read(table, num_classes=3, class_names=["a", "b"])


def test_class_names(tmp_path: Path) -> None:
    names = write_lines(tmp_path / "classes.txt", "dog", "cat", "bird")
    table = labelled(tmp_path, ["cat", "dog", "cat"], ["train"] * 3)
    for given_ in ("classes.txt", str(names), ["dog", "cat", "bird"]):
        index = read(table, class_names=given_, val_fraction=0)
        assert index.target.class_names == ("dog", "cat", "bird")
        assert index.label.tolist() == [1, 0, 1]
    assert any("without any sample: bird" in p.message for p in index.problems)
    # Integers are positions.
    assert read(labelled(tmp_path, [2, 0, 1]), class_names="classes.txt").label.tolist() == [2, 0, 1]
    # Unless names are numbers.
    with pytest.raises(DataError, match="'0'"):
        read(labelled(tmp_path, [0, 1, 2]), class_names=["1", "2", "3"])
    with pytest.raises(DataError, match=r"'7' \(row 3\)"):
        read(labelled(tmp_path, [0, 7, 1]), class_names="classes.txt")
    with pytest.raises(DataError, match=r"'cta' \(row 2\)") as error:
        read(labelled(tmp_path, ["cta", "dog", "cat"]), class_names="classes.txt")
    assert error.value.nearest == "cat"
    for wrong, word in (
        ("nowhere.txt", "is no file"),
        ([], "no class names"),
        (["a", "a"], "twice"),
        (["a", ""], "empty"),
    ):
        with pytest.raises(ConfigError, match=word):
            read(table, class_names=wrong)


def test_classes_that_are_never_trained(tmp_path: Path) -> None:
    table = labelled(tmp_path, ["a", "b", "c"], ["train", "train", "test"])
    with pytest.raises(DataError, match=r"in test but not in train: c \(1\)") as error:
        read(table, val_fraction=0)
    assert error.value.overrides == ["data.class_names=[a,b,c]"]
    index = read(table, class_names=["a", "b", "c"], val_fraction=0)
    assert [p.severity for p in index.problems] == ["warning"]
    # Data for test alone train nothing.
    assert read(labelled(tmp_path, ["a", "b"], ["test", "test"])).counts()["test"] == 2


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one label"):
        read(labelled(tmp_path, ["a", "a"]))


def test_one_image_twice(tmp_path: Path) -> None:
    name = images(tmp_path, 1)[0]
    other = write_image(tmp_path / "other.png").name
    table = write_lines(
        tmp_path / "t.csv", "image,label,split", f"{name},a,train", f"{other},b,train", f"{name},b,test"
    )
    index = read(table, val_fraction=0)
    messages = [p.message for p in index.problems if p.severity == "warning"]
    assert len(messages) == 2
    assert "different labels" in messages[0]
    assert "a (row 2), b (row 4)" in messages[0]
    assert "more than one split" in messages[1]


def test_random_splits_are_stratified_and_seeded(tmp_path: Path) -> None:
    table = labelled(tmp_path, [i % 2 for i in range(40)])
    index = read(table, val_fraction=0.2, test_fraction=0.1)
    assert index.counts() == {"train": 28, "val": 8, "test": 4}
    assert not index.is_split
    assert np.bincount(index.label[index.rows("val")]).tolist() == [4, 4]
    assert read(table).split.tolist() == read(table).split.tolist()
    assert TableSource(str(table)).read("label", 1).split.tolist() != read(table).split.tolist()


def test_val_is_drawn_from_train_where_it_is_missing(tmp_path: Path) -> None:
    table = labelled(tmp_path, [i % 2 for i in range(20)], ["train"] * 16 + ["test"] * 4)
    index = read(table, val_fraction=0.25)
    assert index.counts() == {"train": 12, "val": 4, "test": 4}
    assert index.split[16:].tolist() == [2] * 4
    assert [p.severity for p in index.problems] == ["note"]
    assert read(table, val_fraction=0).counts() == {"train": 16, "val": 0, "test": 4}


def test_lenient_reading_collects_everything(tmp_path: Path) -> None:
    names = images(tmp_path, 3)
    lines = [
        "image,label,split",
        f"{names[0]},a,train",
        f"{names[1]},x,train",
        f"{names[2]},b,tain",
        "gone.png,b,train",
    ]
    index = read(write_lines(tmp_path / "t.csv", *lines), strict=False, class_names=["a", "b"], val_fraction=0)
    text = "\n".join(p.message for p in index.problems if p.severity == "error")
    for word in ("gone.png", "'x' (row 3)", "'tain'"):
        assert word in text
    assert index.label.tolist() == [0, 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    labels=st.lists(st.sampled_from(["a", "b", "10", "9", "ü"]), min_size=2, max_size=12).filter(
        lambda x: len({*x}) > 1
    )
)
def test_names_and_ids_agree(folder: Path, labels: list[str]) -> None:
    image = folder / "one.png"
    if not image.exists():
        write_image(image)
    table = write_table(folder / "labels.csv", [{"image": image.name, "label": v, "split": "train"} for v in labels])
    index = read(table, val_fraction=0)
    assert [index.target.class_names[i] for i in index.label] == labels


@pytest.mark.real_data
def test_camvid(data_root: Path) -> None:
    index = read(_set(data_root, "camvid"), "mask", ignore_index=11, class_names="classes.txt")
    assert index.counts() == {"train": 120, "val": 40, "test": 40}
    assert index.target.num_classes == 11
    assert index.target.palette[0] == (128, 128, 128)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "kind"), [("index.csv", "index"), ("index_255.csv", "binary")])
def test_nuclei(data_root: Path, name: str, kind: str) -> None:
    target = read(_set(data_root, "nuclei").with_name(name), "mask").target
    assert (target.mask_values, target.num_classes) == (kind, 2)


def _set(data_root: Path, name: str) -> Path:
    return next(p for p in (data_root / name, data_root / "data" / name) if p.is_dir()) / "index.csv"


def test_proposed_columns_are_quoted_for_the_shell(tmp_path: Path) -> None:
    name = images(tmp_path, 1)[0]
    table = write_lines(tmp_path / "t.csv", "the photo,label", f"{name},a")
    with pytest.raises(ConfigError) as error:
        read(table)
    assert error.value.overrides == ["\"data.image='the photo'\""]
