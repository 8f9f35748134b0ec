from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from lightning_vision.data import decode as decode_module
from lightning_vision.data.decode import crop_or_pad, decode_image, decode_sized, orient
from lightning_vision.data.headers import read_header
from lightning_vision.data.jpeg import jpeg_info
from lightning_vision.data.placement import CROPPED, Resize
from lightning_vision.errors import DataError
from lightning_vision.testing.datasets import broken_images, odd_images
from lightning_vision.types import Geometry

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
# What Pillow writes to each format.
SAVED = {
    "png": "1 L LA P RGB RGBA",
    "jpg": "1 L RGB CMYK YCbCr",
    "webp": "1 L LA P RGB RGBA CMYK YCbCr",
    "tif": "1 L LA P RGB RGBA CMYK YCbCr",
    "bmp": "1 L P RGB RGBA",
    "gif": "1 L LA P RGB RGBA",
}


def smooth(height: int = 60, width: int = 90, channels: int = 3) -> np.ndarray:
    """A picture without noise, in which no two corners are alike."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * y / height, 255 * x / width, 127 + 127 * np.sin((x + 2 * y) / 11), 255 - 200 * x / width]
    return np.stack(planes[:channels], -1).astype(np.uint8)


def reference(path: Path, geometry: Geometry) -> np.ndarray:
    """Pillow alone: turn, convert, resize with antialiasing."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(MODES[geometry.num_channels])
        # Band by band: Pillow weighs colours by alpha, which we do not.
        size = (geometry.width, geometry.height)
        return np.stack([np.array(band.resize(size, Image.Resampling.BILINEAR)) for band in image.split()])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("suffix", "mode"), [(suffix, mode) for suffix, modes in SAVED.items() for mode in modes.split()]
)
def test_agrees_with_pillow(tmp_path: Path, suffix: str, mode: str, channels: int) -> None:
    path = tmp_path / f"image.{suffix}"
    image = Image.fromarray(smooth(channels=4)).convert("RGB" if mode in ("CMYK", "YCbCr") else "RGBA").convert(mode)
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    geometry = Geometry(24, 30, channels)
    decoded, size = decode_sized(path, geometry)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == (channels, 24, 30)
    assert decoded.is_contiguous()
    assert size == (60, 90)
    assert psnr(decoded.numpy(), reference(path, geometry)) > (45 if mode in ("1", "P") else 50)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad", "resize_crop", "resize_pad"])
def test_every_exif_orientation(tmp_path: Path, orientation: int, suffix: str, method: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{suffix}"
    kind = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(smooth()).save(path, exif=exif, **kind)
    header = read_header(path)
    # The turned image's own size, so that both methods must give its pixels.
    geometry = Geometry(header.height, header.width, 3)
    decoded, size = decode_sized(path, geometry, Resize(method, 1.0))
    assert size == (header.height, header.width) == ((90, 60) if orientation >= 5 else (60, 90))
    assert psnr(decoded.numpy(), reference(path, geometry)) > 60
    small = Geometry(20, 34, 3)
    assert psnr(decode_image(path, small).numpy(), reference(path, small)) > 50


def test_an_orientation_in_xmp_only(tmp_path: Path) -> None:
    path = tmp_path / "xmp.jpg"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(smooth()).save(path, xmp=xmp)
    info = jpeg_info(path.read_bytes())
    assert info is not None
    assert info.orientation is None
    assert decode_sized(path, Geometry(30, 20, 3))[1] == (90, 60) == (read_header(path).height, read_header(path).width)


def test_orient_is_exif_transpose() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    for orientation in range(1, 9):
        image = Image.fromarray(pixels)
        image.getexif()[0x0112] = orientation
        assert np.array_equal(orient(pixels, orientation), np.array(ImageOps.exif_transpose(image)))


def test_every_kind_of_file(tmp_path: Path) -> None:
    for path, header in odd_images(tmp_path).items():
        if path.name == "float.tif":  # values beyond 1
            continue
        for channels in (1, 2, 3, 4):
            decoded, size = decode_sized(path, Geometry(11, 13, channels))
            assert decoded.shape == (channels, 11, 13)
            assert size == (header.height, header.width), path


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    for path, word in broken_images(tmp_path).items():
        with pytest.raises(DataError, match=path.name) as caught:
            decode_image(path, Geometry(8, 8, 3))
        assert word in str(caught.value)


def test_damaged_pixels_of_a_png_do_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged\.png"):
        decode_image(path, Geometry(8, 8, 3))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    expected = (values >> 8).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "b.tif")
    np.save(tmp_path / "c.npy", values)
    Image.fromarray((values / 65535).astype(np.float32)).save(tmp_path / "d.tif")
    for name in ("a.png", "b.tif", "c.npy"):
        assert np.array_equal(decode_image(tmp_path / name, Geometry(4, 256, 1))[0].numpy(), expected), name
    grey = decode_image(tmp_path / "d.tif", Geometry(4, 256, 1))[0].numpy()
    assert np.array_equal(grey, np.rint(values / 65535 * 255).astype(np.uint8))


