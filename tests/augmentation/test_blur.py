from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from lightning_vision.augmentation.blur import RandomBlur
from lightning_vision.errors import ConfigError


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 9])
@pytest.mark.parametrize("sigma", [None, 0.7, (0.1, 2.0)])
def test_as_torchvision_blurs(kernel_size: int, sigma: float | tuple[float, float] | None) -> None:
    image = torch.randint(0, 256, (6, 3, 8, 11), dtype=torch.uint8, generator=seeded())
    blur = RandomBlur(kernel_size, sigma, p=1)
    changed = blur(image, None, seeded())[0]
    generator = seeded()
    torch.rand(6, generator=generator)
    drawn = blur.draw(6, generator).tolist()
    assert len(set(drawn)) == (6 if isinstance(sigma, tuple) else 1)
    for one, before, each in zip(changed, image, drawn, strict=True):
        theirs = vision.gaussian_blur(before.double(), [kernel_size] * 2, None if sigma is None else [each] * 2)
        assert (one - theirs).abs().max() < 0.501


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 5)])
def test_an_image_smaller_than_the_square_is_mirrored_again_and_again(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (1, 1, *size), dtype=torch.uint8, generator=seeded())
    changed = RandomBlur(13, 3.0, p=1)(image, None, seeded())[0]
    weights = np.exp(-0.5 * (np.arange(-6, 7) / 3) ** 2)
    weights /= weights.sum()
    padded = np.pad(image[0, 0].double().numpy(), 6, mode="reflect")
    for y, x in np.ndindex(*size):
        expected = weights @ padded[y : y + 13, x : x + 13] @ weights
        assert abs(changed[0, 0, y, x].item() - expected) < 0.501


@pytest.mark.parametrize(
    ("arguments", "override"),
    [
        ({"kernel_size": 4}, "kernel_size=5"),
        ({"kernel_size": -3}, "kernel_size=1"),
        ({"sigma": 0.0}, r"sigma=\[0.1,2.0\]"),
        ({"sigma": (2.0, 1.0)}, r"sigma=\[0.1,2.0\]"),
        ({"sigma": (1.0,)}, r"sigma=\[0.1,2.0\]"),
    ],
)
def test_wrong_values_are_refused(arguments: dict[str, int], override: str) -> None:
    with pytest.raises(ConfigError, match=f"augmentation.random_blur.{override}"):
        RandomBlur(**arguments)
