"""The LightningModule's own work: normalisation, the random numbers of a step, and the way back to an image's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_vision.config import compose
from lightning_vision.data.decode import crop_or_pad
from lightning_vision.data.placement import Resize
from lightning_vision.decoders.classifier import ClassifierDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput
from lightning_vision.losses.cross_entropy import SoftmaxCrossEntropyLoss
from lightning_vision.metrics import iou
from lightning_vision.module import Normalize, VisionModule, _mix
from lightning_vision.resolve import resolve
from lightning_vision.tasks.classification import Classification
from lightning_vision.tasks.segmentation import Segmentation
from lightning_vision.testing.encoders import TinyEncoder
from lightning_vision.types import IMAGENET_STATS, Geometry, PixelStats, TargetSpec


class TestNormalize:
    def test_uint8_and_float_pixels_give_the_textbook_values(self) -> None:
        image = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in IMAGENET_STATS.__dict__.values())
        expected = (image.double() / 255 - mean) / std
        for given in (image, image.float() / 255):
            found = Normalize(IMAGENET_STATS)(given)
            assert found.dtype == torch.float32
            assert torch.allclose(found.double(), expected, atol=2e-6)

    def test_black_and_white_without_standardisation_are_exact(self) -> None:
        image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
        assert Normalize(PixelStats((0.0,), (1.0,)))(image).flatten().tolist() == pytest.approx([0, 1], abs=1e-7)

    def test_its_statistics_travel_with_the_checkpoint(self) -> None:
        other = Normalize(PixelStats((0.0,) * 3, (1.0,) * 3))
        other.load_state_dict(Normalize(IMAGENET_STATS).state_dict())
        image = torch.randint(0, 256, (1, 3, 2, 2), dtype=torch.uint8)
        assert torch.equal(other(image), Normalize(IMAGENET_STATS)(image))


class Draws(nn.Module):
    """An augmentation that remembers what it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        self.seen.append(float(torch.rand((), generator=generator)))
        return image, target


def build(task: str = "label", **more: Any) -> VisionModule:
    target = TargetSpec("mask" if task == "mask" else "label", ("a", "b", "c"), ignore_index=9)
    encoder = TinyEncoder()
    chosen = Segmentation(target) if task == "mask" else Classification(target)
    return VisionModule(
        encoder,
        {"output": Head(ClassifierDecoder(encoder.info, 3), chosen, SoftmaxCrossEntropyLoss(3))},
        Geometry(8, 8, 3),
        IMAGENET_STATS,
        **more,
    )


def batch() -> Any:
    image = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    return {"image": image, "target": torch.tensor([0, 1, 2, 0]), "index": torch.arange(4)}


class TestAverageOfHorizontalFlips:
    def test_the_embedding_is_the_mean_of_both(self) -> None:
        module = build(average_horizontal_flips=True).eval()
        image = batch()["image"]
        pixels = module.normalize(image)
        alone = [module.encoder.embed(p) for p in (pixels, pixels.flip(-1))]
        assert not torch.allclose(*alone)
        expected = module.head().decoder(torch.stack(alone).mean(0), (16, 16))
        assert torch.allclose(module(image), expected, atol=1e-6)
        assert torch.allclose(module(image.flip(-1)), expected, atol=1e-6)
        assert module(image[:0]).shape == (0, 3)

    def test_it_is_in_training_and_validation(self) -> None:
        module = build(average_horizontal_flips=True)
        one = batch()
        mirrored = {**one, "image": one["image"].flip(-1)}
        losses = [module._outputs_and_losses(b)[1]["output"] for b in (one, mirrored)]
        assert torch.allclose(*losses)
        losses[0].backward()
        assert all(p.grad is not None for p in module.encoder.parameters() if p.requires_grad)

    @pytest.mark.parametrize(
        ("word", "override"),
        [
            ("decoder=unet", "decoder=classifier"),
            ("decoder=pretrained", "decoder=classifier"),
            (
                "outputs={label: {decoder: classifier, reduce_input: mean}}",
                r"outputs\.label\.reduce_input=null",
            ),
        ],
    )
    def test_outputs_that_take_no_embedding_are_refused(self, word: str, override: str) -> None:
        message = (
            rf"(?s)takes none.*average_horizontal_flips=true with .*try: +average_horizontal_flips=false.*{override}"
        )
        with pytest.raises(ConfigError, match=message):
            resolve(compose([word, "average_horizontal_flips=true", "encoder=resnet"]))


