from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.sources.huggingface import HuggingFaceSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import mask_table, write_image, write_table

LABELS = ["b", "odd", "a", "a", "b", "other", "odd"]
SPLITS = ["train", "train", "train", "val", "val", "val", "test"]


def table(folder: Path, labels: list[str] = LABELS, splits: list[str] | None = SPLITS) -> str:
    rows = [
        {"image": write_image(folder / f"{i}.png", 4, 4, seed=i).name, "label": label} for i, label in enumerate(labels)
    ]
    rows = rows if splits is None else [row | {"split": split} for row, split in zip(rows, splits, strict=True)]
    return str(write_table(folder / "t.csv", rows))


def read(path: str, wanted: str | None = "label", strict: bool = True, **settings: Any) -> SampleIndex:
    return TableSource(path, **settings).read(wanted, 0, strict)  # type: ignore[arg-type]


def messages(index: SampleIndex) -> str:
    return "\n".join(problem.message for problem in index.problems)


def test_they_are_no_class_and_have_the_next_id(tmp_path: Path) -> None:
    index = read(table(tmp_path), unknown=["odd", "other"])
    assert index.target is not None
    assert index.label is not None
    assert index.target.class_names == ("a", "b")
    assert index.target.ignore_index == 2
    assert index.label.tolist() == [1, 2, 0, 0, 1, 2, 2]
    assert index.problems == ()
    listed = read(table(tmp_path), unknown=["odd", "other"], class_names=["b", "a"], num_classes=2)
    assert listed.label is not None
    assert listed.label.tolist() == [0, 2, 1, 1, 0, 2, 2]
    assert read(table(tmp_path, ["0", "1", "7"] * 2, None), unknown=[7], num_classes=2).target.ignore_index == 2  # type: ignore[union-attr]


def test_words_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.unknown names labels that no row has") as error:
        read(table(tmp_path), unknown=["odd", "othr"])
    assert error.value.nearest == "other"
    with pytest.raises(ConfigError, match=r"classes in data\.class_names"):
        read(table(tmp_path), unknown=["odd", "other"], class_names=["a", "b", "odd"])
    with pytest.raises(DataError, match=r"1 labels of 1 values are not among"):
        read(table(tmp_path), unknown=["odd"], class_names=["a", "b"])


def test_train_needs_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no label of train is one of the classes"):
        read(table(tmp_path, ["odd", "odd", "a", "b"], ["train", "train", "val", "test"]), unknown=["odd"])
    with pytest.raises(DataError, match="occur in val but not in train: b"):
        read(table(tmp_path, ["odd", "a", "a", "b"], ["train", "train", "val", "val"]), unknown=["odd"])
    with pytest.raises(DataError, match="all images have one label"):
        read(table(tmp_path, ["odd", "a", "a", "a"], ["train", "train", "val", "val"]), unknown=["odd"])


def test_each_drawn_split_has_its_share(tmp_path: Path) -> None:
    index = read(table(tmp_path, ["a", "b", "odd", "odd"] * 10, None), unknown=["odd"], val_fraction=0.2)
    assert index.label is not None
    for split, count in (("train", 14), ("val", 4), ("test", 2)):
        assert (index.label[index.rows(split)] == 2).sum() == count  # type: ignore[arg-type]


def test_they_are_named_where_labels_differ(tmp_path: Path) -> None:
    path = table(tmp_path, ["a", "odd", "b", "a"], ["train"] * 4)
    Path(path).write_text(Path(path).read_text().replace("1.png", "0.png"))
    assert "0.png: a (row 2), unknown (row 3)" in messages(read(path, unknown=["odd"], val_fraction=0))


def test_only_one_label_an_image_can_be_unknown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="here each image has a set of labels"):
        read(table(tmp_path), "labels", unknown=["odd"])
    with pytest.raises(ConfigError, match="the data hold masks here"):
        TableSource(str(mask_table(tmp_path)), unknown=["odd"]).read("mask", 0)
    assert read(table(tmp_path), None, unknown=["odd"]).target is None


def test_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog", "none of both"):
            write_image(tmp_path / split / name / "1.png", seed=10 * len(split) + len(name))
    index = FolderSource(str(tmp_path), unknown=["none of both"]).read("label", 0)
    assert index.target is not None
    assert index.label is not None
    assert index.target.class_names == ("cat", "dog")
    assert index.label.tolist() == [0, 1, 2] * 2
    with pytest.raises(DataError) as error:
        FolderSource(str(tmp_path), unknown=["none of two"]).read("label", 0)
    assert error.value.nearest == "none of both"


def test_hugging_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["z", "odd", "a"])})
    rows = {"image": [np.full((3, 3), i, np.uint8) for i in range(6)], "label": [0, 1, 2] * 2}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    source = HuggingFaceSource(str(tmp_path / "d"), unknown=["odd"], val_fraction=0, test_fraction=0)
    index = source.read("label", 0, preprocessing=Preprocessing(lazy_cache_dir=str(tmp_path / "cache")))
    assert index.target is not None
    assert index.label is not None
    assert index.target.class_names == ("z", "a")
    assert index.label.tolist() == [0, 2, 1] * 2


def test_classes_that_train_lacks(tmp_path: Path) -> None:
    one = table(tmp_path, ["a", "a", "b", "c"], ["train", "train", "val", "test"])
    with pytest.raises(DataError, match="occur in val but not in train"):
        TableSource(one).read("label", 0)
    index = TableSource(one).read("label", 0, coverage=False)
    assert index.label is not None
    assert index.label.tolist() == [0, 0, 1, 2]
    assert index.problems == ()
    alone = table(tmp_path, ["a"] * 3, ["train", "train", "val"])
    assert TableSource(alone).read("label", 0, coverage=False).target.class_names == ("a",)  # type: ignore[union-attr]
    assert TableSource(one).read("label", 0, strict=False, coverage=False).problems == ()


def test_folders_that_train_lacks(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "good" / "1.png", seed=1)
    for name in ("good", "bad"):
        write_image(tmp_path / "test" / name / "1.png", seed=len(name))
    write_image(tmp_path / "val" / "good" / "1.png", seed=9)
    with pytest.raises(DataError, match="occur in test but not in train: bad"):
        FolderSource(str(tmp_path)).read("label", 0)
    assert len(FolderSource(str(tmp_path)).read("label", 0, coverage=False)) == 4


def test_real_data_of_anomalies(data_root: Path) -> None:
    anomaly = TableSource(str(data_root / "data" / "elpv" / "anomaly.csv")).read("label", 0, coverage=False)
    assert anomaly.target is not None
    assert anomaly.label is not None
    assert len(anomaly.target.class_names) == 2
    assert len(set(anomaly.label[anomaly.rows("train")].tolist())) == 1
