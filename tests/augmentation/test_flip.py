"""Mirroring."""

from __future__ import annotations

import torch

from lightning_vision.augmentation.flip import RandomHorizontalFlip


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    return image.repeat(8, 1, 1, 1), image[:, 0].repeat(8, 1, 1)


def test_each_sample_is_drawn_by_itself_and_the_mask_moves_with_it() -> None:
    image, mask = batch()
    flipped, moved = RandomHorizontalFlip(0.5)(image, mask, torch.Generator().manual_seed(0))
    chosen = [not torch.equal(a, b) for a, b in zip(image, flipped, strict=True)]
    assert 0 < sum(chosen) < len(chosen)
    for i, was_flipped in enumerate(chosen):
        assert torch.equal(flipped[i], image[i].flip(-1) if was_flipped else image[i])
        assert torch.equal(moved[i], mask[i].flip(-1) if was_flipped else mask[i])
    assert flipped.dtype == torch.uint8


def test_probability_zero_and_one() -> None:
    image, mask = batch()
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(RandomHorizontalFlip(0)(image, mask, generator)[0], image)
    assert torch.equal(RandomHorizontalFlip(1)(image, mask, generator)[1], mask.flip(-1))


def test_class_ids_stay() -> None:
    image, _ = batch()
    labels = torch.arange(16)
    assert torch.equal(RandomHorizontalFlip(1)(image, labels, torch.Generator())[1], labels)


def test_the_generator_decides() -> None:
    image, mask = batch()
    a = RandomHorizontalFlip()(image, mask, torch.Generator().manual_seed(3))[0]
    torch.rand(10)
    b = RandomHorizontalFlip()(image, mask, torch.Generator().manual_seed(3))[0]
    assert torch.equal(a, b)