def test_numbers_without_a_known_range_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", np.full((4, 4), 3.5))
    np.save(tmp_path / "nan.npy", np.full((4, 4), np.nan))
    np.save(tmp_path / "negative.npy", np.full((4, 4), -1))
    np.save(tmp_path / "wide.npy", np.full((4, 4), 200))  # of 255 or of 65535?
    Image.fromarray(np.full((4, 4), 200, np.int32)).save(tmp_path / "wide.tif")
    for name in ("float.npy", "nan.npy", "negative.npy", "wide.npy", "wide.tif"):
        with pytest.raises(DataError, match=name):
            decode_image(tmp_path / name, Geometry(4, 4, 1))


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    pixels = smooth(channels=4)
    pixels[..., 3] = 0
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    same = Geometry(60, 90, 3)
    assert np.array_equal(decode_image(tmp_path / "clear.png", same).numpy(), pixels[..., :3].transpose(2, 0, 1))
    with_alpha = decode_image(tmp_path / "clear.png", Geometry(60, 90, 4)).numpy()
    assert np.array_equal(with_alpha, pixels.transpose(2, 0, 1))
    Image.fromarray(pixels[..., :3]).save(tmp_path / "opaque.png")
    assert (decode_image(tmp_path / "opaque.png", Geometry(60, 90, 4))[3] == 255).all()
    assert (decode_image(tmp_path / "opaque.png", Geometry(60, 90, 2))[1] == 255).all()


def test_crop_or_pad_keeps_the_centre_and_repeats_the_edge() -> None:
    pixels = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6)
    assert np.array_equal(crop_or_pad(pixels, (3, 3)), pixels[:, 1:4, 1:4])
    padded = crop_or_pad(pixels, (8, 6))
    assert np.array_equal(padded, np.pad(pixels, ((0, 0), (1, 2), (0, 0)), mode="edge"))
    both = crop_or_pad(pixels, (8, 3), fill=99)
    assert np.array_equal(both, np.pad(pixels[:, :, 1:4], ((0, 0), (1, 2), (0, 0)), constant_values=99))


@pytest.mark.parametrize("filter_", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(300, 400), (400, 300), (90, 517)])
def test_resize_crop_is_torchvisions_evaluation_transform(tmp_path: Path, size: tuple[int, int], filter_: str) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    image = coarse.resize(size[::-1], Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    evaluated = transforms.CenterCrop(56)(transforms.Resize(64, transforms.InterpolationMode(filter_))(image))
    decoded = decode_image(tmp_path / "a.png", Geometry(56, 56, 3), Resize("resize_crop", filter=filter_)).numpy()
    expected = np.asarray(evaluated).transpose(2, 0, 1)
    assert psnr(decoded, expected) > 48


def test_crop_or_pad_of_a_file_keeps_the_scale(tmp_path: Path) -> None:
    pixels = smooth(20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    decoded = decode_image(tmp_path / "a.png", Geometry(24, 10, 3), CROPPED).numpy()
    expected = np.pad(pixels[:, 10:20], ((2, 2), (0, 0), (0, 0)), mode="edge")
    assert np.array_equal(decoded, expected.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", [1, 6])
def test_inexact_decoding_of_large_jpegs(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    Image.fromarray(smooth()).resize((600, 400), Image.Resampling.BICUBIC).save(path, exif=exif, quality=90)
    geometry = Geometry(50, 60, 3)
    exact, inexact = decode_image(path, geometry), decode_image(path, geometry, exact_decode=False)
    assert not torch.equal(exact, inexact)
    assert psnr(exact.numpy(), inexact.numpy()) > 40
    assert decode_sized(path, geometry, exact_decode=False)[1] == ((600, 400) if orientation == 6 else (400, 600))
    # Less than twice the size: nothing is saved by it, so nothing changes.
    near = Geometry(250, 250, 3)
    assert torch.equal(decode_image(path, near), decode_image(path, near, exact_decode=False))


@pytest.mark.parametrize("method", ["resize_crop", "resize_pad"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_inexact_decoding_never_enlarges(tmp_path: Path, method: str, orientation: int) -> None:
    """The decoder halves no further than to what a crop is scaled to, and as far as a border lets it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    Image.fromarray(smooth()).resize((360, 240), Image.Resampling.BICUBIC).save(path, exif=exif, quality=90)
    sizes = {
        "resize_crop": {(70, 70): True, (110, 110): False},  # scaled to 80 and 125 of 240 pixels
        "resize_pad": {(120, 100): True, (300, 60): True, (150, 300): False},
    }
    for size, shrinks in sizes[method].items():
        geometry = Geometry(*size, 3) if orientation == 1 else Geometry(size[1], size[0], 3)
        exact = decode_image(path, geometry, Resize(method))
        inexact = decode_image(path, geometry, Resize(method), exact_decode=False)
        assert torch.equal(exact, inexact) != shrinks, size
        assert psnr(exact.numpy(), inexact.numpy()) > 40


def test_writes_into_a_given_tensor(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    batch = torch.zeros(2, 3, 24, 30, dtype=torch.uint8)
    returned = decode_image(tmp_path / "a.png", Geometry(24, 30, 3), out=batch[1])
    assert returned.data_ptr() == batch[1].data_ptr()
    assert torch.equal(batch[1], decode_image(tmp_path / "a.png", Geometry(24, 30, 3)))
    assert not batch[0].any()


def test_pillow_alone_decodes_jpegs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(path, quality=95)
    geometry = Geometry(24, 30, 3)
    fast = decode_image(path, geometry).numpy()
    monkeypatch.setattr(decode_module, "_DECODE_JPEG", None)
    assert psnr(fast, decode_image(path, geometry).numpy()) > 50


@pytest.mark.real_data
@pytest.mark.parametrize("channels", [1, 3])
def test_real_photos_agree_with_pillow(data_root: Path, channels: int) -> None:
    root = data_root if (data_root / "camvid").is_dir() else data_root / "data"
    files = sorted(root.glob("decode_bench/images/**/*.JPEG"))[::8] + sorted(root.glob("nuclei/images/**/*.png"))[::20]
    turned = [p for p in root.glob("decode_bench/images/**/*.JPEG") if read_header(p).orientation == 6]
    assert turned
    geometry = Geometry(96, 128, channels)
    for path in files + turned:
        assert psnr(decode_image(path, geometry).numpy(), reference(path, geometry)) > 50, path
