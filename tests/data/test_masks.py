from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.decode import decode_image
from lightning_vision.data.masks import decode_mask, resize_nearest
from lightning_vision.data.placement import CROPPED, Resize
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import write_mask
from lightning_vision.types import Geometry, TargetSpec

THREE = TargetSpec("mask", ("a", "b", "c"), ignore_index=255)
BINARY = TargetSpec("mask", ("background", "object"), mask_values="binary")
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def ids_of(height: int = 20, width: int = 30, values: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, (height, width), dtype=np.uint8)


@given(sizes, sizes)
def test_nearest_is_torch_nearest_exact(have: tuple[int, int], want: tuple[int, int]) -> None:
    ids = np.arange(have[0] * have[1]).reshape(have)
    found = resize_nearest(ids, want)
    assert found.shape == want
    for axis, (n, size) in enumerate(zip(have, want, strict=True)):
        centres = (np.arange(size) + 0.5) * n / size
        source = (found // have[1])[:, 0] if axis == 0 else (found % have[1])[0]
        # The source pixel covers the centre of the new one: both ends are exact in rationals, so allow for rounding.
        assert (source <= centres + 1e-9).all()
        assert (centres <= source + 1 + 1e-9).all()
    exact = torch.nn.functional.interpolate(torch.from_numpy(ids)[None, None].double(), want, mode="nearest-exact")[
        0, 0
    ]
    if all(w % h == 0 or h % w == 0 for h, w in zip(have, want, strict=True)) and all(
        h <= w or (h // w) % 2 for h, w in zip(have, want, strict=True)
    ):
        assert np.array_equal(found, exact.numpy())  # elsewhere its float32 scale may round the other way


@given(sizes, sizes, st.integers(0, 9))
def test_no_value_is_invented(have: tuple[int, int], want: tuple[int, int], seed: int) -> None:
    ids = np.random.default_rng(seed).choice(np.array([0, 7, 255], np.uint8), have)
    assert set(np.unique(resize_nearest(ids, want))) <= set(np.unique(ids))


@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad", "resize_crop"])
@settings(max_examples=25, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(4, 50), st.integers(4, 50), st.booleans(), st.data())
def test_image_and_mask_agree_on_a_half_plane(
    tmp_path_factory: pytest.TempPathFactory,
    method: str,
    height: int,
    width: int,
    new_height: int,
    new_width: int,
    vertical: bool,
    data: st.DataObject,
) -> None:
    edge = data.draw(st.integers(1, (width if vertical else height) - 1))
    mask = np.zeros((height, width), np.uint8)
    mask[(slice(None), slice(edge, None)) if vertical else (slice(edge, None), slice(None))] = 1
    folder = tmp_path_factory.mktemp("half")
    Image.fromarray(mask * 255).save(folder / "image.png")
    Image.fromarray(mask).save(folder / "mask.png")
    image = decode_image(folder / "image.png", Geometry(new_height, new_width, 1), Resize(method))[0].numpy()
    plain = TargetSpec("mask", ("a", "b"))
    found = decode_mask(folder / "mask.png", plain, (new_height, new_width), (height, width), resize=Resize(method))
    # Where the resized image is surely on one side of the edge, so is the mask.
    assert (found.numpy()[image > 160] == 1).all()
    assert (found.numpy()[image < 95] == 0).all()


def test_palette_index_not_colour(tmp_path: Path) -> None:
    ids = ids_of()
    path = write_mask(tmp_path / "p.png", ids, palette=[0, 0, 0, 255, 255, 255, 9, 9, 9])
    assert np.array_equal(decode_mask(path, THREE).numpy(), ids)


def test_one_bit_sixteen_bit_and_array_files(tmp_path: Path) -> None:
    ids = ids_of(values=2)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "bit.png")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "sixteen.png")
    np.save(tmp_path / "array.npy", ids.astype(np.int64))
    for name in ("bit.png", "sixteen.png", "array.npy"):
        assert np.array_equal(decode_mask(tmp_path / name, THREE).numpy(), ids), name
    assert np.array_equal(decode_mask(tmp_path / "bit.png", BINARY).numpy(), ids)


def test_binary_maps_255_to_one_and_refuses_the_rest(tmp_path: Path) -> None:
    ids = ids_of(values=2)
    Image.fromarray(ids * 255).save(tmp_path / "b.png")
    assert np.array_equal(decode_mask(tmp_path / "b.png", BINARY).numpy(), ids)
    Image.fromarray(ids * 128).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c\.png: the mask value 128"):
        decode_mask(tmp_path / "c.png", BINARY)
    ignoring = TargetSpec("mask", ("a", "b"), ignore_index=128, mask_values="binary")
    assert np.array_equal(decode_mask(tmp_path / "c.png", ignoring).numpy(), ids * 128)


