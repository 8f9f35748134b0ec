from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_vision.augmentation.crop import RandomCrop


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Images whose pixels tell their row and column, and the same as class maps."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack((rows + 1, columns + 1)).to(torch.uint8).repeat(count, 1, 1, 1)
    return image, image[:, 0].long() * 100 + image[:, 1]


@pytest.mark.parametrize(("old", "padding"), [((20, 30), 0), ((20, 30), 3), ((9, 12), 0), ((9, 12), 2), ((8, 40), 1)])
def test_every_place_is_as_likely_and_no_pixel_changes(old: tuple[int, int], padding: int) -> None:
    size = (12, 12)
    image, mask = numbered(600, *old)
    new, moved = RandomCrop(size, padding, fill=0, ignored=7)(image, mask, seeded())
    assert new.shape == (600, 2, *size)
    assert moved is not None
    found: dict[tuple[int, int], int] = {}
    for one, ids in zip(new, moved, strict=True):
        inside = one[0] > 0
        assert inside.any()
        row = (one[0].int() - 1 - torch.arange(12)[:, None])[inside].unique()
        column = (one[1].int() - 1 - torch.arange(12))[inside].unique()
        assert len(row) == len(column) == 1, "a part as it was"
        assert torch.equal(ids, torch.where(inside, one[0].long() * 100 + one[1], 7))
        place = (int(row), int(column))
        found[place] = found.get(place, 0) + 1
    ways = [max(0, side + 2 * padding - 12) + 1 for side in old]
    lows = [-padding - max(0, 12 - side - 2 * padding) // 2 for side in old]
    places = {(lows[0] + i, lows[1] + j) for i in range(ways[0]) for j in range(ways[1])}
    assert set(found) <= places
    assert len(found) > 0.6 * len(places)
    for axis in (0, 1):
        mean = sum(place[axis] * times for place, times in found.items()) / 600
        assert mean == pytest.approx(lows[axis] + (ways[axis] - 1) / 2, abs=0.6)


def test_without_p_it_is_the_middle() -> None:
    image, mask = numbered(3, 20, 31)
    new, moved = RandomCrop((10, 11), p=0, ignored=255)(image, mask, seeded())
    assert torch.equal(new, image[:, :, 5:15, 10:21])
    assert moved is not None
    assert torch.equal(moved, mask[:, 5:15, 10:21])


def test_labels_masks_without_a_value_and_empty_batches() -> None:
    image, mask = numbered(3, 20, 31)
    labels = torch.arange(3)
    new, target = RandomCrop((10, 11))(image, labels, seeded(1))
    assert target is labels
    assert torch.equal(RandomCrop((10, 11))(image, None, seeded(1))[0], new)
    assert RandomCrop((10, 11))(image[:0], None, seeded())[0].shape == (0, 2, 10, 11)
    with pytest.raises(ValueError, match="padded"):
        RandomCrop((10, 11))(image, mask, seeded())
    moved = RandomCrop((10, 11), 0)(image, mask, seeded())[1]
    assert moved is not None
    assert moved.shape == (3, 10, 11)
