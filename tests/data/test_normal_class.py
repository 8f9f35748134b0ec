from __future__ import annotations

import numpy as np
import pytest

from lightning_vision.data.index import FurtherTarget, PackedStrings, SampleIndex
from lightning_vision.data.normal_class import as_normal_or_not, as_trained, find_normal_class, normal_or_not, occurring
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import TargetSpec


def index(names: tuple[str, ...], label: list[int], split: list[int], ignore: int | None = None) -> SampleIndex:
    images = PackedStrings.from_strings(f"/{i}.png" for i in range(len(label)))
    target = TargetSpec("label", names, ignore_index=ignore)
    return SampleIndex(images, np.array(split, np.uint8), np.array(label, np.int32), target=target, origin="x.csv")


def found(rows: SampleIndex, given: str | int = "auto") -> str:
    assert rows.main_labels is not None
    return find_normal_class(rows.main_labels, rows.split, given)[0]


def labels_of(rows: SampleIndex) -> list[int]:
    assert rows.label is not None
    return rows.label.tolist()


def told(rows: SampleIndex) -> str:
    return " | ".join(f"{p.severity}: {p.message}" for p in rows.problems)


@pytest.mark.parametrize(
    ("names", "label", "split", "expected"),
    [
        (("crack", "Good"), [0, 1, 1], [0, 0, 2], "Good"),  # a usual name, whatever else is trained on
        (("0", "1"), [0, 1, 1], [0, 0, 2], "0"),
        (("bolt", "crack"), [0, 0, 1], [0, 0, 2], "bolt"),  # the one class in training
        (("good", "ok", "bad"), [1, 1, 2], [0, 0, 2], "ok"),  # two usual names, one of them in training
    ],
)
def test_the_normal_class_is_found(names: tuple[str, ...], label: list[int], split: list[int], expected: str) -> None:
    assert found(index(names, label, split)) == expected


def test_the_given_class_is_taken_also_as_a_number() -> None:
    assert found(index(("normal", "odd"), [0, 1], [0, 0]), "odd") == "odd"
    assert found(index(("3", "7"), [0, 1], [0, 0]), 7) == "7"


def test_a_class_that_cannot_be_told_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="Which class is the normal one") as error:
        found(index(("bolt", "crack"), [0, 1], [0, 0]))
    assert "decoder.normal_class=bolt" in str(error.value)
    with pytest.raises(ConfigError, match="no class of the data") as error:
        found(index(("bolt", "crack"), [0, 1], [0, 0]), "bolts")
    assert "decoder.normal_class=bolt" in str(error.value)


def test_what_is_normal_must_be_there_to_be_learned() -> None:
    with pytest.raises(DataError, match="No training row") as error:
        found(index(("good", "crack"), [1, 1, 0], [0, 0, 2]))
    assert "decoder.normal_class=crack" in str(error.value)


def test_everything_else_is_anomalous_and_left_out_of_training_alone() -> None:
    rows = index(("crack", "good", "dent"), [0, 1, 2, 1, 0, 2, 1], [0, 0, 0, 0, 1, 2, 2])
    made = as_normal_or_not(rows, "good", train_on_anomalies=False)
    assert labels_of(made) == [0, 0, 1, 1, 0]
    assert list(made.image) == ["/1.png", "/3.png", "/4.png", "/5.png", "/6.png"]
    assert made.target == TargetSpec("label", ("good", "anomalous"))
    assert "note: 2 anomalous rows are left out" in told(made)
    assert "everything but good: crack, dent" in told(made)
    kept = as_normal_or_not(rows, "good", train_on_anomalies=True)
    assert labels_of(kept) == [1, 0, 1, 0, 1, 1, 0]
    assert "left out" not in told(kept)


def test_the_name_of_the_one_other_class_is_kept() -> None:
    made = as_normal_or_not(index(("crack", "good"), [1, 0], [0, 2]), "good", train_on_anomalies=False)
    assert made.target is not None
    assert made.target.class_names == ("good", "crack")
    assert made.problems == ()
    alone = as_normal_or_not(index(("good",), [0, 0], [0, 2]), "good", train_on_anomalies=False)
    assert alone.target is not None
    assert alone.target.class_names == ("good", "anomalous")


def test_labels_that_are_none_of_the_classes_are_not_normal() -> None:
    rows = index(("good", "crack"), [0, 2, 1], [0, 2, 2], ignore=2)
    assert labels_of(as_normal_or_not(rows, "good", train_on_anomalies=False)) == [0, 1, 1]


TRAINED = TargetSpec("label", ("good", "anomalous"))


def test_data_to_score_may_have_any_classes() -> None:
    made = as_trained(index(("dent", "good", "new"), [0, 1, 2], [0, 2, 2]), TRAINED)
    assert labels_of(made) == [1, 0, 1]
    assert made.target == TRAINED
    assert made.problems == ()


def test_data_without_normal_rows_are_scored_with_a_warning() -> None:
    made = as_trained(index(("dent", "new"), [0, 1], [2, 2]), TRAINED)
    assert labels_of(made) == [1, 1]
    assert "warning: no row is of the class good, so all 2 count as anomalous" in told(made)


def test_a_further_output_of_other_data() -> None:
    rows = index(("a", "b"), [0, 1, 1], [2, 2, 2])
    state = FurtherTarget(TargetSpec("label", ("bad", "good")), np.array([1, 0, 1], np.int32))
    rows.further_targets = {"state": state}
    made = as_trained(rows, TRAINED, "state")
    assert labels_of(made) == [0, 1, 1], "the main target stays"
    assert made.further_targets["state"].target == TRAINED
    assert made.further_targets["state"].values(np.arange(3)).tolist() == [0, 1, 0]
    assert normal_or_not(state, "good").target.class_names == ("good", "bad")


def test_what_occurs_in_a_split() -> None:
    label, split = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 1, 2], np.uint8)
    assert occurring(label, split, "train") == (True, False)
    assert occurring(label, split, "val") == (True, True)
    assert occurring(label, split, "test") == (False, True)
