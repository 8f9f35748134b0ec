"""What every random change of colour keeps to, whatever it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import color_change
from lightning_vision.augmentation.autocontrast import RandomAutocontrast
from lightning_vision.augmentation.blur import RandomBlur
from lightning_vision.augmentation.brightness import RandomBrightness
from lightning_vision.augmentation.color_change import ColorChange, FactorChange
from lightning_vision.augmentation.contrast import RandomContrast
from lightning_vision.augmentation.equalize import RandomEqualize
from lightning_vision.augmentation.gamma import RandomGamma
from lightning_vision.augmentation.grayscale import RandomGrayscale
from lightning_vision.augmentation.hue import RandomHue
from lightning_vision.augmentation.invert import RandomInvert
from lightning_vision.augmentation.posterize import RandomPosterize
from lightning_vision.augmentation.saturation import RandomSaturation
from lightning_vision.augmentation.sharpness import RandomSharpness
from lightning_vision.augmentation.solarize import RandomSolarize
from lightning_vision.errors import ConfigError

# Each with what torchvision makes of a float image in [0, 1] and the amount that was drawn, and how far its result may
# be from that, of 255: half a value for rounding, and luma of 0.2989, 0.587, 0.114, which add up to 0.9999.
CHANGES: dict[type[ColorChange], tuple[Callable[[Tensor, float], Tensor], float]] = {
    RandomBrightness: (vision.adjust_brightness, 0.501),
    RandomContrast: (vision.adjust_contrast, 0.53),
    RandomSaturation: (vision.adjust_saturation, 0.53),
    RandomHue: (vision.adjust_hue, 0.501),
    RandomGamma: (vision.adjust_gamma, 0.501),
    RandomSharpness: (vision.adjust_sharpness, 0.501),
    RandomBlur: (lambda x, sigma: vision.gaussian_blur(x, [3, 3], [sigma, sigma]), 0.501),
    RandomGrayscale: (lambda x, _: vision.rgb_to_grayscale(x, len(x)), 0.53),
    RandomAutocontrast: (lambda x, _: vision.autocontrast(x), 0.501),
    RandomEqualize: (lambda x, _: on_uint8(vision.equalize, x), 1e-6),
    RandomInvert: (lambda x, _: vision.invert(x), 1e-6),
    RandomPosterize: (lambda x, bits: on_uint8(vision.posterize, x, int(bits)), 1e-6),
    RandomSolarize: (lambda x, threshold: on_uint8(vision.solarize, x, threshold), 1e-6),
}
SAME_FOR_GREY = (RandomSaturation, RandomHue, RandomGrayscale)


def on_uint8(function: Callable[..., Tensor], image: Tensor, *arguments: float) -> Tensor:
    return function((255 * image).round().to(torch.uint8), *arguments).double() / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(channels: int = 3, count: int = 24) -> Tensor:
    image = torch.randint(0, 256, (count, channels, 21, 17), dtype=torch.uint8, generator=seeded(1))
    image[:, :, 0] = image[:, :1, 0]  # some grey pixels, which have no hue
    image[:, :, 1, :3] = torch.tensor([0, 255, 128], dtype=torch.uint8)
    image[0] = 77  # nothing to stretch
    image[1::2] = image[1::2] // 3 + 40
    image[2] = 5 + 9 * (image[2] > 99)
    return image


def amounts(change: ColorChange, count: int = 24) -> tuple[Tensor, Tensor]:
    """What is drawn with the first seed: whether, and by how much."""
    generator = seeded()
    return torch.rand(count, generator=generator) < change.p, change.draw(count, generator)


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_each_image_is_changed_as_torchvision_does(kind: type[ColorChange], channels: int) -> None:
    image, mask = batch(channels), torch.zeros(24, 21, 17)
    before, change = image.clone(), kind()
    changed, target = change(image, mask, seeded())
    assert target is mask
    assert changed.dtype == torch.uint8
    assert torch.equal(image, before)
    chosen, amount = amounts(change)
    assert 0 < chosen.sum() < 24
    assert torch.equal(changed[~chosen], image[~chosen])
    if channels in (2, 4):
        assert torch.equal(changed[:, -1], image[:, -1]), "alpha stays"
    colours = 1 if channels <= 2 else 3
    if colours == 1 and kind in SAME_FOR_GREY:
        assert torch.equal(changed, image)
        return
    function, within = CHANGES[kind]
    for i in chosen.nonzero().flatten().tolist():
        expected = 255 * function(image[i, :colours].double() / 255, amount[i].item())
        assert (changed[i, :colours] - expected).abs().max() < within
    assert not torch.equal(changed, image)


@pytest.mark.parametrize("kind", CHANGES)
def test_the_generator_decides(kind: type[ColorChange], monkeypatch: pytest.MonkeyPatch) -> None:
    image, change = batch(), kind()
    first = change(image, None, seeded(3))[0]
    torch.rand(9)
    assert torch.equal(first, change(image, None, seeded(3))[0])
    assert not torch.equal(first, change(image, None, seeded(4))[0])
    last = image.contiguous(memory_format=torch.channels_last)
    assert torch.equal(change(last, None, seeded(3))[0], first)
    # Images taken together, or one by one.
    monkeypatch.setattr(color_change, "IN_CACHE", 1)
    assert torch.equal(change(image, None, seeded(3))[0], first)
    assert change(image[:0], None, seeded())[0].shape == (0, 3, 21, 17)
    assert torch.equal(kind(p=0.0)(image, None, seeded())[0], image)
    with pytest.raises(ValueError, match="6 channels"):
        change(torch.zeros(9, 6, 2, 2, dtype=torch.uint8), None, seeded())


def test_how_often_and_how_much() -> None:
    image = torch.full((4000, 1, 1, 1), 100, dtype=torch.uint8)
    changed = RandomBrightness(0.5, 1.5, p=0.25)(image, None, seeded())[0].flatten()
    values = changed[changed != 100].double()
    assert len(values) / 4000 == pytest.approx(0.25, abs=0.025)
    assert values.min() >= 50
    assert values.max() <= 150
    assert values.mean().item() == pytest.approx(100, abs=3)
    assert values.std().item() == pytest.approx(100 / 12**0.5, abs=2)


@pytest.mark.parametrize("kind", [RandomBrightness, RandomContrast, RandomSaturation, RandomGamma, RandomSharpness])
@pytest.mark.parametrize("bounds", [(2.0, 1.0), (1.0, 1.0), (0.0, 1.0), (float("nan"), 1.0)])
def test_wrong_ranges_are_refused(kind: type[FactorChange], bounds: tuple[float, float]) -> None:
    name = "random_" + kind.__name__.removeprefix("Random").lower()
    with pytest.raises(ConfigError, match=rf"min less than max[^+]*{name}\.min=0\.5 augmentation\.{name}\.max=2"):
        kind(*bounds)
