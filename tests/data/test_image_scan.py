from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.image_scan import scan_images, thumbnail
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.testing.datasets import broken_images, odd_images, write_image


def index_of(paths: list[Path]) -> SampleIndex:
    return SampleIndex(PackedStrings.from_strings(map(str, paths)), np.zeros(len(paths), np.uint8))


FORMATS = [
    ("jpg", {"quality": 90}),
    ("progressive.jpg", {"quality": 90, "progressive": True}),
    ("png", {}),
    ("webp", {"quality": 80}),
    ("lossless.webp", {"lossless": True}),
    ("tif", {}),
    ("lzw.tif", {"compression": "tiff_lzw"}),
    ("jpeg.tif", {"compression": "jpeg"}),
    ("gif", {}),
    ("bmp", {}),
]


@pytest.mark.parametrize(("suffix", "options"), FORMATS, ids=[suffix for suffix, _ in FORMATS])
@pytest.mark.parametrize("size", [(40, 50), (400, 500)], ids=["small", "shrunk by the JPEG decoder"])
def test_files_that_are_cut_off_are_found(
    tmp_path: Path, suffix: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    assert scan_images(index_of([path]), Preprocessing()).errors == []
    whole = path.read_bytes()
    for share in (0.6, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        scan = scan_images(index_of([path]), Preprocessing())
        assert len(scan.errors) == 1, share
        assert str(path) in scan.errors[0][1]


def test_odd_and_broken_files(tmp_path: Path) -> None:
    odd, broken = odd_images(tmp_path / "odd"), broken_images(tmp_path / "broken")
    del odd[tmp_path / "odd" / "float.tif"]  # its header is sound, but its values are above 1
    scan = scan_images(index_of([*odd, *broken]), Preprocessing(num_processes=2))
    assert [header for header in scan.headers if header is not None] == list(odd.values())
    assert scan.readable.tolist() == [True] * len(odd) + [False] * len(broken)
    assert [row for row, _ in scan.errors] == list(range(len(odd), len(odd) + len(broken)))
    for (_, message), (path, word) in zip(scan.errors, broken.items(), strict=True):
        assert message.startswith(f"{path}: ")
        assert word in message
    assert sorted(scan.sizes) == ["20 x 30", "30 x 20"]  # after their orientation
    assert scan.sizes.total() == scan.channels.total() == scan.formats.total() == len(odd)
    assert scan.thumbnails is not None
    assert not scan.thumbnails[~scan.readable].any()


@pytest.mark.parametrize("size", [(60, 80), (300, 400), (1200, 900)])
def test_thumbnails_are_the_same_whatever_the_format(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    image.save(tmp_path / "a.png")
    jpeg, png = (thumbnail(str(tmp_path / name)).astype(int) for name in ("a.jpg", "a.png"))
    expected = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BOX), int)
    assert np.abs(jpeg - png).max() <= 3
    assert np.abs(png - expected).mean() < 3


def test_quick_leaves_the_pixels_alone(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", 40, 50)
    path.write_bytes(path.read_bytes()[:2000])
    scan = scan_images(index_of([path]), Preprocessing(), quick=True)
    assert scan.errors == []
    assert scan.thumbnails is None
    assert scan.sizes == {"40 x 50": 1}
