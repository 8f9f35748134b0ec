"""What may be typed beside a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_vision.errors import ConfigError
from lightning_vision.overrides import override_keys
from lightning_vision.settings import (
    OF_PREDICT,
    for_checkpoint,
    for_resume,
    found_before,
    same_data,
    with_trained_classes,
)
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
    rest["split"] = "auto"
    rest |= dict.fromkeys(OF_PREDICT)
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


def test_logs_may_be_left_out_beside_a_checkpoint() -> None:
    composed = {key: value for key, value in given().items() if key != "logger"}
    assert for_checkpoint(saved(), composed, ["logger"])["logger"] is None


def test_a_whole_group_replaces_the_checkpoints() -> None:
    node = {"_target_": "F", "path": "folder"}
    merged = for_checkpoint(saved(), given(data=node), ["data", "data.path"])
    assert merged["data"] == node


@pytest.mark.parametrize("key", ["encoder", "encoder.weights", "image_size", "preprocessing.height", "lr", "seed"])
def test_what_the_checkpoint_decides_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="decided by the checkpoint") as error:
        for_checkpoint(saved(), given(), [key])
    assert f"leave {key} out" in str(error.value)


def test_decode_settings_may_change() -> None:
    changed = given(preprocessing={"mode": "lazy", "height": 99})
    merged = for_checkpoint(saved(), changed, ["preprocessing.mode"])
    assert merged["preprocessing"] == {"mode": "lazy", "height": 32}


@pytest.mark.parametrize(
    ("path", "keys", "inferred"),
    [
        ("old.csv", [], True),
        ("new.csv", ["data.path"], False),
        ("old.csv", ["data.mask_values"], False),
    ],
)
def test_colors_are_inferred_from_the_data_of_the_training_only(path: str, keys: list[str], inferred: bool) -> None:
    trained = saved()
    trained["preprocessing"]["infer_image_num_classes"] = True
    merged = for_checkpoint(trained, given(data=trained["data"] | {"path": path, "mask_values": "index"}), keys)
    assert merged["preprocessing"]["infer_image_num_classes"] is inferred


def test_a_source_is_told_the_trained_classes_unless_others_were_typed() -> None:
    target = TargetSpec("mask", ("a", "b"), ignore_index=7)
    node = {"path": "x", "class_names": None, "num_classes": 3, "ignore_index": None}
    told = with_trained_classes(node, target, ["data.path"])
    assert told == {"path": "x", "class_names": ["a", "b"], "num_classes": None, "ignore_index": 7}
    assert with_trained_classes(node, target, ["data.ignore_index"])["ignore_index"] is None


def run() -> dict[str, Any]:
    """The config of a run, as its checkpoint holds it."""
    return {
        "output_dir": "/runs/old",
        "epochs": 10,
        "lr": 0.001,
        "image_size": [64, 64],
        "encoder": {"_target_": "E", "width": 8, "num_channels": 3},
        "neck": None,
        "data": {"_target_": "T", "path": "a.csv"},
        "preprocessing": {"mode": "lazy", "height": None},
        "trainer": {"max_epochs": 10, "precision": "bf16-mixed"},
        "callbacks": {"best": {"dirpath": "/runs/old/checkpoints", "filename": "best"}, "progress": {"rate": 20}},
        "logger": {"csv": {"save_dir": "/runs/old"}},
    }


def typed(**changes: Any) -> dict[str, Any]:
    """What is composed when hardly anything was typed: the defaults, unlike the run."""
    defaults = {"_target_": "E", "width": 32, "num_channels": None}
    places = {"action": "fit", "checkpoint": "c", "source": None, "split": "auto", "output_dir": "/runs/new"}
    rest = {"epochs": 10, "lr": 0.01, "image_size": None, "neck": {"auto": True}, "trainer": {"max_epochs": 10}}
    return {**run(), "encoder": defaults, **rest, **places, **changes}


class TestResume:
    def test_without_a_word_it_is_the_run_of_the_checkpoint_in_another_folder(self) -> None:
        merged = for_resume(run(), typed(), [])
        assert merged["callbacks"]["best"] == {"dirpath": "/runs/new/checkpoints", "filename": "best"}
        assert merged["logger"] == {"csv": {"save_dir": "/runs/new"}}
        same = ("lr", "encoder", "neck", "trainer", "data", "epochs", "image_size")
        assert {key: merged[key] for key in same} == {key: run()[key] for key in same}

    def test_more_epochs_reach_the_trainer(self) -> None:
        merged = for_resume(run(), typed(epochs=20), ["epochs"])
        assert (merged["epochs"], merged["trainer"]) == (20, {"max_epochs": 20, "precision": "bf16-mixed"})

    def test_single_settings_and_whole_parts_may_change_beside_the_model(self) -> None:
        given = typed(trainer={"max_epochs": 10, "devices": 2}, callbacks={"best": None}, data={"path": "b.csv"})
        merged = for_resume(run(), given, ["trainer.devices", "~callbacks.progress".lstrip("~"), "data.path"])
        assert merged["trainer"] == {"max_epochs": 10, "precision": "bf16-mixed", "devices": 2}
        assert list(merged["callbacks"]) == ["best"], "what was taken out is out"
        assert merged["data"] == {"_target_": "T", "path": "b.csv"}

    @pytest.mark.parametrize(
        ("key", "changes"),
        [
            ("lr", {"lr": 0.001}),
            ("image_size", {"image_size": 64}),
            ("encoder", {"encoder": {"_target_": "E", "width": 8, "num_channels": None}}),
            ("neck", {}),
            ("preprocessing.mode", {"preprocessing": {"mode": "eager", "height": 3}}),
        ],
    )
    def test_what_is_said_again_is_no_change(self, key: str, changes: dict[str, Any]) -> None:
        merged = for_resume(run(), typed(**changes), [key])
        assert merged["encoder"] == run()["encoder"]
        assert merged["preprocessing"]["height"] is None

    def test_what_is_asked_for_in_vain_is_named(self) -> None:
        given = typed(trainer={"precision": "auto", "channels_last": "auto", "find_lr": True, "find_batch_size": False})
        keys = ["trainer.precision", "trainer.find_lr", "trainer.find_batch_size", "epochs"]
        assert found_before(given, keys) == ["trainer.precision", "trainer.find_lr"]
        assert found_before(given, []) == []

    @pytest.mark.parametrize("key", ["lr", "encoder", "encoder.width", "experiment", "template"])
    def test_another_model_is_another_run(self, key: str) -> None:
        with pytest.raises(ConfigError, match=f"{key} cannot change") as error:
            for_resume(run(), typed(), [key])
        assert f"leave {key} out" in error.value.overrides

    @pytest.mark.parametrize("there", [{}, {"a": {"_target_": "A"}}, {"a": {"_target_": "A"}, "b": {"_target_": "B"}}])
    @pytest.mark.parametrize("here", [{}, {"a": {"_target_": "A"}}, {"b": {"_target_": "B"}, "a": {"_target_": "A"}}])
    def test_an_augmentation_is_the_same_as_a_whole_or_another_run(self, here: Any, there: Any) -> None:
        saved, given = run() | {"augmentation": there}, typed(augmentation=here)
        if list(here.items()) == list(there.items()):
            assert for_resume(saved, given, ["augmentation"])["augmentation"] == there
        else:
            with pytest.raises(ConfigError, match="augmentation cannot change"):
                for_resume(saved, given, ["augmentation"])

    def test_null_is_a_value_where_nothing_was_decided(self) -> None:
        saved, given = run() | {"num_items_per_epoch": 10}, typed(num_items_per_epoch=None)
        with pytest.raises(ConfigError, match="num_items_per_epoch cannot change"):
            for_resume(saved, given, ["num_items_per_epoch"])


def test_the_same_table_under_another_name_is_the_same_data(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    node = {"_target_": "T", "path": "a.csv"}
    assert same_data(node, {**node, "path": str(tmp_path / "x" / ".." / "a.csv"), "val_fraction": 0.3})
    assert not same_data(node, {**node, "path": "b.csv"})
    assert not same_data(node, {**node, "_target_": "F"})
    assert same_data({"_target_": "S", "path": None}, {"_target_": "S", "path": None})
