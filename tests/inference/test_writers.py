from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from lightning_vision.errors import DataError
from lightning_vision.inference.label_writer import LabelWriter
from lightning_vision.inference.mask_writer import MaskWriter
from lightning_vision.inference.pictures import read_rgb
from lightning_vision.reports.palette import IGNORED, class_palette

NAMES = ("sky", "road", "car, red")
PALETTE = ((10, 20, 30), (200, 0, 100), (0, 255, 0))


def rows(path):
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def image(path, size=(6, 4), colour=(100, 100, 100), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def test_labels_and_probabilities(tmp_path):
    with LabelWriter(tmp_path / "out", NAMES) as writer:
        writer.write('dir/a "quoted", ü.jpg', np.array([0.1, 0.2, 0.7], np.float32))
        writer.write("two\nlines \udcff.jpg", np.array([1, 0, 1e-9]))
    first, second = rows(tmp_path / "out" / "predictions.csv")
    assert list(first) == ["path", "label", "probability", "p_sky", "p_road", "p_car, red"]
    assert (first["path"], first["label"]) == ('dir/a "quoted", ü.jpg', "car, red")
    assert float(first["probability"]) == pytest.approx(0.7)
    assert second["path"] == "two\nlines \udcff.jpg"
    assert float(second["p_car, red"]) == 1e-9
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.csv"]


def test_truth_has_a_column_where_there_is_one(tmp_path):
    with LabelWriter(tmp_path, NAMES) as writer:
        writer.write("a", np.array([1, 0, 0]), "road")
        writer.write("b", np.array([1, 0, 0]))
    assert [r["truth"] for r in rows(tmp_path / "predictions.csv")] == ["road", ""]
    with LabelWriter(tmp_path, NAMES) as writer:
        writer.write("a", np.array([1, 0, 0]))
        with pytest.raises(ValueError, match="no truth"):
            writer.write("b", np.array([1, 0, 0]), "road")
    assert len(rows(tmp_path / "predictions.csv")) == 1


def test_no_rows_is_a_table_with_a_header(tmp_path):
    with LabelWriter(tmp_path, ["only"]):
        pass
    assert (tmp_path / "predictions.csv").read_text() == "path,label,probability,p_only\n"


def test_rows_are_flushed_and_stay_partial_after_an_error(tmp_path):
    (tmp_path / "predictions.csv").write_text("of an earlier run")
    partial = tmp_path / "predictions.csv.partial"
    with pytest.raises(RuntimeError, match="boom"), LabelWriter(tmp_path, NAMES) as writer:  # noqa: PT012  # the state inside is the point
        writer.write("a", np.array([1, 0, 0]))
        assert len(rows(partial)) == 1, "the row can be read while the table grows"
        raise RuntimeError("boom")
    assert len(rows(partial)) == 1
    assert (tmp_path / "predictions.csv").read_text() == "of an earlier run"


@pytest.mark.parametrize(("values", "text"), [([0.5, 0.5], r"\(3,\)"), ([0.5, float("nan"), 0.5], "not finite")])
def test_wrong_probabilities_are_refused_by_path(tmp_path, values, text):
    with LabelWriter(tmp_path, NAMES) as writer, pytest.raises(ValueError, match=rf"{text}.*: a\.jpg"):
        writer.write("a.jpg", np.array(values))


def test_closing_twice_and_writing_after(tmp_path):
    writer = LabelWriter(tmp_path, NAMES)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write("a", np.array([1, 0, 0]))


@pytest.mark.parametrize("writer", [LabelWriter, lambda f, n: MaskWriter(f, n, PALETTE)])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, writer):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write into the folder .*file.out"):
        writer(tmp_path / "file" / "out", NAMES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
def test_a_full_disk_is_named(tmp_path):
    (tmp_path / "predictions.csv.partial").symlink_to("/dev/full")
    with (
        pytest.raises(DataError, match="cannot write into the folder") as caught,
        LabelWriter(tmp_path, NAMES) as writer,
    ):
        writer.write("a", np.array([1, 0, 0]))
    assert "No space left" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(1, 256),
    data=st.data(),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_masks_come_back_to_the_last_bit(tmp_path_factory, classes, data, shape):
    folder = tmp_path_factory.mktemp("masks")
    mask = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
    palette = class_palette(classes)
    with MaskWriter(folder, [str(i) for i in range(classes)], palette, overlays=False) as writer:
        path, overlay = writer.write("x.jpg", mask)
    assert overlay is None
    with Image.open(path) as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read), mask)
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), np.array(palette)[mask])


