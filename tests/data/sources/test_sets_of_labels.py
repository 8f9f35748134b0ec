from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.huggingface import HuggingFaceSource
from lightning_vision.data.sources.in_python import settings_of
from lightning_vision.data.sources.shapes import ShapesSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import class_folders, mask_table, write_image, write_mask, write_table

SETS = ["car|tree", "", "tree", "sun | car|car"]
NAMES = ("car", "sun", "tree")
CELLS = [[1, 0, 1], [0, 0, 0], [0, 0, 1], [1, 1, 0]]


def images(folder: Path, count: int) -> list[str]:
    return [write_image(folder / f"{i}.png", 4, 4, seed=i).name for i in range(count)]


def table(folder: Path, **columns: Any) -> Path:
    count = len(next(iter(columns.values())))
    if "image" not in columns:
        columns = {"image": images(folder, count)} | columns
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return write_table(folder / "t.csv", rows)


def read(path: Path, wanted: str | None = "labels", strict: bool = True, **settings: Any) -> SampleIndex:
    drop = {"missing_value_strategy": settings.pop("strategy")} if "strategy" in settings else {}
    fractions = {"val_fraction": 0.0, "test_fraction": 0.0} | settings
    return TableSource(str(path), **fractions).read(wanted, 0, strict, Preprocessing(**drop))  # type: ignore[arg-type]


def cells(index: SampleIndex) -> list[list[int]]:
    assert index.target is not None
    assert index.target.kind == "labels"
    assert index.label is None
    assert index.labels is not None
    found: list[list[int]] = index.labels.rows(np.arange(len(index))).tolist()
    return found


def warnings(index: SampleIndex, severity: str = "warning") -> str:
    return "\n".join(problem.message for problem in index.problems if problem.severity == severity)


def test_names_in_one_cell(tmp_path: Path) -> None:
    path = table(tmp_path, labels=SETS)
    index = read(path)
    assert index.target is not None
    assert index.target.class_names == NAMES
    assert cells(index) == CELLS
    assert cells(read(path, class_names=["tree", "car", "sun"])) == [[row[2], row[0], row[1]] for row in CELLS]
    assert "1 of 4 rows have no label at all" in warnings(index, "note")
    other = table(tmp_path, tags=[text.replace("|", ";") for text in SETS])
    assert cells(read(other, separator=";")) == CELLS
    with pytest.raises(ConfigError, match=r"data\.separator is empty"):
        read(other, separator="")


def test_columns_of_yes_and_no(tmp_path: Path) -> None:
    columns: dict[str, list[str]] = {"car": ["1", "0", "no", "TRUE"], "sun": ["0.0", "", "False", "1.0"]}
    path = table(tmp_path, **columns, tree=["yes", "0", "1", "0"])
    index = read(path, target=["car", "sun", "tree"])
    assert index.target is not None
    assert index.target.class_names == NAMES
    expected = [list(row) for row in CELLS]
    expected[1][1] = 255
    assert cells(index) == expected
    assert cells(read(path, target=["tree"])) == [[row[2]] for row in CELLS]
    with pytest.raises(ConfigError, match=r"data\.target is no column") as error:
        read(path, target=["car", "tre"])
    assert error.value.nearest == "tree"
    for wrong in ([], ["car", "car"]):
        with pytest.raises(ConfigError, match="columns of yes and no, each once"):
            read(path, target=wrong)
    with pytest.raises(ConfigError, match="a set of labels, and one label an image is wanted") as error:
        read(path, "label", target=["car", "sun"])
    assert error.value.overrides == ["task=multilabel", "data.target=car"]


def test_what_is_neither_yes_nor_no(tmp_path: Path) -> None:
    path = table(tmp_path, car=["1", "2", "0", "0"], sun=["1", "0", "1", "x"])
    with pytest.raises(DataError, match="1 cells of column car are neither yes nor no") as error:
        read(path, target=["car", "sun"])
    assert error.value.given == "'2' (row 3)"
    index = read(path, target=["car", "sun"], strict=False)
    assert cells(index) == [[1, 1], [0, 1]]
    assert [p.severity for p in index.problems] == ["error", "error"]


def test_names_that_are_not_listed(tmp_path: Path) -> None:
    path = table(tmp_path, labels=SETS)
    with pytest.raises(DataError, match="not among the 2 class names") as error:
        read(path, class_names=["cars", "tree"])
    assert error.value.nearest == "cars"
    assert cells(read(path, class_names=["cars", "tree"], strict=False)) == [[0, 0], [0, 1]]


