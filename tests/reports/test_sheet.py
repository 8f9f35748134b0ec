from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.errors import DataError
from lightning_vision.reports.palette import IGNORED, class_palette
from lightning_vision.reports.sheet import (
    RIGHT,
    UNKNOWN,
    WRONG,
    as_rgb,
    label_sheet,
    label_sheet_image,
    legend_image,
    mask_sheet,
    mask_sheet_image,
    overlay,
)

PALETTE = ((10, 20, 30), (200, 0, 100))


def colours(image):
    return {tuple(c) for c in np.asarray(image).reshape(-1, 3)}


def test_overlay_at_known_pixels():
    image = np.full((2, 2, 3), 100, np.uint8)
    mask = np.array([[0, 1], [255, 0]], np.uint8)
    drawn = overlay(image, mask, PALETTE, 255)
    np.testing.assert_array_equal(drawn, [[(55, 60, 65), (150, 50, 100)], [(100, 100, 100), (55, 60, 65)]])
    np.testing.assert_array_equal(overlay(image, mask, PALETTE, 255, alpha=0), image)
    assert tuple(overlay(image, mask, PALETTE, 255, alpha=1)[0, 1]) == PALETTE[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_overlay_is_the_weighted_mean(seed, alpha):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mask = rng.integers(0, 2, (5, 7), dtype=np.uint8)
    expected = (1 - alpha) * image + alpha * np.array(PALETTE)[mask]
    # Half a step of rounding, and half of a 256th of the weight.
    assert np.abs(overlay(image, mask, PALETTE, alpha=alpha) - expected).max() <= 1.0


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, (7, 7, 7)), (2, (7, 7, 7)), (3, (7, 8, 9)), (4, (7, 8, 9)), (None, (7, 7, 7))]
)
def test_channels_of_an_image(channels, expected):
    image = np.full((1, 1), 7, np.uint8) if channels is None else np.array([[[7, 8, 9, 1][:channels]]], np.uint8)
    assert tuple(as_rgb(image)[0, 0]) == expected


def test_what_cannot_be_overlaid_is_refused():
    image, mask = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="differ in size"):
        overlay(image, mask[:1], PALETTE)
    with pytest.raises(ValueError, match="alpha"):
        overlay(image, mask, PALETTE, alpha=1.5)
    with pytest.raises(ValueError, match="uint8"):
        overlay(image.astype(np.float32), mask, PALETTE)
    with pytest.raises(ValueError, match="no classes"):
        overlay(image, mask + 9, PALETTE)


