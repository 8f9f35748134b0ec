"""The way back from the size that the model saw to that of each file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.decode import crop_or_pad
from lightning_vision.data.placement import CROPPED, SCALED, Resize
from lightning_vision.inference.restore import restore_size


class TestRestoreSize:
    @pytest.mark.parametrize("size", [(4, 9), (9, 4), (5, 8), (6, 6), (3, 3), (11, 12), (6, 7), (1, 20)])
    def test_crop_or_pad_puts_every_pixel_back_where_it_was(self, size: tuple[int, int]) -> None:
        # Each pixel of the file carries its own number through the preprocessing and back.
        file = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
        seen = crop_or_pad(file, (6, 7))
        back = restore_size(torch.from_numpy(seen).float().unsqueeze(0), size, CROPPED)[0]
        known = ~back.isnan()
        assert known.sum() == min(6, size[0]) * min(7, size[1])
        assert torch.equal(back[known], torch.from_numpy(file).float()[known])

    def test_interpolate_keeps_constants_and_centres(self) -> None:
        ramp = torch.arange(4.0).view(1, 1, 4).expand(2, 3, 4)
        back = restore_size(ramp, (6, 8), SCALED)
        assert back.shape == (2, 6, 8)
        assert back[0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]

    def test_half_precision_is_widened(self) -> None:
        for method in ("interpolate", "crop_or_pad", "resize_crop", "resize_pad"):
            assert (
                restore_size(torch.zeros(2, 3, 3, dtype=torch.bfloat16), (4, 4), Resize(method)).dtype == torch.float32
            )

    @given(st.integers(8, 70), st.integers(8, 70), st.sampled_from([0.5, 0.7, 0.875, 1.0]))
    def test_resize_crop_puts_every_pixel_back_where_it_was(self, height: int, width: int, fraction: float) -> None:
        # The coordinates of the file's pixels go through the preprocessing and come back as they were.
        seen, resize = (12, 10), Resize("resize_crop", fraction)
        scaled = resize.scaled((height, width), seen)
        rows, columns = (
            (np.arange(new) + 0.5) * (old / new) - 0.5 for old, new in zip((height, width), scaled, strict=True)
        )
        crop = [crop_or_pad(grid, seen, resize) for grid in np.meshgrid(rows, columns, indexing="ij")]
        back = restore_size(torch.from_numpy(np.stack(crop)), (height, width), resize)
        known = ~back.isnan().any(0)
        for axis, (file, new, kept) in enumerate(zip((height, width), scaled, seen, strict=True)):
            assert abs(known.any(1 - axis).sum() - kept * file / new) <= 1, "as much is known as the crop showed"
        expected = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()
        # Behind the outermost centres there is nothing to interpolate with: half a cell at most.
        assert (back - expected)[:, known].abs().max() <= max(0.5 * max(height, width) / min(scaled), 0.51)
        inner = torch.zeros_like(known)
        r, c = known.nonzero()[:, 0], known.nonzero()[:, 1]
        margin = int(max(height / scaled[0], width / scaled[1])) + 1
        inner[int(r.min()) + margin : int(r.max()) + 1 - margin, int(c.min()) + margin : int(c.max()) + 1 - margin] = 1
        if inner.any():
            assert (back - expected)[:, inner].abs().max() < 0.01


@pytest.mark.parametrize(
    ("file", "wanted", "fraction", "scaled"),
    [
        ((480, 640), (224, 224), 0.875, (256, 341)),
        ((640, 480), (224, 224), 0.875, (341, 256)),
        ((480, 640), (224, 224), 1.0, (224, 298)),
        ((100, 100), (50, 80), 1.0, (80, 80)),
        ((1, 1000), (8, 8), 1.0, (8, 8000)),
    ],
)
def test_resize_crop_scales_as_torchvision(
    file: tuple[int, int], wanted: tuple[int, int], fraction: float, scaled: tuple[int, int]
) -> None:
    assert Resize("resize_crop", fraction).scaled(file, wanted) == scaled