def test_a_column_of_single_labels_is_one_of_sets_of_one(tmp_path: Path) -> None:
    index = read(table(tmp_path, label=["b", "a", "a", ""]))
    assert cells(index) == [[0, 1], [1, 0], [1, 0], [0, 0]]
    class_folders(tmp_path / "tree")
    found = FolderSource(str(tmp_path / "tree")).read("labels", 0)
    single = FolderSource(str(tmp_path / "tree")).read("label", 0)
    assert found.target is not None
    assert single.target is not None
    assert single.label is not None
    assert found.target.class_names == single.target.class_names
    assert np.array_equal(np.array(cells(found)).argmax(1), single.label)
    assert set(np.array(cells(found)).sum(1)) == {1}
    drawn = ShapesSource(60, 32, path=str(tmp_path)).read("labels", 0)
    assert cells(drawn) == np.eye(3, dtype=int)[[i % 3 for i in range(60)]].tolist()


def test_no_label_anywhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="column labels: no row has a label"):
        read(table(tmp_path, labels=["", "|"]))
    index = read(tmp_path / "t.csv", strict=False)
    assert index.target is None
    assert index.labels is None


def test_labels_and_splits(tmp_path: Path) -> None:
    splits = ["train", "train", "val", "test"]
    path = table(tmp_path, labels=["a|b", "a", "c|a", "d"], split=splits)
    with pytest.raises(DataError, match=r"labels that occur in val but not in train: c \(1\)") as error:
        read(path)
    assert error.value.overrides == ["data.class_names=[a,b,c,d]"]
    index = read(path, class_names=["a", "b", "c", "d", "e"])
    said = warnings(index)
    assert "labels that occur in test but not in train: d (1)" in said
    assert "labels that no row of train has: e" in said
    assert "labels that every row of train has: a" in said
    source = TableSource(str(path))
    assert "not in train" not in warnings(source.read("labels", 0, coverage=False))
    rest = warnings(source.read("labels", 0, coverage=False))
    assert "labels that no row of train has: c, d" in rest
    unknown = table(tmp_path, a=["1", "", "0", "0"], b=["1", "0", "0", "1"], split=splits)
    assert "every row of train has: a" in warnings(read(unknown, target=["a", "b"]))


def test_two_sets_for_one_image(tmp_path: Path) -> None:
    names = images(tmp_path, 2)
    path = table(tmp_path, image=[names[0]] * 2 + [names[1]] * 2, labels=["a|b", "b", "a|b", "b|a"])
    index = read(path)
    assert "1 images have different labels in different rows" in warnings(index)
    assert "0.png: a|b (row 2), b (row 3)" in warnings(index)
    assert "1 rows repeat the image of another row" in warnings(index, "note")


def test_a_drawn_split_has_rare_labels_in_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rare = ["c0|c1|rare" if i in (3, 60) else f"c0|c{1 + i % 3}" if rng.random() < 0.8 else "c0" for i in range(100)]
    path = table(tmp_path, image=images(tmp_path, 1) * 100, id=list(range(100)), labels=rare)
    for i in range(100):
        write_image(tmp_path / "of" / f"{i}.png", 4, 4, seed=i)
    path = table(tmp_path, image=[f"of/{i}.png" for i in range(100)], labels=rare)
    for seed in range(5):
        index = TableSource(str(path), val_fraction=0.3, test_fraction=0.3).read("labels", seed)
        assert index.labels is not None
        assert (index.labels.counts(index.rows("train"))[0] > 0).all()
        assert index.counts() == {"train": 40, "val": 30, "test": 30}


def test_missing_values(tmp_path: Path) -> None:
    names = images(tmp_path, 4)
    path = table(tmp_path, image=[names[0], "", names[2], names[3]], labels=["a|b", "a", "", "b"])
    assert cells(read(path, strategy="drop_row")) == [[1, 1], [0, 0], [0, 1]]
    assert cells(read(path, strategy="bfill")) == [[1, 1], [0, 0], [0, 0], [0, 1]]
    assert cells(read(path, strategy="ffill")) == [[1, 1], [1, 1], [0, 0], [0, 1]]
    path = table(tmp_path, image=[names[0], "", names[2], names[3]], a=list("1110"), b=list("1011"))
    assert cells(read(path, target=["a", "b"], strategy="fill_with_mode")) == [[1, 1], [1, 1], [1, 1], [0, 1]]
    preprocessing = Preprocessing(missing_value_strategy="fill_with_const", fill_value=0)
    index = TableSource(str(path), target=["a", "b"], val_fraction=0, test_fraction=0).read(
        "labels", 0, True, preprocessing
    )
    assert cells(index) == [[1, 1], [1, 0], [1, 1], [0, 1]]