def test_files_and_table_of_masks(tmp_path):
    source = image(tmp_path / "in" / "a b, ü" / "x.jpg", quality=95)
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 3:] = 1
    with MaskWriter(tmp_path / "out", NAMES, PALETTE, root=tmp_path / "in") as writer:
        files = writer.write(source, mask)
    assert files == (tmp_path / "out/masks/a b, ü/x.png", tmp_path / "out/overlays/a b, ü/x.jpg")
    (row,) = rows(tmp_path / "out" / "predictions.csv")
    assert row == {
        "path": str(source),
        "mask": "masks/a b, ü/x.png",
        "overlay": "overlays/a b, ü/x.jpg",
        "share_sky": "0.5",
        "share_road": "0.5",
        "share_car, red": "0",
    }


def test_overlay_colours(tmp_path):
    source = image(tmp_path / "x.png", size=(64, 32))
    mask = np.zeros((32, 64), np.uint8)
    mask[:, 32:] = 1
    with MaskWriter(tmp_path / "out", NAMES, PALETTE) as writer:
        _, path = writer.write(source, mask)
    drawn = read_rgb(path).astype(int)
    # JPEG: far from the edge between the halves, within a few steps.
    np.testing.assert_allclose(drawn[16, 8], (55, 60, 65), atol=4)
    np.testing.assert_allclose(drawn[16, 56], (150, 50, 100), atol=4)


@pytest.mark.parametrize(("ignore_index", "mark"), [(None, 255), (7, 7)])
def test_pixels_without_a_prediction(tmp_path, ignore_index, mark):
    mask = np.array([[0, 1, mark, mark]], np.uint8)
    pixels = np.full((1, 4, 3), 90, np.uint8)
    with MaskWriter(tmp_path, NAMES, PALETTE, ignore_index=ignore_index) as writer:
        path, _ = writer.write("not/opened.tif", mask, pixels)
    with Image.open(path) as read:
        np.testing.assert_array_equal(np.asarray(read), mask)
        assert read.convert("RGB").getpixel((3, 0)) == IGNORED
    (row,) = rows(tmp_path / "predictions.csv")
    assert [row[f"share_{n}"] for n in NAMES] == ["0.25", "0.25", "0"]


def test_sides_beyond_the_limit_of_jpeg(tmp_path):
    shape = (1, 65501)
    with MaskWriter(tmp_path, NAMES, PALETTE) as writer:
        _, overlay = writer.write("x.jpg", np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.uint8))
    assert overlay.suffix == ".png"
    assert read_rgb(overlay).shape == (*shape, 3)


def test_names_that_collide(tmp_path):
    mask = np.zeros((1, 1), np.uint8)
    paths = ["d/a.jpg", "d/a.png", "e/a.jpg", "d/A.JPG", "d/a.jpg", "d/a.png.bmp"]
    with MaskWriter(tmp_path, NAMES, PALETTE, overlays=False) as writer:
        written = [writer.write(p, mask)[0].name for p in paths]
    assert written == ["a.png", "a.png.png", "a.jpg.png", "A.JPG_2.png", "a.png", "a.png.bmp.png"]
    assert len({r["mask"].casefold() for r in rows(tmp_path / "predictions.csv")}) == 5


