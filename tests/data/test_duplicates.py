from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lightning_vision.data.duplicates import Group, candidates, find_duplicates, same_picture, signatures, similar
from lightning_vision.data.image_scan import scan_images
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.report import check_index
from lightning_vision.data.sources.shapes import ShapesSource
from lightning_vision.data.sources.table import TableSource
from lightning_vision.testing.datasets import write_image, write_table

Array = npt.NDArray[np.uint8]


def photo(seed: int, height: int = 150, width: int = 200) -> Image.Image:
    """Something with coarse and fine structure, as photographs have."""
    rng = np.random.default_rng(seed)
    layers = [_layer(rng, cells, height, width) for cells in (3, 8, 24)]
    pixels = 40 + sum(weight * layer for weight, layer in zip((90, 50, 30), layers, strict=True))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _layer(rng: np.random.Generator, cells: int, height: int, width: int) -> npt.NDArray[np.float64]:
    small = Image.fromarray((rng.random((cells, cells, 3)) * 255).astype(np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 255


def index_of(paths: list[Path], *further: list[Path]) -> SampleIndex:
    columns = [PackedStrings.from_strings(map(str, column)) for column in (paths, *further)]
    return SampleIndex(columns[0], np.zeros(len(paths), np.uint8), further=tuple(columns[1:]))


def groups(paths: list[Path], *further: list[Path]) -> list[Group]:
    index = index_of(paths, *further)
    return find_duplicates(index.images, scan_images(index, Preprocessing(num_processes=2)), threads=2)


def saved(folder: Path, count: int) -> list[Path]:
    paths = []
    for i in range(count):
        photo(i).save(folder / f"{i}.jpg", quality=95)
        paths.append(folder / f"{i}.jpg")
    return paths


CHANGES = {
    "quality 40": lambda image, path: image.save(path.with_suffix(".jpg"), quality=40),
    "png": lambda image, path: image.save(path.with_suffix(".png")),
    "webp": lambda image, path: image.save(path.with_suffix(".webp"), quality=70),
    "half": lambda image, path: image.resize((100, 75), Image.Resampling.BICUBIC).save(path.with_suffix(".jpg")),
    "larger": lambda image, path: image.resize((300, 225)).save(path.with_suffix(".jpg"), quality=90),
    "brighter": lambda image, path: image.point(lambda v: min(255, int(1.1 * v))).save(path.with_suffix(".png")),
    "darker": lambda image, path: image.point(lambda v: int(0.9 * v)).save(path.with_suffix(".png")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_picture_saved_again(tmp_path: Path, change: str) -> None:
    paths = saved(tmp_path, 12)
    CHANGES[change](Image.open(paths[4]), tmp_path / "copy")
    paths.insert(2, next(tmp_path.glob("copy.*")))
    assert groups(paths) == [Group((2, 5), exact=False)]


def test_copies_of_files(tmp_path: Path) -> None:
    paths = saved(tmp_path, 6)
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(paths[3], tmp_path / name)
        paths.append(tmp_path / name)
    photo(1).save(tmp_path / "c.png")
    shutil.copy(tmp_path / "c.png", tmp_path / "d.png")
    paths += [tmp_path / "c.png", tmp_path / "d.png"]
    # Not all of the second group are equal byte by byte.
    assert groups(paths) == [Group((1, 8, 9), exact=False), Group((3, 6, 7), exact=True)]


def test_rows_with_one_path_are_no_copies(tmp_path: Path) -> None:
    paths = saved(tmp_path, 4)
    assert groups([*paths, paths[1], paths[1]]) == []


def test_flat_images_are_copies_only_byte_by_byte(tmp_path: Path) -> None:
    paths = []
    for i in range(20):
        Image.new("RGB", (40, 30), (i, i, i)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    assert groups(paths) == []
    shutil.copy(paths[7], tmp_path / "again.png")
    assert groups([*paths, tmp_path / "again.png"]) == [Group((7, 20), exact=True)]


def test_what_only_looks_alike_is_no_copy(tmp_path: Path) -> None:
    paths = []

    def save(pixels: npt.NDArray[np.float64] | Array, name: str) -> None:
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(tmp_path / name)
        paths.append(tmp_path / name)

    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:120j, -1:1:160j]
    scene = np.asarray(photo(0, 120, 160), np.float64)
    for i in range(15):
        save(200 * np.exp(-(x**2) - y**2) + rng.normal(0, 8, x.shape), f"vignette{i}.png")  # one light, other detail
        save(128 + rng.normal(0, 25, x.shape), f"noise{i}.png")
        moved = scene.copy()
        moved[10 + 6 * i : 30 + 6 * i, 20 + 8 * i : 40 + 8 * i] = 250 * (i % 2)
        save(moved, f"scene{i}.png")  # a camera that does not move, and something that does
    for colour in ((200, 60, 60), (40, 131, 60), (60, 100, 200), (120, 95, 20)):  # as bright as each other
        icon = np.full((64, 64, 3), 255, np.uint8)
        icon[16:48, 16:48] = colour
        save(icon, f"icon{colour[0]}.png")
    assert groups(paths) == []


def test_digits_are_told_apart(tmp_path: Path) -> None:
    paths = []
    digits = pytest.importorskip("sklearn.datasets").load_digits().images[:100]
    for i, digit in enumerate(digits):
        Image.fromarray((255 - 15.9 * digit).astype(np.uint8)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    assert groups(paths) == []


def test_of_several_images_all_must_be_the_same(tmp_path: Path) -> None:
    paths = saved(tmp_path, 6)
    Image.new("RGB", (40, 30), (9, 9, 9)).save(tmp_path / "flat.png")
    Image.open(paths[0]).save(tmp_path / "0.png")
    shutil.copy(paths[1], tmp_path / "copy.jpg")
    flat, again, copy = tmp_path / "flat.png", tmp_path / "0.png", tmp_path / "copy.jpg"
    left = [paths[0], paths[0], again, paths[3], paths[0], again]
    right = [paths[1], paths[2], copy, paths[1], flat, flat]
    assert groups(left, right) == [Group((0, 2), exact=False), Group((4, 5), exact=False)]


def test_the_built_in_images_are_all_different(tmp_path: Path) -> None:
    index = ShapesSource(path=str(tmp_path)).read("label", 0)
    report = check_index(index, Preprocessing())
    assert report.duplicates == []
    assert report.problems == []


def test_leaks_are_named_with_splits_counts_and_labels(tmp_path: Path) -> None:
    paths = saved(tmp_path, 10)
    shutil.copy(paths[0], tmp_path / "exact.jpg")
    Image.open(paths[1]).save(tmp_path / "again.jpg", quality=50)
    Image.open(paths[3]).resize((120, 90)).save(tmp_path / "small.png")
    names = [p.name for p in paths] + ["exact.jpg", "again.jpg", "small.png"]
    splits = ["train"] * 10 + ["test", "val", "train"]
    rows = [
        {"image": name, "label": "ab"[i % 2] if i < 10 else "a", "split": split}
        for i, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    report = check_index(TableSource(str(write_table(tmp_path / "t.csv", rows))).read("label", 0), Preprocessing())
    exact, near, within, labels = [p.message for p in report.problems if p.severity == "warning"]
    assert exact.startswith("1 image of test is a copy of a file in train: ")
    assert "train: 0.jpg = test: exact.jpg" in exact
    assert near.startswith("1 image of val is a copy of a picture (saved again, resized, or next to equal) in train: ")
    assert "train: 1.jpg = val: again.jpg" in near
    assert within.startswith("1 picture is more than once in one split (saved again")
    assert "3.jpg = small.png" in within
    assert labels.startswith("2 pictures have different labels")
    assert "1.jpg (b) = again.jpg (a)" in labels
    assert report.duplicates is not None
    assert [d["splits"] for d in report.duplicates] == [["train", "test"], ["train", "val"], ["train", "train"]]
    assert report.ok


@settings(max_examples=60)
@given(st.data())
def test_candidates_are_all_pairs_that_agree_in_a_band(data: st.DataObject) -> None:
    count, values = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    codes = rng.integers(0, values, (count, 4)).astype(np.uint16)
    expected = {(i, j) for i in range(count) for j in range(i + 1, count) if (codes[i] == codes[j]).any()}
    found = [np.stack(pair, 1) for pair in candidates(codes, neighbours=60)]
    assert {tuple(pair) for pairs in found for pair in pairs.tolist()} == expected


@settings(max_examples=60)
@given(st.integers(0, 1000), st.integers(2, 300), st.integers(0, 3))
def test_hashes_that_differ_in_three_bits_are_candidates(seed: int, count: int, flips: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 64, count, np.uint64)
    hashes[-1] = hashes[0]
    for bit in rng.choice(64, flips, replace=False):
        hashes[-1] ^= np.uint64(1) << np.uint64(bit)
    codes = hashes[:, None].view(np.uint16)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= 3
    expected = {(i, j) for i in range(count) for j in range(i + 1, count) if near[i, j]}
    assert (0, count - 1) in expected
    found = {tuple(pair) for pairs in candidates(codes) for pair in np.stack(pairs, 1).tolist()}
    assert expected <= found


def test_the_search_does_not_compare_all_with_all() -> None:
    codes = np.zeros((5000, 4), np.uint16)
    assert sum(len(first) for first, _ in candidates(codes, neighbours=10)) <= 4 * 10 * len(codes)
    spread = np.random.default_rng(0).integers(0, 1 << 16, (5000, 4)).astype(np.uint16)
    assert sum(len(first) for first, _ in candidates(spread)) < len(spread)


@pytest.mark.parametrize("count", [100, 3000])  # all with all, and through the bands
def test_copies_among_many_thumbnails(count: int) -> None:
    rng = np.random.default_rng(0)
    thumbnails = np.stack([_layer(rng, 5, 16, 16)[..., 0] * 150 + rng.normal(40, 15, (16, 16)) for _ in range(count)])
    copied = rng.choice(count, 50, replace=False)
    copies = 1.2 * thumbnails[copied] + 10 + rng.normal(0, 1, (50, 16, 16))
    everything = np.clip(np.concatenate([thumbnails, copies]), 0, 255).astype(np.uint8)[:, None]
    pairs = similar(everything, np.arange(len(everything)))
    expected = {(int(row), count + i) for i, row in enumerate(copied)}
    assert {tuple(pair) for pair in pairs.tolist()} == expected


def test_signatures_do_not_change_with_brightness_and_contrast() -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(40, 120, (50, 1, 16, 16)).astype(np.uint8)
    changed = signatures(2 * thumbnails + 5)
    assert np.array_equal(signatures(thumbnails), changed)
    assert len(np.unique(changed, axis=0)) == 50


def test_same_picture_sees_small_differences() -> None:
    a = np.asarray(photo(0, 64, 64)).transpose(2, 0, 1).copy()
    assert same_picture(a, a)
    drawn = Image.fromarray(a.transpose(1, 2, 0))
    ImageDraw.Draw(drawn).ellipse((20, 20, 30, 30), fill=(255, 255, 255))
    b = np.asarray(drawn).transpose(2, 0, 1)
    assert not same_picture(a, b)
    assert not same_picture(b, a)
    assert not same_picture(a, a[:, :, ::-1])
    assert not same_picture(a, a[[2, 0, 1]])  # other colours


def test_a_file_that_is_gone_after_the_scan_is_no_copy(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", seed=i // 2) for i in range(4)]
    index = index_of(paths)
    scan = scan_images(index, Preprocessing())
    paths[0].unlink()
    assert find_duplicates(index.images, scan) == [Group((2, 3), exact=True)]
