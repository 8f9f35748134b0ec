"""Windows that cover an image, and their blend beside a plain loop in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lightning_vision.inference.choices import tile_size
from lightning_vision.inference.tiling import Tiling, hann, tiled_classes

CLASSES = 3
SIDES = st.integers(1, 60)
OVERLAPS = st.floats(0, 0.95)


def scores_of(window: Tensor) -> Tensor:
    """Probabilities ``(K, h, w)`` that depend on where a pixel lies in its window, as those of a network do."""
    _, height, width = window.shape
    y = torch.linspace(-1, 1, height)[:, None] * torch.linspace(0.5, 1, width)
    scores = torch.stack([window[0] / 64.0, window[0] / 50.0 + y, 3 * y.square()])
    return scores.softmax(0)


def predict(windows: Tensor) -> Iterator[Tensor]:
    for window in windows.float():
        yield scores_of(window)


def image_of(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (1, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def naive(image: Tensor, tile: tuple[int, int], overlap: float) -> NDArray[np.float64]:
    """The blended probabilities of the whole image at once, in double precision, ``(K, H, W)``."""
    size = image.shape[1:]
    corners = []
    for side, length in zip(size, tile, strict=True):
        step, starts, at = max(1, round(length * (1 - overlap))), [], 0
        while at + length < side:
            starts.append(at)
            at += step
        corners.append([*starts, max(0, side - length)])
    sums, weights = np.zeros((CLASSES, *size)), np.zeros(size)
    for top in corners[0]:
        for left in corners[1]:
            window = image[:, top : top + tile[0], left : left + tile[1]].float()
            p = scores_of(window).double().numpy()
            for i in range(p.shape[1]):
                for j in range(p.shape[2]):
                    weight = math.sin(math.pi * (i + 0.5) / p.shape[1]) ** 2
                    weight *= math.sin(math.pi * (j + 0.5) / p.shape[2]) ** 2
                    sums[:, top + i, left + j] += weight * p[:, i, j]
                    weights[top + i, left + j] += weight
    assert (weights > 0).all()
    return sums / weights


class TestWindows:
    @given(SIDES, SIDES, SIDES, SIDES, OVERLAPS)
    def test_no_pixel_is_left_out_and_none_beyond_the_image_is_taken(
        self, height: int, width: int, tile_height: int, tile_width: int, overlap: float
    ) -> None:
        covered = np.zeros((height, width), bool)
        for top, left in Tiling((tile_height, tile_width), overlap).corners((height, width)):
            bottom, right = top + min(tile_height, height), left + min(tile_width, width)
            assert top >= 0
            assert bottom <= height
            assert left >= 0
            assert right <= width
            covered[top:bottom, left:right] = True
        assert covered.all()

    @pytest.mark.parametrize(
        ("size", "tile", "overlap", "tops"),
        [
            (1000, 512, 0.25, [0, 384, 488]),  # as MONAI's sliding window, whose last one is shifted inwards too
            (1024, 512, 0.0, [0, 512]),
            (512, 512, 0.5, [0]),
            (100, 512, 0.5, [0]),
            (5, 4, 0.99, [0, 1]),
        ],
    )
    def test_where_they_begin(self, size: int, tile: int, overlap: float, tops: list[int]) -> None:
        assert Tiling((tile, 9), overlap).corners((size, 9)) == [(top, 0) for top in tops]

    def test_one_number_is_the_longer_side_of_the_inputs_shape(self) -> None:
        assert tile_size(512, (256, 256)) == (512, 512)
        assert tile_size(512, (192, 256)) == (384, 512)
        assert tile_size([300, 500], (192, 256)) == (300, 500)

    @pytest.mark.parametrize("length", [1, 2, 7, 512, 6000])
    def test_no_weight_is_zero_and_both_sides_count_alike(self, length: int) -> None:
        weight = hann(length)
        assert (weight > 0).all()
        torch.testing.assert_close(weight, weight.flip(0))


class TestBlend:
    @settings(max_examples=25)
    @given(st.integers(1, 23), st.integers(1, 23), st.integers(1, 9), st.integers(1, 9), OVERLAPS, st.integers(1, 5))
    def test_as_a_plain_loop_over_the_whole_image(
        self, height: int, width: int, tile_height: int, tile_width: int, overlap: float, batch_size: int
    ) -> None:
        image = image_of(height, width)
        found = tiled_classes(image, predict, Tiling((tile_height, tile_width), overlap), batch_size)
        blended = naive(image, (tile_height, tile_width), overlap)
        assert found.dtype == np.uint8
        chosen = np.take_along_axis(blended, found[None].astype(np.int64), 0)[0]
        # Where two classes come out alike, the last digits decide.
        np.testing.assert_allclose(chosen, blended.max(0), rtol=0, atol=1e-6)

    def test_tiles_without_overlap_are_images_of_their_own(self) -> None:
        image = image_of(12, 20)
        found = tiled_classes(image, predict, Tiling((4, 5), 0.0), 3)
        for top in range(0, 12, 4):
            for left in range(0, 20, 5):
                alone = scores_of(image[:, top : top + 4, left : left + 5].float()).argmax(0)
                assert np.array_equal(found[top : top + 4, left : left + 5], alone.numpy())

    def test_a_prediction_of_the_pixel_alone_has_no_seams(self) -> None:
        image = image_of(37, 41)

        def of_pixels(windows: Tensor) -> Iterator[Tensor]:
            for window in windows.float():
                yield torch.cat([window / 255, 1 - window / 255])

        found = tiled_classes(image, of_pixels, Tiling((8, 8), 0.4), 4)
        assert np.array_equal(found, (image[0] < 128).numpy().astype(np.uint8))
