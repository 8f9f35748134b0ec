from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import color_jitter
from lightning_vision.augmentation.color_jitter import ColorJitter


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 24) -> Tensor:
    image = torch.randint(0, 256, (count, channels, 9, 7), dtype=torch.uint8, generator=seeded(1))
    image[:, :, 0] = image[:, :1, 0]  # some grey pixels, which have no hue
    image[:, :, 1, :3] = torch.tensor([0, 255, 128], dtype=torch.uint8)
    return image


def off(**values: float) -> ColorJitter:
    return ColorJitter(**{"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grayscale": 0, "p": 1, **values})


STEPS = {
    "brightness": (color_jitter._brighten, vision.adjust_brightness, 1.0),
    "contrast": (color_jitter._contrast, vision.adjust_contrast, 1.0),
    "saturation": (color_jitter.saturate, vision.adjust_saturation, 1.0),
    "hue": (color_jitter.turn_hue, vision.adjust_hue, 0.5),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_change_is_torchvisions(name: str) -> None:
    ours, theirs, most = STEPS[name]
    colours = batch().double() / 255
    factors = torch.linspace(-most if name == "hue" else 0, most if name == "hue" else 2, len(colours)).double()
    changed = ours(colours, factors.view(-1, 1, 1, 1)).clamp(0, 1)
    for one, before, factor in zip(changed, colours, factors.tolist(), strict=True):
        # Their luma is rounded to 0.2989, 0.587, 0.114, which add up to 0.9999.
        torch.testing.assert_close(one, theirs(before, factor), rtol=0, atol=4e-4)


@pytest.mark.parametrize("name", STEPS)
def test_factors_are_drawn_evenly_for_each_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    step = STEPS[name][0]

    def spy(colours: Tensor, factor: Tensor) -> Tensor:
        drawn.append(factor.flatten())
        return step(colours, factor)

    monkeypatch.setattr(color_jitter, step.__name__, spy)
    monkeypatch.setattr(color_jitter, "IN_CACHE", 1)
    image = batch(count=600)
    off(**{name: 0.3})(image, None, seeded())
    values = torch.cat(drawn)
    assert len(values) == 600
    middle = 0.0 if name == "hue" else 1.0
    assert values.min() >= middle - 0.3
    assert values.max() <= middle + 0.3
    assert values.mean().item() == pytest.approx(middle, abs=0.03)
    assert values.std().item() == pytest.approx(0.6 / 12**0.5, abs=0.02)


def test_no_factor_is_below_zero() -> None:
    image = torch.full((200, 1, 2, 2), 100, dtype=torch.uint8)
    changed = off(brightness=2.0)(image, None, seeded())[0].flatten(1).amax(1)
    # Evenly from 0 to 3; from 2.55 on it is white.
    assert (changed == 255).double().mean().item() == pytest.approx(0.15, abs=0.06)
    assert (changed < 100).double().mean().item() == pytest.approx(1 / 3, abs=0.08)


def test_changes_come_in_every_order() -> None:
    # Bright first is not sharp first; torchvision's steps in the one or the other order give every image.
    image = batch(count=1).expand(64, -1, -1, -1)
    jitter = off(brightness=0.8, contrast=0.8)
    changed = jitter(image, None, seeded())[0]
    generator = seeded()
    torch.rand(64, generator=generator)
    drawn = torch.rand((64, 4), generator=generator)
    found = set()
    for one, before, numbers in zip(changed, image, drawn.tolist(), strict=True):
        bright, sharp = (0.2 + 1.6 * number for number in numbers[:2])
        for order in ("bright first", "sharp first"):
            steps = [(vision.adjust_brightness, bright), (vision.adjust_contrast, sharp)]
            expected = before.float() / 255
            for step, factor in steps if order == "bright first" else steps[::-1]:
                expected = step(expected, factor)
            if ((expected * 255) - one.float()).abs().max() < 0.6:
                found.add(order)
                break
        else:
            raise AssertionError("neither order gives this image")
    assert len(found) == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_number_of_channels(channels: int) -> None:
    image = batch(channels)
    changed, _ = ColorJitter(grayscale=0.5)(image, None, seeded())
    assert changed.dtype == torch.uint8
    assert changed.shape == image.shape
    assert changed.stride() == image.stride()
    assert not torch.equal(changed, image)
    if channels in (2, 4):
        assert torch.equal(changed[:, -1], image[:, -1]), "alpha stays"
    if channels <= 2:
        assert torch.equal(off(saturation=0.9, hue=0.5, grayscale=1)(image, None, seeded())[0], image), "no colours"
    # The same draws change grey alike, whether it comes as one channel or as three equal ones.
    if channels == 1:
        three = ColorJitter(0.4, 0.4, 0, 0, 0)(image.expand(-1, 3, -1, -1), None, seeded())[0]
        one = ColorJitter(0.4, 0.4, 0, 0, 0)(image, None, seeded())[0]
        assert (three.int() - one.int()).abs().max() <= 1


def test_more_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="6 channels"):
        ColorJitter()(torch.zeros(1, 6, 2, 2, dtype=torch.uint8), None, seeded())


def test_grayscale_and_probability() -> None:
    image = batch(count=400)
    gray = off(grayscale=0.3)(image, None, seeded())[0]
    without = (gray == gray[:, :1]).flatten(1).all(1)
    assert without.double().mean().item() == pytest.approx(0.3, abs=0.06)
    assert torch.equal(gray[~without], image[~without])
    expected = vision.rgb_to_grayscale(image[without].float(), 3)
    assert (gray[without].float() - expected).abs().max() < 0.6
    jittered = ColorJitter(grayscale=0, p=0.25)(image, None, seeded())[0]
    assert (jittered != image).flatten(1).any(1).double().mean().item() == pytest.approx(0.25, abs=0.06)
    assert torch.equal(ColorJitter(grayscale=0, p=0)(image, None, seeded())[0], image)
    assert torch.equal(off()(image, None, seeded())[0], image)


def test_the_way_through_the_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = batch(), torch.arange(24)
    before = image.clone()
    expected, target = ColorJitter()(image, labels, seeded(3))
    assert target is labels
    assert torch.equal(image, before)
    for floats in (1, 5 * image[0].numel()):
        monkeypatch.setattr(color_jitter, "IN_CACHE", floats)
        assert torch.equal(ColorJitter()(image, None, seeded(3))[0], expected)
    last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ColorJitter()(last, None, seeded(3))[0], expected)
    assert ColorJitter()(image[:0], None, seeded())[0].shape == (0, 3, 9, 7)
