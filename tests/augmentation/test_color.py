"""Changes of colour on images of any size and any values, beside torchvision's."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation import color


@st.composite
def images(draw: st.DrawFn) -> Tensor:
    """A batch, each image with values between bounds of its own: some have one value alone."""
    height, width, channels = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.sampled_from([1, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    bounds = torch.tensor(draw(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=4)))
    low, high = (bound.view(-1, 1, 1, 1) for bound in bounds.sort(1).values.unbind(1))
    shares = torch.rand((len(bounds), channels, height, width), generator=generator)
    return (low + shares * (high - low + 1)).floor().to(torch.uint8)


@settings(max_examples=40, deadline=None)
@given(images())
def test_those_without_an_amount(image: Tensor) -> None:
    assert torch.equal(color.equalize(image), vision.equalize(image))
    assert torch.equal(color.invert(image), vision.invert(image))
    assert (color.autocontrast(image) - 255 * vision.autocontrast(image.double() / 255)).abs().max() < 0.501
    assert (color.grayscale(image).int() - vision.rgb_to_grayscale(image, image.shape[1]).int()).abs().max() <= 1


@settings(max_examples=40, deadline=None)
@given(images(), st.floats(0, 3, width=32), st.integers(0, 8), st.integers(0, 255))
def test_those_with_an_amount(image: Tensor, factor: float, bits: int, threshold: int) -> None:
    def all_by(amount: float) -> Tensor:
        return torch.full((len(image),), float(amount))

    pixels = image.double() / 255
    for ours, theirs in (
        (color.adjust_brightness, vision.adjust_brightness),
        (color.adjust_contrast, vision.adjust_contrast),
        (color.adjust_saturation, vision.adjust_saturation),
        (color.adjust_gamma, vision.adjust_gamma),
        (color.adjust_sharpness, vision.adjust_sharpness),
    ):
        # Rounded once; theirs has luma that adds up to 0.9999.
        assert (ours(image, all_by(factor)) - 255 * theirs(pixels, factor)).abs().max() < 0.56
    assert torch.equal(color.posterize(image, all_by(bits)), vision.posterize(image, bits))
    assert torch.equal(color.solarize(image, all_by(threshold)), vision.solarize(image, threshold))
    assert torch.equal(color.solarize(image, all_by(256)), image)
    added = torch.where(image < 128, (image.int() + threshold).clamp(max=255), image)
    assert torch.equal(color.solarize_add(image, all_by(threshold)), added.to(torch.uint8))
