"""Colour-coded masks: from the files to class ids, and what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.class_names import split_colors
from lightning_vision.data.decode import decode_image
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.mask_classes import MaskClasses
from lightning_vision.data.mask_colors import hex_color, pack, parse_colors, unpack
from lightning_vision.data.mask_files import read_mask_file
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.placement import Resize
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.report import check_index
from lightning_vision.data.sources.folder import FolderSource
from lightning_vision.data.store import store_key
from lightning_vision.errors import ConfigError, DataError, VisionError
from lightning_vision.testing.datasets import write_image
from lightning_vision.types import Color, Geometry, TargetSpec

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)
color = st.tuples(*[st.integers(0, 255)] * 3)
palettes = st.lists(color, min_size=2, max_size=12, unique=True)


def paint(ids: npt.ArrayLike, palette: Sequence[Color]) -> npt.NDArray[np.uint8]:
    return np.array(palette, np.uint8)[np.asarray(ids)]


def write(path: Path, pixels: npt.ArrayLike, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def data_set(folder: Path, masks: Sequence[npt.ArrayLike], splits: Sequence[str] | None = None) -> Path:
    """Images beside masks, ``(H, W, 3)`` colours or ``(H, W)`` grey values each."""
    for i, mask in enumerate(masks):
        part = splits[i] if splits else "train"
        height, width = np.shape(mask)[:2]
        write_image(folder / part / "images" / f"{i}.png", height, width, seed=i)
        write(folder / part / "masks" / f"{i}.png", mask)
    return folder


def read(folder: Path, strict: bool = True, data: dict[str, Any] | None = None, **preprocessing: Any) -> SampleIndex:
    preprocessing = {"infer_image_num_classes": True} | preprocessing
    source = FolderSource(str(folder), **{"val_fraction": 0.0, "test_fraction": 0.0} | (data or {}))
    return source.read("mask", 0, strict, Preprocessing(**preprocessing))


def target_of(folder: Path, data: dict[str, Any] | None = None, **preprocessing: Any) -> TargetSpec:
    target = read(folder, data=data, **preprocessing).target
    assert target is not None
    return target


def spec(palette: Sequence[Color], **more: Any) -> TargetSpec:
    names = tuple(map(hex_color, palette))
    return TargetSpec("mask", names, **{"ignore_index": 255, "mask_values": "color", "palette": tuple(palette)} | more)


def test_every_color_of_the_training_masks_is_a_class(tmp_path: Path) -> None:
    two = paint([[0, 1], [1, 0]], [RED, BLACK])
    target = target_of(data_set(tmp_path, [two, paint([[0, 1], [0, 0]], [BLUE, BLACK])]))
    assert target.class_names == ("#000000", "#0000ff", "#ff0000")
    assert target.palette == (BLACK, BLUE, RED)
    assert (target.mask_values, target.ignore_index) == ("color", 255)
    assert TargetSpec.from_dict(json.loads(json.dumps(target.to_dict()))) == target


def test_grey_values_become_consecutive_ids(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [[[0, 200], [7, 7]]])
    target = target_of(folder)
    assert target.palette == ((0, 0, 0), (7, 7, 7), (200, 200, 200))
    assert decode_mask(folder / "train" / "masks" / "0.png", target).tolist() == [[0, 2], [1, 1]]


@pytest.mark.parametrize(
    "kind", ["rgb.png", "rgba.png", "palette.png", "transparent.png", "rgb.tif", "rgb.bmp", "c.npy"]
)
def test_every_kind_of_file_has_the_same_colors(tmp_path: Path, kind: str) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (9, 14), dtype=np.uint8)
    palette = (BLUE, GREEN, RED)
    rgb, path = paint(ids, palette), tmp_path / kind
    if kind == "rgba.png":
        # Alpha plays no part: also pixels that cannot be seen have a colour.
        write(path, np.dstack([rgb, np.arange(ids.size).reshape(ids.shape) % 256]))
    elif kind in ("palette.png", "transparent.png"):
        # In another order than the classes: the colours count, and not the indices.
        image = Image.fromarray(np.array([4, 2, 0], np.uint8)[ids])
        image.putpalette([*RED, 9, 9, 9, *GREEN, 8, 8, 8, *BLUE])
        image.save(path, **({"transparency": 4} if kind == "transparent.png" else {}))
    elif kind == "c.npy":
        np.save(path, rgb)
    else:
        write(path, rgb)
    np.testing.assert_array_equal(decode_mask(path, spec(palette)).numpy(), ids)


def test_one_bit_files_are_black_and_white(tmp_path: Path) -> None:
    ids = np.eye(4, dtype=np.uint8)
    Image.fromarray(ids.astype(bool)).save(tmp_path / "bit.png")
    write(tmp_path / "grey.png", ids * 255)
    for name in ("bit.png", "grey.png"):
        found = decode_mask(tmp_path / name, spec([BLACK, (255, 255, 255)]))
        np.testing.assert_array_equal(found.numpy(), ids, err_msg=name)


def test_sixteen_bit_masks_of_small_values(tmp_path: Path) -> None:
    ids = np.arange(4, dtype=np.uint16).reshape(2, 2)
    Image.fromarray(ids).save(tmp_path / "sixteen.png")
    assert decode_mask(tmp_path / "sixteen.png", spec([(i, i, i) for i in range(4)])).tolist() == ids.tolist()


@settings(max_examples=30)
@given(palettes, st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_from_ids_to_colors_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    palette: list[Color],
    seed: int,
    height: int,
    width: int,
    new_height: int,
    new_width: int,
) -> None:
    ids = np.random.default_rng(seed).integers(0, len(palette), (height, width), dtype=np.uint8)
    path = write(tmp_path_factory.mktemp("colors") / "m.png", paint(ids, palette))
    target = spec(palette)
    found = decode_mask(path, target).numpy()
    np.testing.assert_array_equal(found, ids)
    np.testing.assert_array_equal(paint(found, palette), np.asarray(Image.open(path)))
    for method in ("interpolate", "crop_or_pad", "resize_crop", "resize_pad"):
        small = decode_mask(path, target, (new_height, new_width), resize=Resize(method)).numpy()
        assert set(np.unique(small)) <= {*np.unique(ids), 255}, method


@settings(max_examples=20)
@given(st.sets(color, min_size=2, max_size=9), st.integers(0, 2**31))
def test_what_is_found_covers_every_pixel(
    tmp_path_factory: pytest.TempPathFactory, colors: set[Color], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.concatenate([np.arange(len(colors)), rng.integers(0, len(colors), 23)]).reshape(1, -1)
    folder = data_set(tmp_path_factory.mktemp("found"), [paint(ids, list(colors))])
    target = target_of(folder)
    assert target.palette == tuple(sorted(colors))
    found = decode_mask(folder / "train" / "masks" / "0.png", target).numpy()
    np.testing.assert_array_equal(paint(found, target.palette), paint(ids, list(colors)))


@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad", "resize_crop", "resize_pad"])
@settings(max_examples=25)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(4, 50), st.integers(4, 50), st.data())
def test_image_and_mask_agree(
    tmp_path_factory: pytest.TempPathFactory,
    method: Any,
    height: int,
    width: int,
    new_height: int,
    new_width: int,
    data: st.DataObject,
) -> None:
    half = np.zeros((height, width), np.uint8)
    half[:, data.draw(st.integers(1, width - 1)) :] = 1
    folder = tmp_path_factory.mktemp("half")
    mask = write(folder / "mask.png", paint(half, [BLUE, RED]))
    size, resize = (new_height, new_width), Resize(method)
    image = decode_image(write(folder / "image.png", half * 255), Geometry(*size, 1), resize)[0].numpy()
    found = decode_mask(mask, spec([BLUE, RED]), size, (height, width), resize=resize).numpy()
    inside = found != 255  # a border is ignored
    assert (found[inside & (image > 160)] == 1).all()
    assert (found[inside & (image < 95)] == 0).all()
    if method in ("interpolate", "resize_crop"):
        assert inside.all()
    # Without an ignored value the border repeats the edge, as that of the image does.
    plain = decode_mask(mask, spec([BLUE, RED], ignore_index=None), size, (height, width), resize=resize).numpy()
    np.testing.assert_array_equal(plain[inside], found[inside])
    assert plain.max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_the_image(tmp_path: Path, orientation: int, suffix: str) -> None:
    ids = np.random.default_rng(0).integers(0, 3, (20, 30), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = write(tmp_path / f"i.{suffix}", ids, exif=exif)
    mask = write(tmp_path / f"m.{suffix}", paint(ids, [RED, GREEN, BLUE]), exif=exif)
    size = (30, 20) if orientation >= 5 else (20, 30)
    shown = decode_image(image, Geometry(*size, 1))[0].numpy()
    np.testing.assert_array_equal(decode_mask(mask, spec([RED, GREEN, BLUE])).numpy(), shown)


def test_an_unseen_color_is_refused_before_training_or_ignored(tmp_path: Path) -> None:
    known = paint([[0, 1], [1, 2]], [RED, BLACK, BLUE])
    folder = data_set(tmp_path, [known, paint([[0, 1], [2, 2]], [RED, BLACK, GREEN])], ["train", "test"])
    with pytest.raises(DataError, match=r"test/masks/1\.png: the colour #00ff00 is no class") as caught:
        read(folder)
    assert "2 of 4 pixels" in str(caught.value)
    assert caught.value.overrides == ["preprocessing.unseen_color=ignore  (its pixels do not count)"]
    target = target_of(folder, unseen_color="ignore")
    assert target.ignore_index == 255
    assert decode_mask(folder / "test" / "masks" / "1.png", target).tolist() == [[2, 0], [255, 255]]
    target = target_of(folder, {"ignore_index": 0}, unseen_color="ignore")
    assert decode_mask(folder / "test" / "masks" / "1.png", target).tolist() == [[2, 0], [0, 0]]


def short_palette(path: Path, ids: npt.ArrayLike, palette: Sequence[Color]) -> Path:
    """Write a PNG whose palette may have fewer colours than there are indices; Pillow would fill it up."""
    pixels = np.asarray(ids, np.uint8)
    height, width = pixels.shape
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", np.array(palette, np.uint8).tobytes()),
        (b"IDAT", zlib.compress(np.pad(pixels, ((0, 0), (1, 0))).tobytes())),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    )
    return path


def test_an_index_without_a_color_is_never_black(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [1, 0]], [BLACK, RED])] * 2)
    path = short_palette(folder / "train" / "masks" / "1.png", [[0, 1], [2, 3]], [BLACK, RED])
    for use in (lambda: read(folder), lambda: decode_mask(path, spec([BLACK, RED]))):
        with pytest.raises(DataError, match=r"1\.png: the palette has no colour for the index 3"):
            use()
    assert any("no colour for the index 3" in p.message for p in read(folder, strict=False).problems)
    # Where the index is the class, nobody asks for its colour.
    ids = TargetSpec("mask", tuple("abcd"))
    assert decode_mask(path, ids).tolist() == [[0, 1], [2, 3]]
    assert decode_mask(short_palette(path, [[0, 1]], [BLACK, RED]), spec([BLACK, RED])).tolist() == [[0, 1]]


def test_unseen_colors_are_of_masks_in_colors(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [[[0, 1], [2, 1]]])
    with pytest.raises(ConfigError, match=r"unseen_color is about masks whose colours are the classes") as caught:
        read(folder, infer_image_num_classes=False, unseen_color="ignore")
    assert caught.value.overrides[0] == "preprocessing.unseen_color=error"
    said = {"colors": ["#000000", "#010101"]}
    assert target_of(folder, said, infer_image_num_classes=False, unseen_color="ignore").ignore_unseen


def test_given_colors_ignore_nothing_by_themselves(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [1, 0]], [RED, GREEN])])
    said = {"colors": ["#ff0000", "#00ff00"]}
    assert target_of(folder, said).ignore_index is None
    assert target_of(folder, said | {"ignore_index": 9}).ignore_index == 9
    assert target_of(folder, said, unseen_color="ignore").ignore_index == 255
    assert target_of(folder).ignore_index == 255


def test_check_tells_files_and_shares(tmp_path: Path) -> None:
    known = paint([[0, 1], [0, 0]], [RED, BLACK])
    folder = data_set(tmp_path, [known, paint([[0, 2]], [RED, BLACK, GREEN])], ["train", "val"])
    (folder / "val" / "masks" / "2.png").write_bytes(b"no mask")
    write_image(folder / "val" / "images" / "2.png", 2, 2)
    report = check_index(read(folder, strict=False), Preprocessing(infer_image_num_classes=True))
    errors = [problem.message for problem in report.problems if problem.severity == "error"]
    assert not report.ok
    assert any("val/masks/1.png (val): mask colours that are no class: #00ff00 in 1 of 2 pixels" in e for e in errors)
    assert any("val/masks/2.png" in e for e in errors)
    assert [(c["name"], c["train"], c["val"]) for c in report.classes] == [
        ("#000000", 0.25, 0.0),
        ("#ff0000", 0.75, 1.0),
    ]
    ignoring = {"unseen_color": "ignore", "on_bad_image": "skip"}
    index = read(folder, strict=False, **ignoring)
    report = check_index(index, Preprocessing(infer_image_num_classes=True, **ignoring))
    assert report.ok
    assert any("1 masks of val, 50.00%" in p.message for p in report.problems if p.severity == "warning")


def test_given_colors_keep_their_order(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [1, 2]], [RED, GREEN, BLACK])])
    colors = {"colors": ["#ff0000", "000000", "#00FF00", "#0000ff"], "class_names": ["r", "void", "g", "b"]}
    target = target_of(folder, colors, infer_image_num_classes=False)
    assert target.palette == (RED, BLACK, GREEN, BLUE)
    assert decode_mask(folder / "train" / "masks" / "0.png", target).tolist() == [[0, 2], [2, 1]]
    with pytest.raises(DataError, match="the colour #000000 is no class"):
        read(folder, data={"colors": ["#ff0000", "#00ff00"]})
    assert target_of(folder, {"colors": ["#ff0000", "#00ff00"]}, unseen_color="ignore").num_classes == 2


def test_a_file_of_colors_and_names_gives_both(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", [paint([[0, 1], [1, 0]], [RED, GREEN])])
    lines = "255 0 0\tRoof\n0 255 0\tGarden bed\n0,0,0, Void\n"
    (folder / "label_colors.txt").write_text(lines)
    target = target_of(folder, {"class_names": "label_colors.txt"})
    assert target.class_names == ("Roof", "Garden bed", "Void")
    assert target.palette == (RED, GREEN, BLACK)
    target = target_of(folder, {"class_names": "label_colors.txt", "ignore_index": 2})
    assert target.class_names == ("Roof", "Garden bed")
    assert decode_mask(write(tmp_path / "m.png", paint([[0, 1]], [BLACK, RED])), target).tolist() == [[2, 0]]
    with pytest.raises(ConfigError, match="contradicts the colours in the file"):
        read(folder, data={"class_names": "label_colors.txt", "colors": ["#00ff00", "#ff0000", "#000000"]})
    # Where the values are ids, the colours are for drawing.
    index_masks = data_set(tmp_path / "ids", [[[0, 1], [2, 1]]])
    (index_masks / "label_colors.txt").write_text(lines)
    target = target_of(index_masks, {"class_names": "label_colors.txt"}, infer_image_num_classes=False)
    assert (target.mask_values, target.class_names[1], target.palette) == ("index", "Garden bed", (RED, GREEN, BLACK))


def test_lines_of_colors_and_names() -> None:
    assert split_colors(None) == (None, None)
    assert split_colors(("cat", "1 2 3 dog")) == (("cat", "1 2 3 dog"), None)
    with pytest.raises(ConfigError, match="car has no colour"):
        split_colors(("1 2 256 car",))
    with pytest.raises(ConfigError, match="class name twice"):
        split_colors(("1 2 3 car", "1 2 4 car"))
    with pytest.raises(ConfigError, match="colour twice"):
        split_colors(("1 2 3 car", "1 2 3 bus"))


def test_ignored_ids(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [2, 0]], [RED, GREEN, BLACK])])
    # The last one is no class; in the middle it keeps its id, so that the others keep theirs.
    assert target_of(folder, {"ignore_index": 2}).class_names == ("#000000", "#00ff00")
    assert target_of(folder, {"ignore_index": 0}).num_classes == 3
    assert target_of(folder, {"ignore_index": 9}).ignore_index == 9
    names = {"class_names": ["void", "green"], "ignore_index": 2}
    assert target_of(folder, names).class_names == ("void", "green")
    with pytest.raises(ConfigError, match="does not have a name for each colour") as caught:
        read(folder, data={"class_names": ["a", "b"]})
    assert "#000000, #00ff00, #ff0000" in str(caught.value)


def test_number_of_classes(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [2, 0]], [RED, GREEN, BLACK])])
    assert target_of(folder, num_classes=3).num_classes == 3
    assert target_of(folder, {"num_classes": 2, "ignore_index": 2}).num_classes == 2
    with pytest.raises(ConfigError, match=r"preprocessing\.num_classes contradicts the colours") as caught:
        read(folder, num_classes=4)
    assert caught.value.overrides == ["preprocessing.num_classes=3"]
    with pytest.raises(ConfigError, match=r"preprocessing\.num_classes contradicts data\.num_classes"):
        read(folder, data={"num_classes": 4}, num_classes=3)
    with pytest.raises(DataError, match="one class only"):
        read(data_set(tmp_path / "one", [paint([[0, 0]], [RED])]))


def test_photos_are_no_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    folder = data_set(tmp_path, [paint(np.eye(20, dtype=int), [RED, BLUE]), noise])
    with pytest.raises(DataError, match=r"1\.png: with this mask there are more than 256 colours"):
        read(folder)
    jpeg = folder / "train" / "masks" / "1.png"
    Image.fromarray(noise).save(jpeg.with_suffix(".jpg"))
    jpeg.unlink()
    with pytest.raises(DataError, match="masks saved as PNG"):
        read(folder)


def test_all_256_colors_fit(tmp_path: Path) -> None:
    palette = [(i, 255 - i, i // 2) for i in range(256)]
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    folder = data_set(tmp_path, [paint(ids, palette)])
    target = target_of(folder)
    assert (target.num_classes, target.ignore_index) == (256, None)
    np.testing.assert_array_equal(decode_mask(folder / "train" / "masks" / "0.png", target).numpy(), ids)
    path = write(tmp_path / "other.png", paint([[0, 0, 1]], [(9, 9, 9), palette[255]]))
    with pytest.raises(DataError, match="2 of 3 pixels"):
        MaskClasses(target).read(str(path))
    with pytest.raises(ConfigError, match="leave no id"):
        read(folder, unseen_color="ignore")


def test_settings_that_contradict_each_other(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1]], [RED, GREEN])])
    with pytest.raises(ConfigError, match="whether colours are the classes"):
        read(folder, data={"mask_values": "index"})
    with pytest.raises(DataError, match="colours are not grey") as caught:
        read(folder, infer_image_num_classes=False)
    assert "preprocessing.infer_image_num_classes=true" in str(caught.value)
    assert target_of(folder, {"mask_values": "color"}, infer_image_num_classes=False).num_classes == 2
    for colors in (["red"], ["#12345"], ["#000000", "#000000"], [f"{i:06x}" for i in range(257)]):
        with pytest.raises(ConfigError, match=r"data\.colors"):
            parse_colors(colors)


@pytest.mark.parametrize("setting", [{"infer_image_num_classes": True}, {"num_classes": 2}])
def test_settings_of_masks_are_refused_for_labels(tmp_path: Path, setting: dict[str, Any]) -> None:
    for name in ("cat", "dog"):
        write_image(tmp_path / name / "0.png")
    with pytest.raises(ConfigError, match="is about masks") as caught:
        FolderSource(str(tmp_path)).read("label", 0, True, Preprocessing(**setting))
    assert ("data.num_classes=2" in str(caught.value)) == ("num_classes" in setting)


def test_stores_of_other_colors_are_other_stores(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [paint([[0, 1], [2, 1]], [RED, GREEN, BLUE])])
    index, size = read(folder), Geometry(2, 2, 3)
    assert index.target is not None
    swapped = tuple(reversed(index.target.palette or ()))
    targets = [index.target, replace(index.target, palette=swapped), replace(index.target, ignore_unseen=True)]
    keys = {store_key(replace(index, target=target), np.arange(1), size, Preprocessing()) for target in targets}
    assert len(keys) == 3


@given(color)
def test_packed_colors(rgb: Color) -> None:
    packed = int(pack(np.array(rgb, np.uint8)))
    assert unpack(packed) == rgb
    assert parse_colors([hex_color(rgb)]) == parse_colors([hex_color(packed)]) == (rgb,)


@settings(max_examples=40)
@given(st.sets(st.integers(0, 255), min_size=1, max_size=8), st.integers(0, 2**31))
def test_threshold_follows_from_num_classes(
    tmp_path_factory: pytest.TempPathFactory, values: set[int], seed: int
) -> None:
    pixels = np.random.default_rng(seed).permutation(sorted(values) * 2).astype(np.uint8)[None]
    folder = data_set(tmp_path_factory.mktemp("grey"), [pixels])
    try:
        target = target_of(folder, infer_image_num_classes=False, num_classes=2)
    except VisionError:
        low, high = {v for v in values if v < 128}, {v for v in values if v >= 128}
        assert not low or not high or (high == {255} and low == set(range(len(low))))
        return
    expected = pixels if values == {0, 1} else (pixels >= 128).astype(np.uint8)
    found = decode_mask(folder / "train" / "masks" / "0.png", target)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert len(values) >= 2


def test_zeros_and_ones_stay_ids_with_two_classes(tmp_path: Path) -> None:
    target = target_of(data_set(tmp_path, [[[0, 1], [1, 1]]]), infer_image_num_classes=False, num_classes=2)
    assert target.mask_values == "index"
    target = target_of(data_set(tmp_path / "b", [[[0, 255], [0, 0]]]), infer_image_num_classes=False, num_classes=2)
    assert target.mask_values == "binary"


def test_threshold_refuses_what_it_cannot_cut(tmp_path: Path) -> None:
    plain = {"infer_image_num_classes": False, "num_classes": 2}
    with pytest.raises(DataError, match="one class only") as caught:
        read(data_set(tmp_path / "a", [[[3, 90], [7, 0]]]), **plain)
    assert "0, 3, 7, 90" in str(caught.value)
    ids = data_set(tmp_path / "b", [[[0, 1], [2, 255]]])
    with pytest.raises(DataError, match="small class ids, and 255"):
        read(ids, **plain)
    target = target_of(ids, {"mask_values": "threshold"}, **plain)
    assert decode_mask(ids / "train" / "masks" / "0.png", target).tolist() == [[0, 0], [0, 1]]
    grey = data_set(tmp_path / "c", [[[0, 100], [200, 77]]])
    target = target_of(grey, {"ignore_index": 77}, **plain)
    assert decode_mask(grey / "train" / "masks" / "0.png", target).tolist() == [[0, 0], [1, 77]]
    with pytest.raises(ConfigError, match="leave out one of both classes"):
        read(grey, data={"ignore_index": 1}, **plain)


def test_palettes_that_differ_are_pointed_out(tmp_path: Path) -> None:
    folder = data_set(tmp_path, [[[0, 1]], [[0, 1]]])
    for i, palette in enumerate(([*BLACK, *RED], [*RED, *BLACK])):
        image = Image.fromarray(np.array([[0, 1]], np.uint8))
        image.putpalette(palette)
        image.save(folder / "train" / "masks" / f"{i}.png")
    problems = read(folder, infer_image_num_classes=False).problems
    assert any("its palette is another" in p.message for p in problems if p.severity == "warning")
    target = target_of(folder)
    assert decode_mask(folder / "train" / "masks" / "1.png", target).tolist() == [[1, 0]]
    assert read_mask_file(str(folder / "train" / "masks" / "1.png")).values.tolist() == [[0, 1]]
