"""``resize_pad``: image, mask and the way back agree on where every pixel lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_vision.data.decode import crop_or_pad, decode_image, decode_sized
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.placement import Resize, Size
from lightning_vision.head import HeadOutput
from lightning_vision.inference.prediction import Place
from lightning_vision.inference.restore import restore_size
from lightning_vision.tasks.segmentation import Segmentation
from lightning_vision.types import Geometry, TargetSpec

PAD = Resize("resize_pad")
IGNORING = TargetSpec("mask", ("a", "b"), ignore_index=255)
sides = st.one_of(st.integers(1, 70), st.sampled_from([1, 2, 3, 500]))
sizes = st.tuples(sides, sides)
small = st.tuples(st.integers(1, 40), st.integers(1, 40))


def predicted_mask(logits: torch.Tensor, file: Size) -> np.ndarray:
    """The mask that is predicted for a file of this size."""
    place = Place("a.png", lambda: file, PAD)
    mask = Segmentation(IGNORING).prediction(None, HeadOutput(logits), place).mask  # type: ignore[arg-type]
    assert mask is not None
    return mask


def content(scaled: Size, wanted: Size) -> tuple[slice, slice]:
    """Where the image lies in the result: the border is the same on both sides, to within a pixel."""
    top, left = ((want - have) // 2 for have, want in zip(scaled, wanted, strict=True))
    return slice(top, top + scaled[0]), slice(left, left + scaled[1])


@given(sizes, sizes)
def test_the_whole_image_fits_and_keeps_its_aspect(file: Size, wanted: Size) -> None:
    scaled = PAD.scaled(file, wanted)
    assert any(have == want for have, want in zip(scaled, wanted, strict=True))
    assert all(1 <= have <= want for have, want in zip(scaled, wanted, strict=True))
    scale = min(want / side for side, want in zip(file, wanted, strict=True))
    for side, have in zip(file, scaled, strict=True):
        assert abs(have - max(1, side * scale)) <= 0.5 + 1e-9
    assert PAD.scaled(wanted, wanted) == wanted


@pytest.mark.parametrize(
    ("file", "wanted", "scaled"),
    [
        ((480, 640), (224, 224), (168, 224)),
        ((640, 480), (224, 224), (224, 168)),
        ((10, 20), (224, 224), (112, 224)),
        ((100, 100), (50, 80), (50, 50)),
        ((1, 1000), (8, 8), (1, 8)),
        ((3, 2), (7, 7), (7, 5)),
    ],
)
def test_sizes(file: Size, wanted: Size, scaled: Size) -> None:
    assert PAD.scaled(file, wanted) == scaled


@given(file=small, wanted=small)
def test_the_image_is_pillows_resize_with_its_edge_repeated(
    tmp_path_factory: pytest.TempPathFactory, file: Size, wanted: Size
) -> None:
    path = tmp_path_factory.getbasetemp() / "pad.png"
    y, x = np.mgrid[0 : file[0], 0 : file[1]]
    image = Image.fromarray((120 + 60 * np.sin(y / 9) + 60 * np.cos(x / 7)).astype(np.uint8))
    image.save(path)
    decoded, size = decode_sized(path, Geometry(*wanted, 1), PAD)
    assert size == file
    rows, columns = content(PAD.scaled(file, wanted), wanted)
    resized = np.array(image.resize((columns.stop - columns.start, rows.stop - rows.start), Image.Resampling.BILINEAR))
    border = [(part.start, want - part.stop) for part, want in zip((rows, columns), wanted, strict=True)]
    expected = np.pad(resized, border, mode="edge")
    # Both resize first one way, then the other, and round after each.
    assert np.abs(decoded[0].numpy().astype(int) - expected).max() <= 2


@pytest.mark.parametrize("method", ["interpolate", "crop_or_pad", "resize_crop", "resize_pad"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_placed_as_it_is_looked_at(tmp_path: Path, method: str, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "stored.png", exif=exif)
    # By hand: what an EXIF orientation does to the rows and columns of the file.
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2), 7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]  # fmt: skip
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "turned.png")
    for wanted in ((9, 20), (20, 9), (31, 16)):
        geometry, resize = Geometry(*wanted, 3), Resize(method)
        stored = decode_image(tmp_path / "stored.png", geometry, resize)
        assert (stored.int() - decode_image(tmp_path / "turned.png", geometry, resize).int()).abs().max() <= 1


@given(file=small, wanted=small, vertical=st.booleans(), data=st.data())
def test_image_and_mask_agree(
    tmp_path_factory: pytest.TempPathFactory, file: Size, wanted: Size, vertical: bool, data: st.DataObject
) -> None:
    edge = data.draw(st.integers(0, file[1] if vertical else file[0]))
    mask = np.zeros(file, np.uint8)
    mask[(slice(None), slice(edge, None)) if vertical else (slice(edge, None), slice(None))] = 1
    folder = tmp_path_factory.getbasetemp()
    Image.fromarray(mask * 255).save(folder / "half.png")
    Image.fromarray(mask).save(folder / "half mask.png")
    image = decode_image(folder / "half.png", Geometry(*wanted, 1), PAD)[0].numpy()
    # Without an ignored value the border repeats the edge, as that of the image does.
    plain = decode_mask(folder / "half mask.png", TargetSpec("mask", ("a", "b")), wanted, file, resize=PAD).numpy()
    assert (plain[image > 160] == 1).all()
    assert (plain[image < 95] == 0).all()
    found = decode_mask(folder / "half mask.png", IGNORING, wanted, file, resize=PAD).numpy()
    inside = np.zeros(wanted, bool)
    inside[content(PAD.scaled(file, wanted), wanted)] = True
    assert (found[~inside] == 255).all()
    assert np.array_equal(found[inside], plain[inside])


@given(file=small, times=st.integers(1, 5), extra=st.integers(0, 9), tall=st.booleans())
def test_a_mask_survives_the_way_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, file: Size, times: int, extra: int, tall: bool
) -> None:
    """Where the scale is whole, every pixel of the file gets its own prediction back."""
    wanted = (file[0] * times + extra * tall, file[1] * times + extra * (not tall))
    assert PAD.scaled(file, wanted) == (file[0] * times, file[1] * times)
    ids = np.random.default_rng(times).integers(0, 2, file, dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "there and back.png"
    Image.fromarray(ids).save(path)
    seen = decode_mask(path, IGNORING, wanted, file, resize=PAD)
    logits = torch.stack([seen == 0, seen == 1]).float()
    # What stands in the border has no part in what comes back.
    logits[:, seen == 255] = torch.tensor([[-1e9], [1e9]])
    assert np.array_equal(predicted_mask(logits, file), ids)


@given(file=sizes, wanted=sizes)
def test_the_way_back_is_the_resize_of_what_is_inside(file: Size, wanted: Size) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, *wanted, generator=generator)
    back = restore_size(logits, file, PAD)
    assert back.shape == (2, *file)
    rows, columns = content(PAD.scaled(file, wanted), wanted)
    expected = torch.nn.functional.interpolate(logits[None, :, rows, columns], file, mode="bilinear")[0]
    assert torch.equal(back, expected)


@given(file=st.tuples(st.integers(8, 70), st.integers(8, 70)), wanted=st.tuples(st.integers(8, 40), st.integers(8, 40)))
def test_coordinates_come_back_as_they_were(file: Size, wanted: Size) -> None:
    scaled = PAD.scaled(file, wanted)
    axes = [(np.arange(new) + 0.5) * (old / new) - 0.5 for old, new in zip(file, scaled, strict=True)]
    seen = np.stack([crop_or_pad(grid, wanted, PAD) for grid in np.meshgrid(*axes, indexing="ij")])
    back = restore_size(torch.from_numpy(seen), file, PAD)
    expected = torch.stack(torch.meshgrid(torch.arange(file[0]), torch.arange(file[1]), indexing="ij")).float()
    # Half a cell at the edges, where there is nothing to interpolate with.
    margin = [int(old / new) + 1 for old, new in zip(file, scaled, strict=True)]
    inner = (slice(None), slice(margin[0], -margin[0]), slice(margin[1], -margin[1]))
    if expected[inner].numel():
        assert (back - expected)[inner].abs().max() < 0.01


@pytest.mark.parametrize("file", [(1, 1), (1, 900), (900, 1), (2, 333)])
def test_sides_of_a_pixel(tmp_path: Path, file: Size) -> None:
    # The second half of the longer side is of another class.
    places = np.indices(file)[int(np.argmax(file))]
    ids = (places * 2 // max(file)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "thin.png")
    image = decode_image(tmp_path / "thin.png", Geometry(33, 32, 3), PAD)
    assert image.shape == (3, 33, 32)
    seen = decode_mask(tmp_path / "thin.png", IGNORING, (33, 32), file, resize=PAD)
    assert (seen != 255).sum() == np.prod(PAD.scaled(file, (33, 32)))
    logits = torch.stack([seen == 0, seen == 1]).float()
    found = predicted_mask(logits, file)
    assert (found != ids).mean() < 0.05
