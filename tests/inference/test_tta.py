"""Views of an image are mapped back exactly, and what is averaged is what predictions show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput
from lightning_vision.inference.choices import check_choices, views
from lightning_vision.inference.tta import TestTimeAugmentation
from lightning_vision.losses.base import Loss
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.losses.entmax import Entmax15Loss
from lightning_vision.losses.open_set import EntropicOpenSetLoss
from lightning_vision.losses.sigmoid import SigmoidCrossEntropyLoss
from lightning_vision.tasks import task_class
from lightning_vision.types import FeatureInfo, TargetSpec

NAMES = ("a", "b", "c")


class NoDecoder(Decoder):
    """Stands for a decoder whose outputs are made up."""

    consumes, output = "embedding", "label"


def head_of(task: str, loss: Loss | None = None) -> Head:
    kind = {"segmentation": "mask", "multilabel": "labels"}.get(task, "label")
    decoder = NoDecoder(FeatureInfo((3,), (1,), 3), len(NAMES))
    return Head(decoder, task_class(task)(TargetSpec(kind, NAMES)), loss)  # type: ignore[arg-type]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


LOSSES = {
    "softmax": SoftmaxCrossEntropyLoss(3),
    "sigmoid": SigmoidCrossEntropyLoss(3),
    "entmax": Entmax15Loss(3),
    "open_set": EntropicOpenSetLoss(3, NAMES, background_class="b"),
    "none": None,
}


class TestViews:
    def test_a_flip_of_a_flip_is_the_image(self) -> None:
        pixels = drawn(2, 3, 5, 7)
        for view in ("horizontal_flip", "vertical_flip"):
            shown = TestTimeAugmentation.shown(pixels, view)
            assert not torch.equal(shown, pixels)
            assert torch.equal(TestTimeAugmentation.back(HeadOutput(shown), view, pixels).logits, pixels)

    def test_a_model_that_looks_at_pixels_alone_predicts_the_same_from_all_flips(self) -> None:
        head, pixels = head_of("segmentation"), drawn(2, 3, 6, 8)

        def outputs_of(x: Tensor) -> dict[str, HeadOutput]:
            return {"mask": HeadOutput(2 * x)}

        augmentation = TestTimeAugmentation(("horizontal_flip", "vertical_flip"))
        averaged = augmentation.averaged([("mask", head)], outputs_of, pixels, outputs_of(pixels))["mask"]
        torch.testing.assert_close(averaged.logits.softmax(1), (2 * pixels).softmax(1))

    def test_a_filter_is_averaged_with_its_mirror_image(self) -> None:
        head, pixels = head_of("segmentation"), drawn(1, 3, 6, 8)
        kernel = nn.Conv2d(3, 3, 3, padding=1)
        mirrored = nn.Conv2d(3, 3, 3, padding=1)
        mirrored.load_state_dict({"weight": kernel.weight.flip(-1), "bias": kernel.bias})
        expected = (kernel(pixels).softmax(1).double() + mirrored(pixels).softmax(1).double()) / 2

        def outputs_of(x: Tensor) -> dict[str, HeadOutput]:
            return {"mask": HeadOutput(kernel(x))}

        augmentation = TestTimeAugmentation(("horizontal_flip",))
        averaged = augmentation.averaged([("mask", head)], outputs_of, pixels, outputs_of(pixels))["mask"]
        torch.testing.assert_close(averaged.logits.softmax(1).double(), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("scale", [0.75, 1.25])
    def test_scales_come_back_to_the_pixels_of_the_image(self, scale: float) -> None:
        pixels = drawn(1, 3, 1, 1).expand(1, 3, 12, 16)
        shown = TestTimeAugmentation.shown(pixels, scale)
        assert shown.shape == (1, 3, round(12 * scale), round(16 * scale))
        back = TestTimeAugmentation.back(HeadOutput(shown), scale, pixels).logits
        torch.testing.assert_close(back, pixels.contiguous())
        ramp = torch.linspace(0, 1, 33).expand(1, 1, 33, 33)
        back = TestTimeAugmentation.back(HeadOutput(TestTimeAugmentation.shown(ramp, scale)), scale, ramp).logits
        assert (back - ramp)[..., 3:-3].abs().max() < 0.1 / 32  # nothing is moved


class TestAverages:
    @pytest.mark.parametrize("name", LOSSES)
    @pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
    def test_the_probabilities_of_a_class_are_the_mean_of_those_of_the_views(
        self, name: str, temperature: float
    ) -> None:
        head = head_of("classification", LOSSES[name])
        head.temperature.fill_(temperature)
        found = [HeadOutput(logits) for logits in 3 * drawn(4, 5, 3)]
        expected = torch.stack([head.probabilities(view.logits) for view in found]).double().mean(0)
        averaged = head.probabilities(head.task.averaged(head, found).logits)
        torch.testing.assert_close(averaged.double(), expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
    def test_those_of_labels_too(self, temperature: float) -> None:
        head = head_of("multilabel")
        head.temperature.fill_(temperature)
        found = [HeadOutput(logits) for logits in 3 * drawn(4, 5, 3)]
        expected = torch.stack([(view.logits / temperature).sigmoid() for view in found]).double().mean(0)
        averaged = head.probabilities(head.task.averaged(head, found).logits)
        torch.testing.assert_close(averaged.double(), expected, rtol=1e-4, atol=1e-6)

    def test_certainty_stays_finite(self) -> None:
        sure = HeadOutput(torch.tensor([[1000.0, 0.0, -1000.0]]))
        for task in ("classification", "multilabel", "segmentation"):
            head = head_of(task)
            averaged = head.task.averaged(head, [sure, sure])
            assert averaged.logits.isfinite().all()
            torch.testing.assert_close(head.probabilities(averaged.logits), head.probabilities(sure.logits))

    def test_a_loss_with_probabilities_of_its_own_must_say_how_they_become_logits(self) -> None:
        class Odd(SoftmaxCrossEntropyLoss):
            def probabilities(self, logits: Tensor) -> Tensor:
                return logits.abs() / logits.abs().sum(1, keepdim=True)

        head = head_of("classification", Odd(3))
        with pytest.raises(ConfigError, match="Odd does not say which logits"):
            head.task.averaged(head, [HeadOutput(drawn(2, 3))])

    def test_the_unknown_are_told_by_the_mean_length_of_the_features(self) -> None:
        head = head_of("open_set")
        lengths = torch.tensor([1.0, 2.0, 6.0])
        hidden = nn.functional.normalize(drawn(4, 8), dim=-1)
        found = [HeadOutput(drawn(4, 3), hidden * length) for length in lengths]
        averaged = head.task.averaged(head, found)
        torch.testing.assert_close(averaged.hidden, hidden * 3)

    def test_an_embedding_is_the_mean_direction(self) -> None:
        head = head_of("embedding")
        found = [
            HeadOutput(torch.tensor([[1.0, 0.0]]), x) for x in (torch.tensor([[4.0, 0.0]]), torch.tensor([[0, 2]]))
        ]
        averaged = head.task.averaged(head, found)
        torch.testing.assert_close(averaged.hidden, torch.full((1, 2), 3 * 0.5**0.5))
        torch.testing.assert_close(averaged.logits, torch.tensor([[1.0, 0.0]]))

    def test_a_score_is_the_mean(self) -> None:
        head = head_of("anomaly")
        averaged = head.task.averaged(
            head, [HeadOutput(torch.tensor([1.0, 5.0])), HeadOutput(torch.tensor([3.0, 5.0]))]
        )
        assert averaged.logits.tolist() == [2.0, 5.0]


class TestChoices:
    def test_flips_are_those_of_the_training(self) -> None:
        upright = {"f": {"_target_": "lightning_vision.augmentation.flip.RandomHorizontalFlip"}}
        both = upright | {"g": {"_target_": "lightning_vision.augmentation.vertical_flip.RandomVerticalFlip"}}
        assert views("flips", None) == ("horizontal_flip",)
        assert views("flips", {"blur": {"_target_": "lightning_vision.augmentation.blur.RandomBlur"}}) == views(
            "flips", upright
        )
        assert views("flips", both) == ("horizontal_flip", "vertical_flip")
        assert views("scales", both) == (0.75, 1.25)
        assert views([1.5, "vertical_flip"], None) == (1.5, "vertical_flip")
        assert views(None, both) == ()

    def test_what_means_nothing_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no overlap without tiles") as error:
            check_choices({"tile": None, "overlap": 0.5}, ["overlap"])
        assert "tile=512 overlap=0.5" in str(error.value)
        for tta in ([1, "horizontal_flip"], ["horizontal_flip", "horizontal_flip"]):
            with pytest.raises(ConfigError, match="a view counts once") as error:
                check_choices({"tta": tta}, [])
            assert "try:          tta=[horizontal_flip]" in str(error.value).replace("'", "")
        check_choices({"tile": 512, "overlap": 0.5, "tta": [0.5]}, ["overlap", "tile", "tta"])
