"""What may be typed beside a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_vision.errors import ConfigError
from lightning_vision.settings import for_checkpoint, override_keys, with_trained_classes
from lightning_vision.types import TargetSpec


def saved() -> dict[str, Any]:
    return {
        "data": {"_target_": "T", "path": "old.csv", "target": "mask"},
        "preprocessing": {"mode": "eager", "height": 32},
        "encoder": {"_target_": "E"},
        "batch_size": 8,
    }


def given(**changes: Any) -> dict[str, Any]:
    rest = {"action": "test", "checkpoint": "x", "source": None, "output_dir": "o", "trainer": {}, "callbacks": {}}
    return {**saved(), **rest, "logger": {}, **changes}


def test_override_keys() -> None:
    assert override_keys(["+data.path='a=b'", "~callbacks", "encoder@x=y", "lr=1"]) == [
        "data.path",
        "callbacks",
        "encoder",
        "lr",
    ]


def test_only_what_was_typed_replaces_the_checkpoint() -> None:
    merged = for_checkpoint(saved(), given(data={"path": "new.csv"}, batch_size=2), ["data.path"])
    assert merged["data"] == {"_target_": "T", "path": "new.csv", "target": "mask"}
    assert merged["batch_size"] == 8
    assert merged["output_dir"] == "o"


def test_a_whole_group_replaces_the_checkpoints() -> None:
    node = {"_target_": "F", "path": "folder"}
    merged = for_checkpoint(saved(), given(data=node), ["data", "data.path"])
    assert merged["data"] == node


@pytest.mark.parametrize("key", ["encoder", "encoder.weights", "image_size", "preprocessing.height", "lr"])
def test_what_the_checkpoint_decides_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="decided by the checkpoint") as error:
        for_checkpoint(saved(), given(), [key])
    assert f"leave {key} out" in str(error.value)


def test_decode_settings_may_change() -> None:
    changed = given(preprocessing={"mode": "lazy", "height": 99})
    merged = for_checkpoint(saved(), changed, ["preprocessing.mode"])
    assert merged["preprocessing"] == {"mode": "lazy", "height": 32}


def test_a_source_is_told_the_trained_classes_unless_others_were_typed() -> None:
    target = TargetSpec("mask", ("a", "b"), ignore_index=7)
    node = {"path": "x", "class_names": None, "num_classes": 3, "ignore_index": None}
    told = with_trained_classes(node, target, ["data.path"])
    assert told == {"path": "x", "class_names": ["a", "b"], "num_classes": None, "ignore_index": 7}
    assert with_trained_classes(node, target, ["data.ignore_index"])["ignore_index"] is None