def test_masks_and_settings_of_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs labels of an image, the data hold a mask") as error:
        read(mask_table(tmp_path))
    assert error.value.overrides == ["decoder=unet"]
    path = table(tmp_path, labels=["a|b", "b"])
    with pytest.raises(ConfigError, match=r"preprocessing\.num_classes is about masks"):
        TableSource(str(path)).read("labels", 0, True, Preprocessing(num_classes=2))
    with pytest.raises(ConfigError, match="the decoder needs a mask an image"):
        TableSource(str(path)).read("mask", 0)


def test_bars_in_a_column_of_single_labels_are_a_warning(tmp_path: Path) -> None:
    labels = ["a", "b"] * 15 + ["a|b"]
    path = table(tmp_path, label=labels)
    assert TableSource(str(path)).target_kind("label") == "label"
    index = read(path, "label")
    assert index.target is not None
    assert index.target.class_names == ("a", "a|b", "b")
    assert "1 labels hold '|' (data.separator), and each is one class here; task=multilabel" in warnings(index)
    assert "'a|b' (row 32)" in warnings(index)
    assert "data.separator" in warnings(read(path, "label", class_names=["a", "b", "a|b"]))
    assert "data.separator" not in warnings(read(path, "label", separator=";"))
    with pytest.raises(DataError, match="not among the 2 class names") as error:
        read(path, "label", class_names=["a", "b"])
    assert error.value.overrides == ["task=multilabel", "data.class_names=null"]


def test_what_the_data_hold(tmp_path: Path) -> None:
    def kind(wanted: str = "label", **settings: Any) -> str | None:
        return TableSource(str(tmp_path / "t.csv"), **settings).target_kind(wanted)  # type: ignore[arg-type]

    names = images(tmp_path, 2)
    table(tmp_path, image=names, label=["a|b", "a"], other=["x", "y"], tags=["p|q", ""])
    assert kind() == "labels"
    assert kind(separator=";") == "label"
    assert kind(target="other") == "label"
    assert kind(target=["other"]) == "label"
    assert kind(target="tags") == "labels"
    assert kind(target=["label", "tags"]) == "labels"
    assert kind("labels", target="other") == "labels"
    assert kind("mask") is None
    with pytest.raises(ConfigError, match=r"data\.target is no column"):
        kind(target="mask")
    index = read(tmp_path / "t.csv")
    assert index.target is not None
    assert index.target.class_names == ("a", "b"), "the column that was asked what it holds"
    table(tmp_path, image=names, label=["a", "b"], labels=["p|q", ""])
    assert kind() == "label"
    assert read(tmp_path / "t.csv").target.class_names == ("p", "q")  # type: ignore[union-attr]
    table(tmp_path, image=names, tags=["a|b", "c"])
    assert kind() == "labels"
    table(tmp_path, image=names, tags=["a", "c"])
    assert kind() is None
    table(tmp_path, image=names, something=["a", "c"])
    assert kind() is None
    mask_table(tmp_path)
    source = TableSource(str(tmp_path / "index.csv"))
    assert (source.target_kind("label"), source.target_kind("mask")) == (None, "mask")
    with pytest.raises(ConfigError, match="does not exist"):
        TableSource(str(tmp_path / "gone.csv")).target_kind("label")


def test_asking_opens_the_table_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = TableSource(str(table(tmp_path, labels=SETS)), val_fraction=0, test_fraction=0)
    opened: list[str] = []
    inner = TableSource._open
    monkeypatch.setattr(TableSource, "_open", lambda self: opened.append(self.path) or inner(self))  # type: ignore[func-returns-value]
    assert source.target_kind("label") == "labels"
    assert cells(source.read("labels", 0)) == CELLS
    assert len(opened) == 1
    table(tmp_path, labels=["a", "b", "a", "b"])
    assert len(source.read("labels", 0).target.class_names) == 2, "a table that changed is read anew"  # type: ignore[union-attr]


