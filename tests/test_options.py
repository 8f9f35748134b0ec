"""Parts inside parts: combined losses and several outputs, before anything is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightning_vision import compose
from lightning_vision.errors import ConfigError
from lightning_vision.loss_choice import loss_tasks
from lightning_vision.options import expand, load_option
from lightning_vision.outputs import in_order
from lightning_vision.overrides import spread
from lightning_vision.resolve import plain
from lightning_vision.searchpath import options_of

TWO = {"mask": {"decoder": "unet", "loss": "dice"}, "scene": {"target": "label", "decoder": "classifier"}}


def expanded(*words: str, **values: Any) -> dict[str, Any]:
    config = plain(compose(list(words), **values))
    expand(config)
    return config


@pytest.mark.parametrize("name", [n for n in options_of("loss") if n not in ("auto", "combined")])
def test_every_name_of_a_loss_leads_to_one(name: str) -> None:
    node = load_option("loss", name)
    assert "defaults" not in node
    config = expanded(f"loss={name}")
    assert config["loss"]["_target_"] == node["_target_"]
    assert loss_tasks(config["loss"])


class TestCombinedLosses:
    def test_a_list_is_a_sum_with_every_setting_at_hand(self) -> None:
        config = expanded("loss=[softmax_cross_entropy, dice_loss]", "loss.losses.dice_loss.smooth=0.5")
        parts = config["loss"]["losses"]
        assert list(parts) == ["softmax_cross_entropy", "dice_loss"]
        assert parts["dice_loss"]["smooth"] == 0.5
        assert all("_target_" in part for part in parts.values())
        assert loss_tasks(config["loss"]) == ["segmentation"]

    def test_reading_the_words_again_changes_nothing(self) -> None:
        words = spread("loss=[focal_loss,poly_loss]")
        assert len(words) == 2
        assert [again for word in words for again in spread(word)] == words
        assert spread("loss=dice_loss") == ["loss=dice_loss"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["loss=[dice_loss,dicee]"], "There is no loss 'dicee'"),
            (["loss=combined"], "needs losses to add up"),
            (["loss=[dice_loss,ce_dice]"], "adds up plain losses"),
            (["loss=ce_dice", "loss.losses.dice_loss.smooth=-1"], "loss.losses.dice_loss.smooth cannot be"),
            (["loss=ce_dice", "+loss.losses.dice_loss.smoth=1"], "no setting 'smoth'"),
        ],
    )
    def test_mistakes(self, words: list[str], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            compose(words)


class TestOutputs:
    def test_names_become_parts_with_their_settings(self) -> None:
        outputs = {**TWO, "tone": {"decoder": {"type": "classifier", "num_fc_layers": 2}, "weight": 0.5}}
        found = expanded(outputs=outputs)["outputs"]
        assert found["mask"]["decoder"]["_target_"].endswith("UNetDecoder")
        assert found["mask"]["loss"]["_target_"].endswith("DiceLoss")
        assert found["mask"]["target"] == "mask"
        assert found["scene"]["target"] == "label"
        assert found["scene"]["loss"] == {"auto": True}
        assert found["tone"]["decoder"]["num_fc_layers"] == 2
        assert found["tone"]["weight"] == 0.5
        again = {"outputs": found, "loss": {"auto": True}}
        expand(again)
        assert again["outputs"] == found

    @pytest.mark.parametrize(
        ("outputs", "says"),
        [
            ({"mask": {"target": "m"}}, "outputs.mask needs a decoder"),
            ({"mask": {"decoder": "unett"}}, "There is no decoder 'unett'"),
            ({"mask": {"decoder": "unet", "wait": 2}}, "no setting 'wait'"),
            ({"mask": {"decoder": "unet", "weight": -2}}, "outputs.mask.weight cannot be"),
            ({"mask": {"decoder": "unet", "reduce_input": "avrage"}}, "outputs.mask.reduce_input cannot be"),
            ({"mask": {"decoder": {"type": "unet", "num_stage": 1}}}, "no setting 'num_stage'"),
            ({"a.b": {"decoder": "unet"}}, "name of an output"),
            ({"mask": {"decoder": ["unet"]}}, "outputs.mask.decoder"),
        ],
    )
    def test_mistakes(self, outputs: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            compose(outputs=outputs)

    def test_a_single_decoder_beside_outputs_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="each has its own decoder"):
            compose(["decoder=fpn"], outputs=TWO)


class TestOrder:
    def test_dependencies_come_first(self) -> None:
        assert in_order({"a": ["c"], "b": [], "c": ["b"]}) == ["b", "c", "a"]
        assert in_order({"a": [], "b": []}) == ["a", "b"]

    @pytest.mark.parametrize(
        ("dependencies", "says"),
        [({"a": ["b"], "b": ["a"]}, "circle"), ({"a": ["bb"], "bc": []}, "not there"), ({"a": ["a"]}, "not there")],
    )
    def test_mistakes(self, dependencies: dict[str, list[str]], says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            in_order(dependencies)


class TestAugmentation:
    """The document's ways to say what is augmented: a truth value, names, or types with settings."""

    @pytest.mark.parametrize("said", [False, "false", "none"])
    def test_false_is_none(self, said: Any) -> None:
        assert expanded(augmentation=said)["augmentation"] == {}

    def test_a_list_keeps_its_order_and_its_settings(self) -> None:
        given = [{"type": "random_resized_crop", "p": 0.25}, "random_horizontal_flip", "color_jitter"]
        found = expanded(augmentation=given)["augmentation"]
        assert list(found) == ["random_resized_crop", "random_horizontal_flip", "color_jitter"]
        assert found["random_resized_crop"]["p"] == 0.25
        assert found["random_resized_crop"]["ratio"] == [0.75, 1.3333333333333333]
        assert expanded("augmentation=[random_horizontal_flip, color_jitter]")["augmentation"].keys() == {
            "random_horizontal_flip",
            "color_jitter",
        }

    def test_a_transform_may_come_twice_and_is_set_by_its_name(self) -> None:
        words = ["augmentation=[{type:random_horizontal_flip,p:0.1},{type:random_horizontal_flip},color_jitter]"]
        found = expanded(*words, "augmentation.random_horizontal_flip_2.p=0.3")["augmentation"]
        assert [(name, node["p"]) for name, node in found.items()] == [
            ("random_horizontal_flip", 0.1),
            ("random_horizontal_flip_2", 0.3),
            ("color_jitter", 0.8),
        ]

    def test_a_preset_may_stand_in_a_list(self) -> None:
        found = expanded("augmentation=[{type: color_jitter, hue: 0.0}, views]")["augmentation"]
        assert next(iter(found)) == "color_jitter"
        assert {"random_resized_crop", "random_horizontal_flip"} < set(found)

    @pytest.mark.parametrize(
        ("word", "message"),
        [
            ("augmentation=[{type: random_blurr, p: 1}]", "no augmentation 'random_blurr'"),
            ("augmentation=[{type: color_jitter, hue: 3}]", "color_jitter.hue cannot be 3"),
            ("augmentation=[{type: color_jitter, hu: 0.1}]", "augmentation.color_jitter.hue"),
            ("augmentation=[{p: 0.5}]", "their type with settings"),
            ("augmentation=[color_jitter", "their type with settings"),
            ("augmentation=[{type: views, p: 0.5}]", "their type with settings"),
            ("augmentation=[null]", "their type with settings"),
            ("augmentation=[true,random_blur]", "their type with settings"),
            ("augmentation=none,[{type: random_rotate, degree: 5}]", "A sweep over augmentations"),
            ("augmentation=[none],[{type: random_rotate, degree: 5}]", "A sweep over augmentations"),
        ],
    )
    def test_what_is_wrong_is_named(self, word: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            compose([word])

    def test_several_lists_are_a_sweep(self) -> None:
        for word in ("augmentation=[random_horizontal_flip],[light,mixup]", "augmentation=none,[light,mixup],strong"):
            assert spread(word) == [word]

    def test_a_transform_that_a_preset_has_too_comes_twice(self) -> None:
        """Neither is lost in the other: the list is applied in its order."""
        found = expanded("augmentation=[light,random_rotate]")["augmentation"]
        assert [(k, n["degree"]) for k, n in found.items() if "rotate" in k] == [
            ("random_rotate", 10.0),
            ("random_rotate_2", 15.0),
        ]

    @pytest.mark.parametrize("said", [{"type": "random_rotate", "degree": np.float32(10)}, None])
    def test_one_transform_needs_no_list_and_none_is_none(self, said: Any) -> None:
        found = expanded(augmentation=said)["augmentation"]
        assert {name: node["degree"] for name, node in found.items()} == ({} if said is None else {"random_rotate": 10})
        assert (
            expanded("augmentation={type: random_rotate, degree: 10}")["augmentation"]["random_rotate"]["degree"] == 10
        )

    def test_the_rate_of_stochastic_depth_is_no_path(self) -> None:
        assert expanded("encoder=convnext", "encoder.drop_path=0.1")["encoder"]["drop_path"] == 0.1
