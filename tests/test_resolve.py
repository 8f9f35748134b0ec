"""Decisions that follow from ``auto``, each with its reason, and settings that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_vision.config import compose
from lightning_vision.errors import ConfigError, VisionError
from lightning_vision.resolve import Plan, resolve
from lightning_vision.testing.discs import write_discs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def plan(table: Path, *words: str, **values: Any) -> Plan:
    given = {"data.path": str(table), "data.ignore_index": 255, **values}
    return resolve(compose(["data=table", *words], given))


class TestDecisions:
    def test_of_a_mask(self, table: Path) -> None:
        found = plan(table, "decoder=unet")
        assert found.config["task"] == found.outputs["output"].task == "segmentation"
        assert found.config["monitor"] == "val/mean_iou"
        assert found.config["loss"]["_target_"].endswith("SoftmaxCrossEntropyLoss")
        assert found.target.kind == "mask"
        assert "mask" in found.reasons["task"]

    def test_of_a_label(self, table: Path) -> None:
        found = plan(table, "decoder=classifier")
        decided = (found.config["task"], found.config["monitor"], found.target.kind)
        assert decided == ("classification", "val/accuracy", "label")
        assert "label" in found.reasons["task"]

    def test_every_decision_is_written_with_a_reason(self, table: Path) -> None:
        found = plan(table)
        decided = {"task", "loss", "monitor", "image_size", "preprocessing.num_channels", "encoder.num_channels"}
        assert set(found.reasons) == {*decided, "encoder_lr_factor", "preprocessing.cache_encoder_embeddings"}
        assert all(found.reasons.values())
        assert found.config["image_size"] == [found.geometry.height, found.geometry.width]
        assert found.config["encoder"]["num_channels"] == found.geometry.num_channels == 3

    def test_what_was_said_has_no_reason(self, table: Path) -> None:
        found = plan(table, "task=segmentation", "image_size=32", "monitor=train/loss", "encoder_lr_factor=0.5")
        inferred = {"loss", "preprocessing.num_channels", "encoder.num_channels"}
        assert set(found.reasons) == {*inferred, "preprocessing.cache_encoder_embeddings"}

    @pytest.mark.parametrize(
        ("words", "factor"),
        [
            (["encoder=stacked_cnn"], 1.0),
            (["encoder=resnet"], 0.1),
            (["encoder=resnet", "encoder.use_pretrained=false"], 1.0),
            (["encoder=dinov2", "encoder.adapter=lora"], 1.0),
            (["encoder=resnet", "encoder_lr_factor=0.3"], 0.3),
        ],
    )
    def test_the_encoders_rate(self, table: Path, words: list[str], factor: float) -> None:
        assert plan(table, *words).config["encoder_lr_factor"] == factor

    @pytest.mark.parametrize(("monitor", "mode"), [("auto", "max"), ("val/loss", "min"), ("val/dice", "max")])
    def test_callbacks_follow_the_monitor(self, table: Path, monitor: str, mode: str) -> None:
        callbacks = plan(table, f"monitor={monitor}").config["callbacks"]
        for name in ("best", "early_stopping"):
            assert callbacks[name]["monitor"] == ("val/mean_iou" if monitor == "auto" else monitor)
            assert callbacks[name]["mode"] == mode

    def test_a_callback_with_a_monitor_of_its_own_keeps_it(self, table: Path) -> None:
        callbacks = plan(table, "callbacks.early_stopping.monitor=val/loss").config["callbacks"]
        assert (callbacks["early_stopping"]["monitor"], callbacks["early_stopping"]["mode"]) == ("val/loss", "min")
        assert (callbacks["best"]["monitor"], callbacks["best"]["mode"]) == ("val/mean_iou", "max")

    def test_grey_images_for_a_network_of_one_channel(self, table: Path) -> None:
        found = plan(table, "preprocessing.num_channels=1")
        assert (found.geometry.num_channels, found.config["encoder"]["num_channels"]) == (1, 1)


CLASHES = [
    # words, both sides by name, the overrides that mend it
    (["task=classification", "decoder=unet"], ["task=classification", "UNetDecoder"], 2),
    (["neck=pyramid", "decoder=classifier"], ["PyramidNeck", "ClassifierDecoder"], 2),
    (["encoder.num_channels=4", "preprocessing.num_channels=3"], ["num_channels=4", "3 channels"], 2),
    (["image_size=32", "preprocessing.height=48", "preprocessing.width=32"], ["image_size=32", "height=48"], 2),
    (["preprocessing.height=48"], ["preprocessing.height=48", "preprocessing.width"], 2),
    (
        ["encoder=resnet", "encoder.saved_weights_in_checkpoint=false"],
        ["saved_weights_in_checkpoint", "trainable=True"],
        2,
    ),
]


@pytest.mark.parametrize(("words", "sides", "ways"), CLASHES, ids=[" ".join(c[0]) for c in CLASHES])
def test_a_clash_names_both_sides_and_each_override_mends_it(
    table: Path, words: list[str], sides: list[str], ways: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(table, *words)
    for side in sides:
        assert side in str(caught.value)
    assert len(caught.value.overrides) == ways
    for override in caught.value.overrides:
        # A later word of the same key wins, as on the command line.
        plan(table, *words, *override.split(" "))


def test_a_decoder_of_labels_refuses_a_column_of_masks(table: Path) -> None:
    with pytest.raises(VisionError, match="column mask") as caught:
        plan(table, "decoder=classifier", "data.target=mask")
    assert "decoder=unet" in caught.value.overrides


def test_a_figure_of_the_test_split_is_no_monitor(table: Path) -> None:
    with pytest.raises(ConfigError, match="no longer tell how well it does") as caught:
        plan(table, "monitor=test/mean_iou")
    assert caught.value.overrides == ["monitor=val/mean_iou", "monitor=auto"]


def test_monitoring_val_without_val(table: Path) -> None:
    text = table.read_text(encoding="utf-8").replace(",val", ",train")
    alone = table.with_name("no_val.csv")
    alone.write_text(text, encoding="utf-8")
    without = {"data.path": str(alone), "data.val_fraction": 0.0}
    found = plan(alone, **without)
    assert found.config["monitor"] == "train/loss"
    assert found.reasons["monitor"] == "there is no validation split"
    assert found.config["callbacks"]["best"]["mode"] == "min"
    with pytest.raises(ConfigError, match="needs a validation split") as caught:
        plan(alone, "monitor=val/mean_iou", **without)
    assert caught.value.overrides == ["monitor=train/loss"]


@pytest.mark.parametrize(
    ("output", "said"), [("'classes'", "output = 'classes' of kinds_0."), ("None", "kinds_1.Odd without output")]
)
def test_a_decoder_of_an_unknown_kind_is_refused_by_name(
    output: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = said.partition(".")[0].rpartition(" ")[2]
    lines = ["from lightning_vision.decoders.base import Decoder", "class Odd(Decoder):", "    consumes = 'pyramid'"]
    (tmp_path / f"{name}.py").write_text("\n".join([*lines, f"    output = {output}"]), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose()
    config.decoder = {"_target_": f"{name}.Odd"}
    with pytest.raises(ConfigError) as caught:
        resolve(config)
    assert said in str(caught.value.given)
    assert caught.value.expected == "output = one of label, mask, score, embedding, as plain text in the class"
    assert caught.value.overrides == ["decoder=unet"]