def test_what_folders_hold(tmp_path: Path) -> None:
    class_folders(tmp_path / "classes")
    write_image(tmp_path / "flat" / "a.png")
    write_image(tmp_path / "images" / "images" / "a.png")
    write_image(tmp_path / "pairs" / "images" / "a.png")
    write_mask(tmp_path / "pairs" / "masks" / "a.png", [[0, 1]])
    write_image(tmp_path / "split" / "train" / "cat" / "a.png")
    kinds = {
        name: [FolderSource(str(tmp_path / name)).target_kind(wanted) for wanted in ("label", "labels", "mask")]
        for name in ("classes", "flat", "images", "pairs", "split")
    }
    assert kinds == {
        "classes": ["label", "labels", None],
        "flat": [None] * 3,
        "images": [None] * 3,
        "pairs": [None, None, "mask"],
        "split": ["label", "labels", None],
    }
    with pytest.raises(ConfigError, match="does not exist"):
        FolderSource(str(tmp_path / "gone")).target_kind("label")
    assert ShapesSource().target_kind("mask") == "mask"


def test_columns_of_lists(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(column: Any) -> Path:
        pq.write_table(pa.table({"image": images(tmp_path, 4), "labels": column}), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    names = [["car", "tree"], [], ["tree"], ["sun", " car", "car"]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.string())):
        path = write(pa.array(names, kind))
        assert TableSource(str(path)).target_kind("label") == "labels"
        assert cells(read(path)) == CELLS
    ids = [[0, 2], [], [2], [1, 0]]
    index = read(write(pa.array(ids, pa.list_(pa.int64()))), class_names=list(NAMES))
    assert index.target is not None
    assert index.target.class_names == NAMES
    assert cells(index) == CELLS
    assert read(tmp_path / "t.parquet").target.class_names == ("0", "1", "2")  # type: ignore[union-attr]
    with pytest.raises(DataError, match="column labels, row 1: neither text nor a number, but a list") as error:
        read(tmp_path / "t.parquet", "label")
    assert error.value.overrides == ["task=multilabel"]
    with pytest.raises(DataError, match="column labels, row 1: neither text nor a number"):
        read(write(pa.array([[0.5]] * 4, pa.list_(pa.float64()))))
    path = write(pa.array([["a|b"], ["a"], None, ["a"]], pa.list_(pa.string())))
    with pytest.raises(DataError, match="1 cells of column labels are empty"):
        read(path)
    index = read(path, strategy="drop_row")
    assert index.target is not None
    assert index.target.class_names == ("a", "a|b")
    path = write(pa.array(["car|tree", "", "tree", "sun|car"]))
    assert TableSource(str(path)).target_kind("label") == "labels"
    assert cells(read(path)) == CELLS


def test_sequences_of_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    pictures = [np.full((4, 4, 3), i, np.uint8) for i in range(4)]
    order = ["tree", "car", "sun"]
    ids = [[order.index(name.strip()) for name in text.split("|") if name] for text in SETS]
    expected = [[row[NAMES.index(name)] for name in order] for row in CELLS]

    def dataset(feature: Any, values: Any) -> Any:
        features = datasets.Features({"photo": datasets.Image(), "labels": feature})
        return datasets.Dataset.from_dict({"photo": pictures, "labels": values}, features=features)

    of_ids = dataset(datasets.Sequence(datasets.ClassLabel(names=order)), ids)
    of_ids.save_to_disk(tmp_path / "d")
    preprocessing = Preprocessing(lazy_cache_dir=str(tmp_path / "cache"))
    source = HuggingFaceSource(str(tmp_path / "d"), val_fraction=0, test_fraction=0)
    assert source.target_kind("label") == "labels"
    index = source.read("labels", 0, preprocessing=preprocessing)
    assert index.target is not None
    assert index.target.class_names == tuple(order)
    assert cells(index) == expected
    of_ids.to_parquet(str(tmp_path / "t.parquet"))
    index = TableSource(str(tmp_path / "t.parquet"), image="photo", val_fraction=0, test_fraction=0).read(
        "labels", 0, preprocessing=preprocessing
    )
    assert index.target is not None
    assert index.target.class_names == tuple(order)
    assert cells(index) == expected
    found = {k.removeprefix("data."): v for k, v in settings_of(of_ids, str(tmp_path / "cache")).items()}
    source = TableSource(**found, image="photo", val_fraction=0, test_fraction=0)
    assert source.target_kind("label") == "labels"
    index = source.read("labels", 0)
    assert index.target is not None
    assert index.target.class_names == tuple(order)
    assert cells(index) == expected
    text = dataset(datasets.Sequence(datasets.Value("string")), [[order[i] for i in row] for row in ids])
    text.save_to_disk(tmp_path / "text")
    source = HuggingFaceSource(str(tmp_path / "text"), val_fraction=0, test_fraction=0)
    assert cells(source.read("labels", 0, preprocessing=preprocessing)) == CELLS


def in_python(data: Any, folder: Path, **settings: Any) -> SampleIndex:
    found = {key.removeprefix("data."): value for key, value in settings_of(data, str(folder)).items()}
    source = TableSource(**(found | {"val_fraction": 0, "test_fraction": 0} | settings))
    assert source.target_kind("label") == "labels"
    return source.read("labels", 0)


def test_objects_in_python(tmp_path: Path) -> None:
    pandas, torch = pytest.importorskip("pandas"), pytest.importorskip("torch")
    pictures = [np.full((4, 4), i, np.uint8) for i in range(4)]
    names = [[name.strip() for name in text.split("|") if name] for text in SETS]
    for targets in (names, list(map(set, names)), list(map(tuple, names)), [np.array(n, object) for n in names]):
        index = in_python((pictures, targets), tmp_path)
        assert index.target is not None
        assert index.target.class_names == NAMES
        assert cells(index) == CELLS
    same = [
        settings_of((pictures, [set(n), *names[1:]]), str(tmp_path))["data.path"] for n in (names[0], names[0][::-1])
    ]
    assert same[0] == same[1], "sets have no order"
    ids = [[0, 2], [], [2], np.array([1, 0])]
    assert cells(in_python((pictures, ids), tmp_path, class_names=list(NAMES))) == CELLS
    matrix = np.array(CELLS)
    for targets in (matrix.astype(np.uint8), matrix.astype(bool), matrix, matrix * 1.0, torch.tensor(CELLS)):
        index = in_python((pictures, targets), tmp_path)
        assert index.target is not None
        assert index.target.class_names == ("0", "1", "2")
        assert cells(index) == CELLS
    index = in_python((pictures, matrix.astype(np.uint8)), tmp_path, class_names=list(NAMES))
    assert index.target is not None
    assert index.target.class_names == NAMES
    assert cells(index) == CELLS
    matrix = matrix.astype(np.float64)
    matrix[1, 2] = np.nan
    assert cells(in_python((pictures, matrix), tmp_path))[1] == [0, 0, 255]
    matrix[1, 2] = 255
    assert cells(in_python((pictures, matrix.astype(np.uint8)), tmp_path))[1] == [0, 0, 255]
    with pytest.raises(DataError, match="row 1, label 0 says neither yes nor no") as error:
        settings_of((pictures, np.array(CELLS) * 2), str(tmp_path))
    assert error.value.given == 2
    with pytest.raises(ConfigError, match="targets mix sets and labels"):
        settings_of((pictures, [["a"], "b", "c", "d"]), str(tmp_path))
    frame = pandas.DataFrame({"image": pictures, "labels": names})
    assert cells(in_python(frame, tmp_path)) == CELLS
    flags = pandas.DataFrame({"image": pictures} | dict(zip(NAMES, np.array(CELLS, bool).T, strict=True)))
    assert cells(in_python(flags, tmp_path, target=list(NAMES))) == CELLS


def test_tables_to_predict(tmp_path: Path) -> None:
    index = FilesSource(str(table(tmp_path, labels=SETS))).read("labels")
    assert cells(index) == CELLS
    assert index.counts()["test"] == 4


def test_camvid_in_both_forms(data_root: Path) -> None:
    folder = data_root / "data" / "camvid"
    names = (folder / "multilabel_classes.txt").read_text().split()
    joined = read(folder / "multilabel.csv", class_names="multilabel_classes.txt")
    columns = read(folder / "multilabel_onehot.csv", target=names)
    assert joined.target == columns.target
    assert joined.labels == columns.labels
    assert list(joined.image) == list(columns.image)
    assert joined.split.tolist() == columns.split.tolist()
    with open(folder / "multilabel.csv", encoding="utf-8") as file:
        rows = [row["labels"].split("|") for row in csv.DictReader(file)]
    assert cells(joined) == [[int(name in row) for name in names] for row in rows]
    assert TableSource(str(folder / "multilabel.csv")).target_kind("label") == "labels"
    assert TableSource(str(data_root / "data" / "weather" / "index.csv")).target_kind("label") == "label"