def test_a_value_beyond_the_classes_is_named_even_if_no_pixel_of_it_is_left(tmp_path: Path) -> None:
    ids = ids_of()
    ids[0, 0] = 3
    path = write_mask(tmp_path / "m.png", ids)
    for size in (None, (2, 2)):
        with pytest.raises(DataError, match=r"m\.png: the mask value 3") as caught:
            decode_mask(path, THREE, size)
        assert "0 to 2" in str(caught.value)
    ids[0, 0] = 255
    write_mask(path, ids)
    assert decode_mask(path, THREE)[0, 0] == 255


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_the_image(tmp_path: Path, orientation: int, suffix: str) -> None:
    ids = ids_of()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ids).save(tmp_path / f"m.{suffix}", exif=exif)
    Image.fromarray(ids).save(tmp_path / f"i.{suffix}", exif=exif)
    size = (30, 20) if orientation >= 5 else (20, 30)
    image = decode_image(tmp_path / f"i.{suffix}", Geometry(*size, 1))[0]
    assert torch.equal(decode_mask(tmp_path / f"m.{suffix}", THREE), image)


@pytest.mark.parametrize(
    ("image", "fits"),
    [((20, 30), True), ((40, 60), True), ((41, 60), True), ((10, 15), True), ((199, 300), True), ((30, 20), False),
     ((20, 33), False), ((60, 60), False), ((210, 300), True), ((240, 300), False)],
)  # fmt: skip
def test_a_mask_must_have_the_aspect_of_its_image(tmp_path: Path, image: tuple[int, int], fits: bool) -> None:
    path = write_mask(tmp_path / "m.png", ids_of())
    if fits:
        assert decode_mask(path, THREE, (8, 8), image).shape == (8, 8)
        return
    with pytest.raises(DataError, match="does not fit its image") as caught:
        decode_mask(path, THREE, (8, 8), image)
    assert "20 x 30" in str(caught.value)
    assert f"{image[0]} x {image[1]}" in str(caught.value)


def test_crop_or_pad_pads_with_the_ignored_value_or_the_edge(tmp_path: Path) -> None:
    ids = ids_of(4, 6)
    path = write_mask(tmp_path / "m.png", ids)
    found = decode_mask(path, THREE, (6, 4), (4, 6), resize=CROPPED).numpy()
    assert np.array_equal(found, np.pad(ids[:, 1:5], ((1, 1), (0, 0)), constant_values=255))
    plain = TargetSpec("mask", ("a", "b", "c"))
    found = decode_mask(path, plain, (6, 4), (4, 6), resize=CROPPED).numpy()
    assert np.array_equal(found, np.pad(ids[:, 1:5], ((1, 1), (0, 0)), mode="edge"))
    # A mask at half the image's size is brought to the image first.
    found = decode_mask(path, plain, (8, 12), (8, 12), resize=CROPPED).numpy()
    assert np.array_equal(found, ids.repeat(2, 0).repeat(2, 1))


def test_writes_into_a_given_tensor(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "m.png", ids_of())
    out = torch.zeros(2, 8, 8, dtype=torch.uint8)
    decode_mask(path, THREE, (8, 8), out=out[1])
    assert torch.equal(out[1], decode_mask(path, THREE, (8, 8)))
    assert not out[0].any()


@pytest.mark.real_data
def test_real_masks(data_root: Path) -> None:
    root = data_root if (data_root / "camvid").is_dir() else data_root / "data"
    names = tuple(str(i) for i in range(11))
    for path in sorted((root / "camvid" / "masks").rglob("*.png"))[::20]:
        assert decode_mask(path, TargetSpec("mask", names, 11), (96, 128), (360, 480)).max() <= 11
    for path in sorted((root / "nuclei" / "masks").rglob("*.png"))[::20]:
        other = Path(str(path).replace("/masks/", "/masks_255/"))
        zero_one = decode_mask(path, TargetSpec("mask", ("background", "nucleus")), (64, 64))
        assert torch.equal(zero_one, decode_mask(other, BINARY, (64, 64)))


def test_a_damaged_mask_is_no_background(tmp_path: Path) -> None:
    path = write_mask(tmp_path / "mask.png", np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") + 4
    length = int.from_bytes(data[at - 8 : at - 4], "big")
    data[at + length] ^= 1  # in the checksum: Pillow alone would not look at it
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"mask\.png: damaged"):
        decode_mask(path, TargetSpec("mask", ("a", "b")))
