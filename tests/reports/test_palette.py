from __future__ import annotations

import numpy as np
import pytest

from lightning_vision.reports.palette import BACKGROUND, IGNORED, OKABE_ITO, class_palette, colorize, oklab


def test_given_colours_are_kept_and_missing_ones_are_added():
    given = ((1, 2, 3), (230, 159, 0))
    palette = class_palette(4, given)
    assert palette[:2] == given
    assert palette[2:] == OKABE_ITO[1:3], "a colour that is given already is not given to another class"
    assert class_palette(1, given) == given[:1]


def test_background_is_dark_and_colours_are_stable():
    assert class_palette(5)[0] == BACKGROUND
    assert class_palette(5)[1:] == OKABE_ITO[:4]
    assert class_palette(1) == OKABE_ITO[:1], "a single class is no background"
    assert class_palette(3, dark_background=False) == OKABE_ITO[:3]
    assert class_palette(60)[:20] == class_palette(20)


def test_no_class_needs_no_colour():
    assert class_palette(0) == ()


def test_a_hundred_classes_are_told_apart():
    space = oklab(np.array([*class_palette(100), IGNORED], dtype=np.uint8))
    distance = np.linalg.norm(space[:, None] - space[None], axis=-1)
    distance[np.diag_indices(101)] = 1
    assert distance.min() > 0.04


def test_few_classes_are_told_apart_with_a_red_green_deficiency():
    # Vienot, Brettel and Mollon (1999): what a deuteranope sees, in linear RGB.
    matrix = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    linear = (np.array(class_palette(8)) / 255) ** 2.2
    seen = np.clip(linear @ matrix.T, 0, 1) ** (1 / 2.2)
    space = oklab(np.round(seen * 255).astype(np.uint8))
    distance = np.linalg.norm(space[:, None] - space[None], axis=-1) + np.eye(8)
    assert distance.min() > 0.05


def test_more_classes_than_colours():
    palette = class_palette(5000)
    assert len(palette) == 5000
    assert len(set(palette)) > 2000


def test_oklab_of_known_colours():
    lab = oklab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=np.uint8))
    # Published values of the colour space.
    np.testing.assert_allclose(lab, [[1, 0, 0], [0, 0, 0], [0.6280, 0.2249, 0.1258]], atol=2e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_colorize(dtype):
    mask = np.array([[0, 1], [255, 1]], dtype=dtype)
    painted = colorize(mask, [(9, 8, 7), (1, 2, 3)], 255)
    np.testing.assert_array_equal(painted, [[(9, 8, 7), (1, 2, 3)], [IGNORED, (1, 2, 3)]])
    assert painted.dtype == np.uint8


def test_an_ignored_class_is_ignored_even_if_it_has_a_colour():
    assert tuple(colorize(np.zeros((1, 1), np.uint8), [(9, 8, 7)], 0)[0, 0]) == IGNORED


@pytest.mark.parametrize(("value", "ignore"), [(2, None), (2, 255), (-1, None), (255, 2)])
def test_values_that_are_no_class_are_named(value, ignore):
    with pytest.raises(ValueError, match=rf"\[{value}\] are no classes"):
        colorize(np.array([[0, value]], dtype=np.int64), [(0, 0, 0), (1, 1, 1)], ignore)


def test_a_mask_has_two_dimensions():
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        colorize(np.zeros((1, 2, 2), np.uint8), [(0, 0, 0)])