def test_images_outside_the_root_stay_inside_the_folder(tmp_path):
    mask = np.zeros((1, 1), np.uint8)
    with MaskWriter(tmp_path / "out", NAMES, PALETTE, overlays=False, root=tmp_path / "in") as writer:
        path, _ = writer.write(tmp_path / "in" / ".." / "else" / "x.jpg", mask)
    assert path == tmp_path / "out" / "masks" / "x.png"


@pytest.mark.real_data
def test_real_masks_come_back_at_their_size(tmp_path, data_root: Path):
    camvid = data_root / "data" / "camvid"
    names = (camvid / "classes.txt").read_text(encoding="utf-8").split()[:11]
    with MaskWriter(tmp_path, names, class_palette(11), root=camvid, ignore_index=11) as writer:
        for row in rows(camvid / "index.csv")[::50]:
            with Image.open(camvid / row["mask"]) as file:
                mask = np.asarray(file)
            path, overlay = writer.write(camvid / row["image"], mask)
            with Image.open(path) as written, Image.open(overlay) as blended:
                np.testing.assert_array_equal(np.asarray(written), mask)
                assert blended.size == (480, 360)


def test_the_longest_name_that_the_file_system_allows(tmp_path):
    source = image(tmp_path / ("n" * 251 + ".png"))
    with MaskWriter(tmp_path / "out", NAMES, PALETTE) as writer:
        path, overlay = writer.write(source, np.zeros((4, 6), np.uint8))
    assert path.is_file()
    assert overlay.is_file()


def test_a_second_run_replaces_the_first(tmp_path):
    source = image(tmp_path / "x.png")
    for value in (0, 1):
        with MaskWriter(tmp_path / "out", NAMES, PALETTE) as writer:
            path, _ = writer.write(source, np.full((4, 6), value, np.uint8))
    with Image.open(path) as read:
        assert set(np.asarray(read).ravel()) == {1}
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 1
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert found == ["masks/x.png", "overlays/legend.png", "overlays/x.jpg", "predictions.csv"]


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    source = image(tmp_path / "x.jpg", size=(60, 40), exif=exif)
    with MaskWriter(tmp_path / "out", NAMES, PALETTE) as writer:
        _, overlay = writer.write(source, np.zeros((60, 40), np.uint8))
        with pytest.raises(DataError, match="size of its image"):
            writer.write(source, np.zeros((40, 60), np.uint8))
    assert read_rgb(overlay).shape == (60, 40, 3)


def test_what_cannot_be_written_is_refused_by_path(tmp_path):
    with MaskWriter(tmp_path, NAMES, PALETTE) as writer:
        with pytest.raises(ValueError, match=r"mask value 3 is no class of 3: a\.jpg"):
            writer.write("a.jpg", np.full((2, 2), 3, np.uint8))
        with pytest.raises(ValueError, match=r"uint8 \(H, W\), got int64"):
            writer.write("a.jpg", np.zeros((2, 2), np.int64))
        with pytest.raises(DataError, match=r"cannot read the image a\.jpg"):
            writer.write("a.jpg", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="as many colours"):
        MaskWriter(tmp_path, NAMES, PALETTE[:2])


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("L", 9, (9, 9, 9)),
        ("LA", (9, 1), (9, 9, 9)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("I;16", 9 * 256 + 7, (9, 9, 9)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_images_of_any_mode(tmp_path, mode, pixel, expected):
    Image.new(mode, (3, 2), pixel).save(tmp_path / "x.png")
    pixels = read_rgb(tmp_path / "x.png")
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[0, 0]) == expected


def test_a_palette_with_transparency_does_not_warn(tmp_path):
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([0, 0, 0, 5, 6, 7])
    picture.save(tmp_path / "x.png", transparency=b"\x00\x80")
    assert tuple(read_rgb(tmp_path / "x.png")[0, 0]) == (5, 6, 7)


def test_a_truncated_image_is_named(tmp_path):
    source = image(tmp_path / "x.jpg", size=(200, 200))
    source.write_bytes(source.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cannot read the image .*x\.jpg"):
        read_rgb(source)
