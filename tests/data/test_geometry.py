from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_vision.data.decode import decode_image, decode_sized
from lightning_vision.data.geometry import common_channels, infer_geometry
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image
from lightning_vision.types import Geometry


def index_of(paths: list[Path], split: list[int] | None = None) -> SampleIndex:
    splits = np.array(split or [0] * len(paths), np.uint8)
    return SampleIndex(PackedStrings.from_strings(map(str, paths)), splits)


@pytest.fixture
def index(tmp_path: Path) -> SampleIndex:
    paths = [write_image(tmp_path / f"{i}.png", 40 + i, 300 + i) for i in range(3)]
    return index_of(paths, [2, 0, 0])


def test_the_first_training_image_decides(index: SampleIndex) -> None:
    assert infer_geometry(index, Preprocessing()) == Geometry(41, 256, 3)
    assert infer_geometry(index, Preprocessing(infer_image_max_height=20)) == Geometry(20, 256, 3)
    assert infer_geometry(index, Preprocessing(requires_equal_dimensions=True)) == Geometry(41, 41, 3)


def test_the_first_readable_one(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    paths = [tmp_path / "bad.png", write_image(tmp_path / "a.jpg", 20, 30, "L", orientation=6)]
    assert infer_geometry(index_of(paths), Preprocessing()) == Geometry(30, 20, 1)
    with pytest.raises(DataError, match=r"none of the first 1 images.*\n.*bad\.png"):
        infer_geometry(index_of(paths[:1]), Preprocessing())
    with pytest.raises(DataError, match="channels cannot be inferred"):
        infer_geometry(index_of(paths[:1]), Preprocessing(), 32)


def test_without_training_images_all_are_looked_at(index: SampleIndex) -> None:
    assert infer_geometry(index.as_split("test"), Preprocessing()).height == 40


@pytest.mark.parametrize("size", [64, [48, 64], (48, 64)])
def test_image_size_goes_first(index: SampleIndex, size: int | list[int]) -> None:
    expected = (64, 64) if size == 64 else (48, 64)
    for said_twice in (Preprocessing(), Preprocessing(height=expected[0], width=expected[1])):
        geometry = infer_geometry(index, said_twice, size)
        assert (geometry.height, geometry.width) == expected


@pytest.mark.parametrize("given_", [{"height": 10, "width": 64}, {"height": 64, "width": 10}, {"width": 10}])
def test_two_sizes_that_differ_are_refused(index: SampleIndex, given_: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="contradict each other"):
        infer_geometry(index, Preprocessing(**given_), 64)


def test_height_and_width(index: SampleIndex) -> None:
    # Given sizes are not capped: the cap is for inferred ones.
    assert infer_geometry(index, Preprocessing(height=500, width=11)) == Geometry(500, 11, 3)
    for given_ in ({"height": 10}, {"width": 10}):
        with pytest.raises(ConfigError, match="is given without"):
            infer_geometry(index, Preprocessing(**given_))
    with pytest.raises(ConfigError, match="no size is given"):
        infer_geometry(index, Preprocessing(infer_image_dimensions=False))
    with pytest.raises(ConfigError, match="sides differ"):
        infer_geometry(index, Preprocessing(requires_equal_dimensions=True), [10, 11])


@pytest.mark.parametrize("size", [0, -3, [1, 2, 3], [10], [10, 0], [10.5, 3], True])
def test_sizes_that_are_none(index: SampleIndex, size: object) -> None:
    with pytest.raises(ConfigError, match="image_size is no size"):
        infer_geometry(index, Preprocessing(), size)  # type: ignore[arg-type]


def test_channels(tmp_path: Path) -> None:
    grey = [write_image(tmp_path / f"g{i}.png", mode="L") for i in range(9)]
    colour = write_image(tmp_path / "c.png")
    assert infer_geometry(index_of(grey), Preprocessing()).num_channels == 1
    # The last of ten is seen by a sample of two: it is spread, not the head.
    sample = Preprocessing(infer_image_sample_size=2)
    assert infer_geometry(index_of([*grey, colour]), sample).num_channels == 3
    assert infer_geometry(index_of(grey), Preprocessing(infer_image_num_channels=False)).num_channels == 3
    assert infer_geometry(index_of(grey), Preprocessing(num_channels=4)).num_channels == 4


def test_each_side_has_its_own_cap_and_the_square_comes_after_it(index: SampleIndex) -> None:
    assert infer_geometry(index, Preprocessing(infer_image_max_width=20)) == Geometry(41, 20, 3)
    assert infer_geometry(index, Preprocessing(infer_image_max_width=1000)) == Geometry(41, 301, 3)
    narrow = Preprocessing(infer_image_max_width=20, requires_equal_dimensions=True)
    assert infer_geometry(index, narrow) == Geometry(20, 20, 3)
    # Given sides that are equal are taken as they are, and none is inferred then.
    square = Preprocessing(requires_equal_dimensions=True, infer_image_dimensions=False)
    assert infer_geometry(index, square, 500) == Geometry(500, 500, 3)


def test_how_many_images_decide_the_channels(tmp_path: Path) -> None:
    grey = [write_image(tmp_path / f"g{i}.png", mode="L") for i in range(4)]
    index = index_of([*grey, write_image(tmp_path / "c.png"), *grey])
    for sample, channels in ((1, 1), (2, 1), (3, 3), (9, 3), (100, 3)):  # three: the first, the middle, the last
        assert infer_geometry(index, Preprocessing(infer_image_sample_size=sample)).num_channels == channels


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(["LA", "LA"], 2), (["LA", "L"], 1), (["RGBA", "RGBA"], 4), (["RGBA", "RGB"], 3), (["LA", "RGBA"], 4),
     (["L", "RGBA"], 3), (["1", "I;16"], 1), (["P", "1"], 3)],
)  # fmt: skip
def test_alpha_is_kept_where_all_have_it(tmp_path: Path, modes: list[str], channels: int) -> None:
    paths = [write_image(tmp_path / f"{i}.png", mode=mode) for i, mode in enumerate(modes)]
    (tmp_path / "damaged.png").write_bytes(b"x")
    for order in (paths, paths[::-1], [paths[0], tmp_path / "damaged.png", paths[1]]):
        geometry = infer_geometry(index_of(order), Preprocessing())
        assert geometry.num_channels == channels
        for path in paths:
            assert decode_image(path, geometry).shape == (channels, 20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_image_as_it_is_looked_at(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = write_image(tmp_path / f"a.{suffix}", 20, 30, orientation=orientation)
    geometry = infer_geometry(index_of([path]), Preprocessing())
    assert (geometry.height, geometry.width) == ((30, 20) if orientation >= 5 else (20, 30))
    assert decode_sized(path, geometry)[1] == (geometry.height, geometry.width)


@given(st.lists(st.integers(1, 4), min_size=1))
def test_common_channels_hold_every_image(found: list[int]) -> None:
    channels = common_channels(found)
    assert (channels >= 3) == any(c >= 3 for c in found)
    assert (channels in (2, 4)) == all(c in (2, 4) for c in found)