def sample(size=(40, 60), truth=True, title="picture.jpg  IoU 0.5"):
    image = np.full((*size, 3), 123, np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[:, size[1] // 2 :] = 1
    ignored = mask.copy()
    ignored[: size[0] // 2] = 255
    return image, ignored if truth else None, mask, title


def test_mask_sheet_shows_image_truth_and_prediction_pixel_by_pixel():
    page = np.asarray(mask_sheet_image([sample()], ["sky", "road"], PALETTE, 255))
    # 40 x 60 is enlarged five times (340 // 60) into three tiles side by side, above a margin of 16 pixels.
    row = page[-16 - 200 : -16, 16:-16]
    image, truth, prediction = row[:, :300], row[:, 310:610], row[:, 620:920]
    assert row.shape[1] == 920
    assert colours(image) == {(123, 123, 123)}
    assert colours(truth[:100]) == {IGNORED}
    assert colours(truth[100:, :150]) == {PALETTE[0]}
    assert colours(truth[100:, 150:]) == {PALETTE[1]}
    assert colours(prediction[:, :150]) == {PALETTE[0]}
    assert colours(prediction[:, 150:]) == {PALETTE[1]}


def test_legend_names_what_occurs_only():
    palette = class_palette(100)
    image, _, mask, title = sample(truth=False)
    page = mask_sheet_image(
        [(image, None, np.where(mask == 1, 42, 7), title)], [f"c{i}" for i in range(100)], palette, 255
    )
    legend = colours(page.crop((0, 0, page.width, 40)))
    assert {palette[7], palette[42]} <= legend
    assert palette[8] not in legend
    assert IGNORED not in legend


def test_a_hundred_classes_that_all_occur():
    mask = np.arange(100, dtype=np.uint8).reshape(10, 10)
    names = [f"a rather long name of class {i}" for i in range(100)]
    page = mask_sheet_image([(np.zeros((10, 10, 3), np.uint8), mask, mask, "x")], names, class_palette(100), None)
    assert page.width < 1200
    assert set(class_palette(100)) <= colours(page)


def test_sheet_without_truth_has_two_columns_and_missing_ones_stay_empty():
    two = mask_sheet_image([sample(truth=False)], ["a", "b"], PALETTE, 255)
    three = mask_sheet_image([sample(truth=False), sample()], ["a", "b"], PALETTE, 255)
    assert two.width == 2 * 16 + 2 * 300 + 10
    assert three.width == 2 * 16 + 3 * 300 + 2 * 10


def test_other_sizes_keep_their_aspect_ratio(tmp_path):
    samples = [sample((1000, 500)), sample((3, 900)), sample((1, 1))]
    page = np.asarray(mask_sheet_image(samples, ["a", "b"], PALETTE, 255))
    grey = (page == 123).all(-1)
    first = grey[np.flatnonzero(grey.any(1))[0]]
    assert first.sum() == 170, "500 x 1000 (width x height) is shown as 170 x 340"


def test_all_ignored_and_one_class(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    ignored = np.full((8, 8), 255, np.uint8)
    mask_sheet([(image, ignored, ignored * 0, "x")], ["only"], class_palette(1), 255, tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as page:
        assert {IGNORED, class_palette(1)[0]} <= colours(page.convert("RGB"))


def test_masks_of_another_size_than_the_image():
    image = np.full((80, 120, 3), 123, np.uint8)
    mask = np.array([[0, 1]], np.uint8)
    page = np.asarray(mask_sheet_image([(image, None, mask, "x")], ["a", "b"], PALETTE, None))
    prediction = page[-16 - 160 : -16, 16 + 240 + 10 : -16]
    assert colours(prediction[:, :120]) == {PALETTE[0]}
    assert colours(prediction[:, 120:]) == {PALETTE[1]}


def test_label_sheet_marks_right_and_wrong():
    image = np.full((50, 50, 3), 77, np.uint8)
    samples = [
        (image, "rain", "rain", 0.9, "a.jpg"),
        (image, "rain", "sun", 0.6, "b.jpg"),
        (image, None, "sun", 1.0, "c"),
    ]
    page = np.asarray(label_sheet_image(samples))
    corners = [tuple(page[16, 16 + i * 216]) for i in range(2)]
    assert corners == [RIGHT, WRONG]
    assert UNKNOWN in colours(page)
    assert tuple(page[16 + 103, 16 + 103]) == (77, 77, 77)


def test_odd_names_and_titles(tmp_path):
    image = np.zeros((5, 200, 1), np.uint8)
    odd = "日本 ÄÖÜ\t\n\ud800 " + "very/long/" * 200
    label_sheet([(image, odd, odd, 0.5, odd), (image, "x", odd, float("nan"), "")], tmp_path / "l.png")
    mask_sheet([(image, None, image[..., 0], odd)], [odd], class_palette(1), None, tmp_path / "m.png")
    for name in ("l.png", "m.png"):
        with Image.open(tmp_path / name) as page:
            assert page.width < 1200


def test_no_samples(tmp_path):
    label_sheet([], tmp_path / "l.png")
    mask_sheet([], ["a"], [(0, 0, 0)], None, tmp_path / "m.png")
    for name in ("l.png", "m.png"):
        with Image.open(tmp_path / name) as page:
            assert np.asarray(page).min() < 200, "it says that there are none"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write into the folder .*file"):
        label_sheet([], tmp_path / "file" / "l.png")


@pytest.mark.parametrize("count", [1, 2, 11, 150, 256])
def test_a_legend_of_all_classes(count):
    palette = class_palette(count)
    page = legend_image([f"日本語 a very long name of a class {i}" * 2 for i in range(count)], palette, ignored=True)
    assert {*palette, IGNORED} <= colours(page)
    assert page.width < 1300
    assert page.height < 1600