class TestRandomNumbersOfAStep:
    @staticmethod
    def draws(seed: int, steps: list[int]) -> list[float]:
        draws = Draws()
        module = build(augmentation=[draws], seed=seed)
        for step in steps:
            module.on_train_batch_start(batch(), step)
            module.training_step(batch(), step)
        return draws.seen

    def test_they_depend_on_seed_and_step_alone(self) -> None:
        first = self.draws(0, [0, 1, 2])
        torch.rand(100)
        assert self.draws(0, [2]) == first[2:], "a run that is resumed at step 2 draws what the whole run drew"
        assert len(set(first)) == 3
        assert self.draws(1, [0, 1, 2]) != first

    def test_neighbours_have_unrelated_seeds(self) -> None:
        seeds = {_mix(s, e, b, r) for s in range(3) for e in range(5) for b in range(20) for r in range(3)}
        assert len(seeds) == 3 * 5 * 20 * 3
        assert all(0 <= s < 2**63 for s in seeds)


class Doubled(nn.Module):
    """Adds one to all that it is given, and remembers how much that was."""

    each_input = True

    def forward(self, image: Tensor, target: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        self.seen = tuple(image.shape)
        image = image.clone()
        image[::2] += 1
        return image, target


def test_colours_change_in_each_image_of_a_sample_by_itself() -> None:
    doubled = Doubled()
    module = build(augmentation=[doubled])
    module.geometry = Geometry(8, 8, 3, 2)
    image = torch.randint(0, 250, (4, 6, 8, 8), dtype=torch.uint8)
    given = {"image": image, "target": torch.tensor([0, 1, 2, 0]), "index": torch.arange(4)}
    changed = module._augmented(given, torch.Generator())  # type: ignore[arg-type]
    assert doubled.seen == (8, 3, 8, 8)
    assert torch.equal(changed["image"][:, :3], image[:, :3] + 1)
    assert torch.equal(changed["image"][:, 3:], image[:, 3:])


def test_a_batch_of_one_that_batch_norm_cannot_use_is_an_error_for_people() -> None:
    module = build().train()
    decoder, norm = module.head().decoder, nn.BatchNorm1d(module.encoder.info.embed_dim)
    hidden = decoder.hidden
    decoder.hidden = lambda features, size: norm(hidden(features, size))  # type: ignore[method-assign]
    two = {name: value[:2] for name, value in batch().items()}
    assert module.training_step(two, 0) > 0
    with pytest.raises(ConfigError, match=r"(?s)batch of one image.*try: +batch_size=2"):
        module.training_step({name: value[:1] for name, value in two.items()}, 0)


def test_an_empty_batch_of_a_short_rank_counts_for_nothing() -> None:
    module = build().eval()
    module.validation_step(batch(), 0)
    before = module.head().val_scores.confusion.clone()
    empty = {key: value[:0] for key, value in batch().items()}
    module.validation_step(empty, 1)
    assert torch.equal(module.head().val_scores.confusion, before)
    assert before.sum() == 4


class Rows:
    """The part of a data module that a test step asks for."""

    def __init__(self, mask: np.ndarray, size: tuple[int, int], method: str) -> None:
        self.mask, self.size = mask, size
        self.preprocessing = type("Preprocessing", (), {"resize": Resize(method)})

    def original_mask(self, row: int) -> np.ndarray:
        return self.mask

    def original_size(self, row: int) -> tuple[int, int]:
        return self.size


@pytest.mark.parametrize("scale", [1, 2], ids=["mask like image", "mask twice as fine"])
@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad"])
def test_the_score_at_the_original_size_sees_a_perfect_prediction_as_one(method: str, scale: int) -> None:
    image_truth = np.zeros((12, 10), np.uint8)
    image_truth[2:7, 3:8] = 1
    mask = image_truth.repeat(scale, 0).repeat(scale, 1)
    seen = crop_or_pad(image_truth, (8, 8)) if method == "crop_or_pad" else image_truth
    logits = nn.functional.one_hot(torch.from_numpy(seen).long(), 3).permute(2, 0, 1)[None].float()
    module = build("mask")
    module._evaluate = lambda *given: {"output": HeadOutput(logits)}  # type: ignore[method-assign]
    trainer = type("Trainer", (), {"datamodule": Rows(mask, (12, 10), method)})
    module._trainer = trainer  # type: ignore[assignment]
    module._fabric = None
    module.test_step({"index": torch.tensor([0])}, 0)  # type: ignore[typeddict-item]
    scores = module.head().original_scores
    assert scores is not None
    confusion = scores.compute()["confusion"]
    pixels = mask.size if method == "interpolate" else 64 * scale**2
    assert confusion.sum() == pixels, "pixels that were cut away are not scored"
    # Bilinear logits at twice the size round the corners of the square.
    assert iou(confusion)[:2].min() == pytest.approx(1, abs=0 if scale == 1 or method == "crop_or_pad" else 0.1)
    assert iou(confusion)[:2].min() > 0.9
