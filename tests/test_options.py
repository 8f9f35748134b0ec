"""Parts inside parts: combined losses and several outputs, before anything is built."""

from __future__ import annotations

from typing import Any

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
