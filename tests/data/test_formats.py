"""Every format and pixel layout: the values that come out are those that were put in, by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.decode import decode_image, decode_sized
from lightning_vision.data.headers import read_header
from lightning_vision.types import Geometry

H, W = 24, 36
GREY, GREY_ALPHA, RGB, RGBA = 1, 2, 3, 4


def pixels(channels: int = 4, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Smooth planes without symmetry, ``(H, W, C)``, that end below ``high``."""
    y, x = np.mgrid[0:H, 0:W]
    planes = [y / H, x / W, 0.5 + 0.49 * np.sin((x + 2 * y) / 7), 1 - 0.7 * (x + y) / (H + W)]
    return (np.stack(planes[:channels], -1) * (high - 1)).astype(dtype)


P8 = pixels()
P16 = pixels(high=65536, dtype=np.uint16)
# What a decoder keeps of 16 bits, never what is left of clipping them.
HIGH = (P16 >> 8).astype(np.uint8)
BIT = P8[..., 2] > 127
TO_100 = P8[..., 0].astype(int) * 100 // 255


def grey(values: np.ndarray, alpha: np.ndarray | int = 255) -> np.ndarray:
    """``(H, W, 4)``: a grey image with its alpha."""
    return np.stack([values, values, values, np.broadcast_to(alpha, values.shape)], -1).astype(np.uint8)


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb[..., :3], np.full((H, W, 1), 255)], -1).astype(np.uint8)


def pillow(array: np.ndarray, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def palette_file(kind: str, **options: object) -> bytes:
    image = Image.frombytes("P", (W, H), INDICES.tobytes())
    image.putpalette(COLOURS.ravel().tolist())
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


INDICES = (P8[..., 0] // 64).astype(np.uint8)
COLOURS = np.array([[10, 20, 30], [200, 100, 50], [0, 255, 0], [90, 0, 250]], np.uint8)


def png(array: np.ndarray, colour_type: int, extra: bytes = b"") -> bytes:
    """A PNG of 8 or 16 bits by hand; ``extra`` stands before the pixels."""
    depth = array.dtype.itemsize * 8
    rows = array.reshape(H, -1).astype(array.dtype.newbyteorder(">"))
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", W, H, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


def transparent(name: bytes, *values: int) -> bytes:
    data = struct.pack(f">{len(values)}H", *values)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(array: np.ndarray, photometric: int, order: str = "<", tile: int | None = None) -> bytes:
    """A TIFF without compression by hand: one strip, or tiles of a side of ``tile``."""
    array = array.reshape(H, W, -1)
    samples, bits = array.shape[2], array.dtype.itemsize * 8
    stored = array.astype(array.dtype.newbyteorder(order))
    if tile is None:
        blocks = [stored.tobytes()]
    else:
        padded = np.pad(stored, ((0, -H % tile), (0, -W % tile), (0, 0)))
        blocks = [padded[y : y + tile, x : x + tile].tobytes() for y in range(0, H, tile) for x in range(0, W, tile)]
    offsets = [8 + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    body = b"".join(blocks)
    tags: dict[int, tuple[int, list[int]]] = {
        256: (3, [W]), 257: (3, [H]), 258: (3, [bits] * samples), 259: (3, [1]), 262: (3, [photometric]),
        277: (3, [samples]),
    }  # fmt: skip
    if tile is None:
        tags |= {273: (4, offsets), 278: (3, [H]), 279: (4, [len(b) for b in blocks])}
    else:
        tags |= {322: (3, [tile]), 323: (3, [tile]), 324: (4, offsets), 325: (4, [len(b) for b in blocks])}
    if samples in (2, 4):
        tags[338] = (3, [2])  # alpha, not premultiplied
    table, after = b"", 8 + len(body) + 2 + 12 * len(tags) + 4
    longer = b""
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            place = struct.pack(f"{order}I", after + len(longer))
            longer += data
        else:
            place = data.ljust(4, b"\0")
        table += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(body))
    return head + body + struct.pack(f"{order}H", len(tags)) + table + bytes(4) + longer


def pnm(kind: str, values: np.ndarray, high: int | None = None) -> bytes:
    head = f"{kind}\n# a comment\n{W} {H}\n" + ("" if high is None else f"{high}\n")
    if kind in ("P1", "P2", "P3"):
        return (head + " ".join(map(str, values.ravel().astype(int)))).encode()
    return head.encode() + values.tobytes()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# name: (content, what it shows as (H, W, 4), channels that its header has, largest error)
Case = tuple[bytes, np.ndarray, int, int]
EXACT: dict[str, Case] = {
    "grey.png": (png(P8[..., 0], 0), grey(P8[..., 0]), GREY, 0),
    "grey_alpha.png": (png(P8[..., [0, 3]], 4), grey(P8[..., 0], P8[..., 3]), GREY_ALPHA, 0),
    "rgb.png": (png(P8[..., :3], 2), opaque(P8), RGB, 0),
    "rgba.png": (png(P8, 6), P8, RGBA, 0),
    "grey16.png": (png(P16[..., 0], 0), grey(HIGH[..., 0]), GREY, 0),
    "grey_alpha16.png": (png(P16[..., [0, 3]], 4), grey(HIGH[..., 0], HIGH[..., 3]), GREY_ALPHA, 0),
    "rgb16.png": (png(P16[..., :3], 2), opaque(HIGH), RGB, 0),
    "rgba16.png": (png(P16, 6), HIGH, RGBA, 0),
    "grey_key.png": (
        png(P8[..., 0], 0, transparent(b"tRNS", 10)),
        grey(P8[..., 0], np.where(P8[..., 0] == 10, 0, 255)),
        GREY_ALPHA,
        0,
    ),
    "rgb_key.png": (
        png(COLOURS[INDICES], 2, transparent(b"tRNS", 200, 100, 50)),
        np.concatenate([COLOURS[INDICES], np.where(INDICES == 1, 0, 255)[..., None]], -1).astype(np.uint8),
        RGBA,
        0,
    ),
    "palette.png": (palette_file("PNG"), opaque(COLOURS[INDICES]), RGB, 0),
    "palette_key.png": (
        palette_file("PNG", transparency=2),
        np.concatenate([COLOURS[INDICES], np.where(INDICES == 2, 0, 255)[..., None]], -1).astype(np.uint8),
        RGBA,
        0,
    ),
    "palette_alphas.png": (
        palette_file("PNG", transparency=bytes([0, 50, 100, 255])),
        np.concatenate([COLOURS[INDICES], np.array([0, 50, 100, 255])[INDICES][..., None]], -1).astype(np.uint8),
        RGBA,
        0,
    ),
    "palette.gif": (palette_file("GIF"), opaque(COLOURS[INDICES]), RGB, 0),
    "palette.bmp": (palette_file("BMP"), opaque(COLOURS[INDICES]), RGB, 0),
    "palette.tif": (palette_file("TIFF"), opaque(COLOURS[INDICES]), RGB, 0),
    "bit.png": (pillow(BIT, "PNG"), grey(BIT * 255), GREY, 0),
    "bit.bmp": (pillow(BIT, "BMP"), grey(BIT * 255), GREY, 0),
    "bit.tif": (pillow(BIT, "TIFF", compression="group4"), grey(BIT * 255), GREY, 0),
    "bit_ascii.pbm": (pnm("P1", ~BIT), grey(BIT * 255), GREY, 0),
    "bit.pbm": (pnm("P4", np.packbits(~BIT, axis=1)), grey(BIT * 255), GREY, 0),
    "rgb.bmp": (pillow(P8[..., :3], "BMP"), opaque(P8), RGB, 0),
    "rgb.webp": (pillow(P8[..., :3], "WEBP", lossless=True), opaque(P8), RGB, 0),
    "rgba.webp": (pillow(P8, "WEBP", lossless=True, exact=True), P8, RGBA, 0),
    "rgba.tga": (pillow(P8, "TGA"), P8, RGBA, 0),
    "rgb.jp2": (pillow(P8[..., :3], "JPEG2000", irreversible=False), opaque(P8), RGB, 0),
    "grey.tif": (tiff(P8[..., 0], 1), grey(P8[..., 0]), GREY, 0),
    "white_is_zero.tif": (tiff(255 - P8[..., 0], 0), grey(P8[..., 0]), GREY, 0),
    "grey16.tif": (tiff(P16[..., 0], 1), grey(HIGH[..., 0]), GREY, 0),
    "grey16_big_endian.tif": (tiff(P16[..., 0], 1, ">"), grey(HIGH[..., 0]), GREY, 0),
    "rgb16.tif": (tiff(P16[..., :3], 2), opaque(HIGH), RGB, 0),
    "rgba.tif": (tiff(P8, 2), P8, RGBA, 0),
    "tiles.tif": (tiff(P8[..., :3], 2, tile=16), opaque(P8), RGB, 0),
    "tiles16.tif": (tiff(P16[..., 0], 1, tile=16), grey(HIGH[..., 0]), GREY, 0),
    "lzw.tif": (pillow(P8[..., :3], "TIFF", compression="tiff_lzw"), opaque(P8), RGB, 0),
    "deflate.tif": (pillow(P8[..., :3], "TIFF", compression="tiff_adobe_deflate"), opaque(P8), RGB, 0),
    "packbits.tif": (pillow(P8[..., :3], "TIFF", compression="packbits"), opaque(P8), RGB, 0),
    "float.tif": (pillow((P8[..., 0] / 255).astype(np.float32), "TIFF"), grey(P8[..., 0]), GREY, 0),
    "grey.pgm": (pnm("P5", P8[..., 0], 255), grey(P8[..., 0]), GREY, 0),
    "grey_ascii.pgm": (pnm("P2", P8[..., 0], 255), grey(P8[..., 0]), GREY, 0),
    "grey16.pgm": (pnm("P5", P16[..., 0].astype(">u2"), 65535), grey(HIGH[..., 0]), GREY, 0),
    "to_100.pgm": (pnm("P2", TO_100, 100), grey(np.rint(TO_100 * 2.55)), GREY, 1),
    "rgb.ppm": (pnm("P6", P8[..., :3], 255), opaque(P8), RGB, 0),
    "rgb_ascii.ppm": (pnm("P3", P8[..., :3], 255), opaque(P8), RGB, 0),
    "hw.npy": (npy(P8[..., 0]), grey(P8[..., 0]), GREY, 0),
    "hwc.npy": (npy(P8), P8, RGBA, 0),
    "hw2.npy": (npy(P8[..., [0, 3]]), grey(P8[..., 0], P8[..., 3]), GREY_ALPHA, 0),
    "chw.npy": (npy(P8[..., :3].transpose(2, 0, 1)), opaque(P8), RGB, 0),
    "fortran.npy": (npy(np.asfortranarray(P8[..., :3])), opaque(P8), RGB, 0),
    "uint16.npy": (npy(P16[..., :3]), opaque(HIGH), RGB, 0),
    "int16.npy": (npy((P16[..., :3] >> 1).astype(np.int16)), opaque(HIGH >> 1), RGB, 0),
    "big_endian.npy": (npy(P16[..., 0].astype(">u2")), grey(HIGH[..., 0]), GREY, 0),
    "bool.npy": (npy(BIT), grey(BIT * 255), GREY, 0),
    "float16.npy": (npy((P8[..., 0] / 255).astype(np.float16)), grey(P8[..., 0]), GREY, 0),
    "float32.npy": (npy((P8[..., :3] / 255).astype(np.float32)), opaque(P8), RGB, 0),
    "float64.npy": (npy(P8[..., :3].transpose(2, 0, 1) / 255), opaque(P8), RGB, 0),
}
LOSSY: dict[str, Case] = {
    "grey.jpg": (pillow(P8[..., 0], "JPEG", quality=98), grey(P8[..., 0]), GREY, 3),
    "rgb.jpg": (pillow(P8[..., :3], "JPEG", quality=98, subsampling=0), opaque(P8), RGB, 6),
    "progressive.jpg": (
        pillow(P8[..., :3], "JPEG", quality=98, subsampling=0, progressive=True),
        opaque(P8),
        RGB,
        6,
    ),
    "rgb_components.jpg": (pillow(P8[..., :3], "JPEG", quality=98, keep_rgb=True), opaque(P8), RGB, 6),
    "jpeg.tif": (pillow(P8[..., :3], "TIFF", compression="jpeg", quality=98), opaque(P8), RGB, 24),
    "rgb.webp": (pillow(P8[..., :3], "WEBP", quality=100), opaque(P8), RGB, 24),
    "rgb.avif": (pillow(P8[..., :3], "AVIF", quality=100, subsampling="4:4:4"), opaque(P8), RGB, 6),
}


def wanted(shown: np.ndarray, channels: int) -> np.ndarray:
    """``(C, H, W)`` of ``(H, W, 4)``: luma of ITU-R 601, alpha as it is."""
    colour = shown[..., :3].astype(float)
    luma = np.floor(colour @ [0.299, 0.587, 0.114] + 0.5)[..., None]
    colours = luma if channels <= 2 else colour
    planes = [colours, shown[..., 3:]] if channels in (2, 4) else [colours]
    return np.concatenate(planes, -1).transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("table", [EXACT, LOSSY], ids=["exact", "lossy"])
def test_values(tmp_path: Path, table: dict[str, Case], channels: int) -> None:
    for name, (content, shown, in_file, tolerance) in table.items():
        (tmp_path / name).write_bytes(content)
        header = read_header(tmp_path / name)
        assert (header.height, header.width, header.num_channels) == (H, W, in_file), name
        decoded, size = decode_sized(tmp_path / name, Geometry(H, W, channels))
        assert size == (H, W)
        error = np.abs(decoded.numpy().astype(float) - wanted(shown, channels)).max()
        # Luma of grey is its value, and of colours it may be rounded the other way.
        slack = 1 if channels <= 2 and in_file >= 3 else 0
        assert error <= tolerance + slack, f"{name}: off by {error}"


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    for name, (content, shown, _, tolerance) in EXACT.items():
        if not name.endswith(".npy"):
            path.write_bytes(content)
            red = decode_image(path, Geometry(H, W, 3)).numpy()[0].astype(int)
            assert np.abs(red - shown[..., 0]).max() <= tolerance, name


def cmyk(ink: tuple[int, int, int, int], transform: int) -> bytes:
    """One colour. Adobe's files hold 255 - ink; its marker says whether the first three were turned into YCbCr."""
    file = io.BytesIO()
    Image.new("CMYK", (W, H), ink).save(file, "JPEG", quality=100)
    data = file.getvalue()
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0
    return data[: marker + 11] + bytes([transform]) + data[marker + 12 :]


@pytest.mark.parametrize("ink", [(0, 0, 0, 0), (255, 0, 0, 0), (10, 200, 90, 40), (0, 0, 0, 255), (60, 60, 60, 100)])
def test_inverted_cmyk_of_adobe(tmp_path: Path, ink: tuple[int, int, int, int]) -> None:
    c, m, y, k = (255 - np.array(ink)) / 255
    (tmp_path / "cmyk.jpg").write_bytes(cmyk(ink, 0))
    assert read_header(tmp_path / "cmyk.jpg").num_channels == RGB
    found = decode_image(tmp_path / "cmyk.jpg", Geometry(H, W, 3))[:, 5, 5].numpy()
    assert np.abs(found - 255 * np.array([c, m, y]) * k).max() <= 3
    # The same bytes as YCCK: 255 - ink of the first three are Y, Cb and Cr.
    luma, blue, red = 255 - np.array(ink[:3], float)
    rgb = [luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128)]
    rgb.append(luma + 1.772 * (blue - 128))
    (tmp_path / "ycck.jpg").write_bytes(cmyk(ink, 2))
    found = decode_image(tmp_path / "ycck.jpg", Geometry(H, W, 3))[:, 5, 5].numpy()
    assert np.abs(found - (255 - np.clip(rgb, 0, 255)) * k).max() <= 3


def with_thumbnail(jpeg: bytes, thumbnail: bytes, orientation: int) -> bytes:
    """EXIF of a camera: the first table holds the orientation, the second a JPEG of its own size and colours."""
    first = struct.pack("<H HHIHH I", 1, 0x0112, 3, 1, orientation, 0, 26)
    second = struct.pack("<H HHII HHII I", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    tiff_ = b"II*\0" + struct.pack("<I", 8) + first + second
    assert len(tiff_) == 56
    exif = b"Exif\0\0" + tiff_ + thumbnail
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_embedded_thumbnail_is_not_the_image(tmp_path: Path, orientation: int) -> None:
    plain = pillow(P8[..., :3], "JPEG", quality=98, subsampling=0)
    content = with_thumbnail(plain, pillow(np.full((8, 9, 3), 128, np.uint8), "JPEG"), orientation)
    (tmp_path / "plain.jpg").write_bytes(plain)
    (tmp_path / "camera.jpg").write_bytes(content)
    shape = (W, H) if orientation == 6 else (H, W)
    header = read_header(tmp_path / "camera.jpg")
    assert (header.height, header.width, header.orientation) == (*shape, orientation)
    decoded, size = decode_sized(tmp_path / "camera.jpg", Geometry(*shape, 3))
    expected = decode_image(tmp_path / "plain.jpg", Geometry(H, W, 3)).numpy()
    assert size == shape
    assert np.array_equal(decoded.numpy(), np.rot90(expected, -1, (1, 2)) if orientation == 6 else expected)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("gif", {"duration": 100}), ("png", {"duration": 100}), ("webp", {"lossless": True}), ("tif", {}), ("avif", {})],
)
def test_the_first_frame_counts_and_its_size(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / f"frames.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    decoded, size = decode_sized(path, Geometry(6, 8, 3))
    assert size == (6, 8)
    assert np.abs(decoded.numpy().astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 2


@pytest.mark.parametrize("make", [lambda: png(P8, 6), lambda: pillow(P8[..., :3], "JPEG")], ids=["png", "jpeg"])
def test_a_resize_is_of_the_colours_alone(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """Alpha is resized beside the colours and weighs nothing: they do not depend on how many channels are asked for."""
    (tmp_path / "image").write_bytes(make())
    three = decode_image(tmp_path / "image", Geometry(10, 11, 3)).numpy()
    four = decode_image(tmp_path / "image", Geometry(10, 11, 4)).numpy()
    assert np.array_equal(three, four[:3])
