"""Pictures that are there more than once: the same file under two names, or the same picture saved again.

Three steps, each of which leaves fewer pairs to the next, dearer one; none compares all of many images with all:

1. Same file: equal thumbnail and file size, then an equal digest of the bytes.
2. Candidates: 64 bits of the low frequencies of the thumbnail, which brightness and contrast do not change, in four
   bands of 16. Pairs that agree in a band and whose thumbnails correlate are candidates.
3. Same picture: both images are decoded exactly, to 64 x 64 pixels, and must be equal up to brightness and contrast
   in their coarse structure, in their colour and in their detail (``same_picture``).

Measured on copies of pictures (JPEG quality 25 to 95, WebP 60, a third, half and double the size, 6 to 10 % brighter)
among all pictures of six data sets: photographs of weather and of ImageNet, CamVid's video frames, solar cells, nuclei,
CIFAR-10. Of all pairs of different pictures, one was called the same: two frames of a car that waits at a traffic
light. Frames of a moving camera a fifteenth of a second apart, and cells of one solar module, are told apart. Found
were 93 to 100 % of the copies of photographs, frames and cells; of those brightened until large parts are white, 83 to
100 %; of dark nuclei, whose contrast is a few grey levels, 60 % with quality 25 and 87 to 100 % of the others; of
CIFAR-10's 32 x 32 pixels all with quality 95 or doubled, next to none with quality 50 or halved. Crops, mirrored and
turned pictures, and grey copies of colourful ones, are not looked for. The second step takes 13 s and 0.5 GB for a
million images that are all different.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt

from lightning_vision.data.image_scan import ImageScan, decoded
from lightning_vision.data.index import PackedStrings
from lightning_vision.data.threads import available_cores, divide, local_ranks
from lightning_vision.errors import DataError

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

BANDS, BITS = 4, 16
# So few are compared all with all: each is so near to the median of them that bits change with the least noise.
_FEW = 512
_BLOCK = 1 << 14  # rows or pairs that are handled at once
# A row is compared with so many others of its band at most, those with the most similar bits: bands that all pictures
# agree in (a camera that never moves) would cost the square of their number.
_NEIGHBOURS = 256
_DIFFERENT_BITS = 16  # of 64; of different pictures, 32 are expected
_CORRELATION = 0.98  # of thumbnails: copies that the last step accepts have that nearly always
_FLAT = 2.0  # grey levels of standard deviation; with less there is nothing to compare
_CLOSEST = 8  # candidates of a picture that are decoded again
_SIDE = 64  # pixels a side, of the images that are decoded again


@dataclass(frozen=True)
class Group:
    """Samples that show the same picture.

    Args:
        rows: Rows of the index, ascending, at least two.
        exact: All of them are the same file, byte by byte.
    """

    rows: tuple[int, ...]
    exact: bool


def find_duplicates(images: Sequence[PackedStrings], scan: ImageScan, threads: int | None = None) -> list[Group]:
    """Find the samples that are there more than once; of several images a sample, all must be the same.

    Rows with the same paths count as one: they are no copies, and are found by reading the table alone.

    Args:
        images: Paths, one column for each image of a sample.
        scan: What ``scan_images`` found in them, with thumbnails.
        threads: Threads that read; None = all cores.

    Returns:
        Groups in the order of their first rows.
    """
    assert scan.thumbnails is not None
    rows = np.flatnonzero(scan.readable)
    groups = _Groups()
    with ThreadPoolExecutor(threads or divide(available_cores(), local_ranks())) as pool:
        copies = _same_files(images, scan, rows, pool)
        kept = np.ones(len(scan.headers), np.bool_)
        for group in copies:
            groups.join(group)
            kept[group[1:]] = False
        rows = rows[kept[rows]]
        near: set[int] = set()
        for i, j in _same_pictures(images, scan.thumbnails, rows, groups, pool):
            groups.join([i, j])
            near.add(i)
    return [
        Group(tuple(members), exact=near.isdisjoint(members))
        for members in groups.all()
        if len({tuple(column[row] for column in images) for row in members}) > 1
    ]


def signatures(thumbnails: npt.NDArray[np.uint8], sample: int = 1 << 14) -> npt.NDArray[np.uint16]:
    """Describe each thumbnail by bits: is a low frequency stronger than in the median picture of the same data?

    Against the data's own median, half of the pictures have each bit, whatever all of them have in common.

    Args:
        thumbnails: uint8 ``(N, inputs, 16, 16)``, none of them flat.
        sample: Number of thumbnails, spread evenly, of which the median is taken.

    Returns:
        uint16 ``(N, 4)``, the bands.
    """
    count = len(thumbnails)
    spread = np.linspace(0, count - 1, min(count, sample)).astype(np.int64)
    median = np.median(_frequencies(thumbnails[spread]), axis=0)
    codes = np.empty((count, BANDS), np.uint16)
    weights = (1 << np.arange(BITS)).astype(np.uint16)
    for start in range(0, count, _BLOCK):
        bits = _frequencies(thumbnails[start : start + _BLOCK]) > median
        codes[start : start + _BLOCK] = (bits.reshape(-1, BANDS, BITS) * weights).sum(-1, dtype=np.uint16)
    return codes


def _frequencies(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    """The 64 lowest frequencies (cosine transform) without the mean, lowest first, float32 ``(n, 64)``."""
    side = thumbnails.shape[-1]
    angle = np.outer(np.arange(side), (np.arange(side) + 0.5) * np.pi / side)
    cosine = np.cos(angle).astype(np.float32)
    # The transform of the sum is the sum of the transforms: samples of the same images have the same bits.
    transformed = cosine @ _normalised(thumbnails).sum(1) @ cosine.T
    order = sorted(np.ndindex(side, side), key=lambda place: (sum(place), place))[1 : BANDS * BITS + 1]
    return transformed[:, [i for i, _ in order], [j for _, j in order]]


def _normalised(thumbnails: npt.NDArray[np.uint8]) -> Floats:
    """Mean 0 and length 1 over the last two axes; what is flat stays 0."""
    values = thumbnails.astype(np.float32)
    values -= values.mean((-2, -1), keepdims=True)
    length = np.sqrt(np.square(values).sum((-2, -1), keepdims=True))
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0)


def _flat(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which images show next to nothing, bool without the last two axes."""
    return np.asarray(thumbnails.std((-2, -1), dtype=np.float32) < _FLAT)


def candidates(codes: npt.NDArray[np.uint16], neighbours: int = _NEIGHBOURS) -> Iterator[tuple[Rows, Rows]]:
    """Pairs of rows that agree in at least one band: all that differ in fewer bits than there are bands, and more.

    Args:
        codes: uint16 ``(N, bands)``.
        neighbours: A row is paired with at most so many that follow it in a band, where they stand in the order of
            the other bands.

    Yields:
        Two int64 arrays of rows; the first has the smaller row of each pair. A pair may come once for each band.
    """
    for band in range(codes.shape[1]):
        others = [codes[:, other] for other in range(codes.shape[1]) if other != band]
        order = np.lexsort((*others, codes[:, band]))
        key = codes[order, band]
        start = np.arange(len(order) - 1, dtype=np.int64)
        for step in range(1, neighbours + 1):
            start = start[start + step < len(order)]
            start = start[key[start] == key[start + step]]  # rows of a band stand together
            if not len(start):
                break
            first, second = order[start], order[start + step]
            yield np.minimum(first, second), np.maximum(first, second)


def same_picture(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Tell whether two decoded images are the same picture, up to brightness, contrast and compression.

    Brightness and contrast of the darker one are brought to those of the brighter one, white stays white. Then, of
    8 x 8 blocks, the means must agree to 0.2 grey levels and 2 % of their spread, and their colours to 5 levels; and
    what is finer than 7 pixels must correlate by 0.95.

    Args:
        a: uint8 ``(3, 64, 64)``.
        b: The same.
    """
    if a.mean() > b.mean():
        a, b = b, a
    # Where the brighter one is white, its pixels tell nothing of the change.
    known = np.asarray((b < 247).all(0))
    if known.mean() < 0.25:
        known = np.ones_like(known)
    one, other = a.astype(np.float32), b.astype(np.float32)
    grey, target = _luma(one), _luma(other)
    contrast = float(target[known].std() / max(grey[known].std(), 1e-6))
    if not 0.5 < contrast < 2:
        return bool(np.array_equal(a, b))
    offset = float(target[known].mean() - contrast * grey[known].mean())
    one = np.clip(contrast * one + offset, 0, 255)
    grey = _luma(one)
    coarse, wanted = _blocks(grey), _blocks(target)
    spread = float(wanted.std())
    if spread < _FLAT:
        return bool(np.array_equal(a, b))
    if np.sqrt(np.square(coarse - wanted).mean()) > 0.2 + 0.02 * spread:
        return False
    if np.sqrt(np.square(_blocks(one - grey) - _blocks(other - target)).mean()) > 5:
        return False
    fine, wanted = grey - _smooth(grey), target - _smooth(target)
    energy = float(np.sqrt(np.square(fine).sum() * np.square(wanted).sum()))
    return float((fine * wanted).sum()) >= 0.95 * energy


def _luma(pixels: Floats) -> Floats:
    return np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), pixels, 1)


def _blocks(pixels: Floats, side: int = 8) -> Floats:
    """Means of 8 x 8 blocks of the last two axes."""
    block = _SIDE // side
    return pixels.reshape(*pixels.shape[:-2], side, block, side, block).mean((-3, -1))


def _smooth(pixels: Floats, reach: int = 3) -> Floats:
    """Mean of the 7 x 7 pixels around each; the edge is repeated."""
    width = 2 * reach + 1
    padded = np.pad(pixels, reach, mode="edge")
    for axis in (0, 1):
        padded = np.lib.stride_tricks.sliding_window_view(padded, width, axis).mean(-1)
    return padded


def _same_files(
    images: Sequence[PackedStrings], scan: ImageScan, rows: Rows, pool: ThreadPoolExecutor
) -> list[list[int]]:
    """Groups of rows whose files are equal byte by byte, ascending."""
    assert scan.thumbnails is not None
    keys = np.fromiter(
        (hash((scan.thumbnails[row].tobytes(), scan.bytes[row].tobytes())) for row in rows), np.int64, len(rows)
    )
    _, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
    alike = rows[count[inverse] > 1]

    def digest(row: int) -> bytes | None:
        try:
            return b"".join(_digest(column[row]) for column in images)
        except OSError:  # removed meanwhile
            return None

    look: dict[bytes, list[int]] = {}
    for row, value in zip(alike.tolist(), _mapped(digest, alike.tolist(), pool), strict=True):
        if value is not None:
            look.setdefault(value, []).append(row)
    return [group for group in look.values() if len(group) > 1]


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _same_pictures(
    images: Sequence[PackedStrings],
    thumbnails: npt.NDArray[np.uint8],
    rows: Rows,
    groups: _Groups,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, int]]:
    """Pairs of rows that are found to be the same picture; the caller joins them before it asks for the next."""
    blocks = (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))
    rows = np.concatenate([rows[:0], *(some[~_flat(thumbnails[some]).all(1)] for some in blocks)])
    if len(rows) < 2:
        return

    @lru_cache(maxsize=1024)
    def pixels(path: str) -> npt.NDArray[np.uint8] | None:
        try:
            return decoded(path, _SIDE, 3, exact=True)
        except DataError:  # it was readable, so it was changed meanwhile
            return None

    def same(pair: tuple[int, int]) -> bool:
        for column in images:
            a, b = (pixels(column[row]) for row in pair)
            if a is None or b is None or not same_picture(a, b):
                return False
        return True

    pairs = iter(similar(thumbnails, rows).tolist())
    while some := list(islice(pairs, 256)):
        asked = [(i, j) for i, j in some if groups.root(i) != groups.root(j)]
        for pair, yes in zip(asked, pool.map(same, asked), strict=True):
            if yes:
                yield pair


def similar(thumbnails: npt.NDArray[np.uint8], rows: Rows) -> Rows:
    """Find pairs whose thumbnails correlate.

    Args:
        thumbnails: uint8 ``(N, inputs, 16, 16)``.
        rows: Those that are compared, ascending, none of them flat.

    Returns:
        int64 ``(pairs, 2)`` of ``rows``, ascending: for each row the closest of those that follow it.
    """
    pairs, score = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    limit = 4 * _CLOSEST * len(rows)  # pairs in memory
    for first, second in _promising(thumbnails, rows):
        some = np.stack([rows[first], rows[second]], 1)
        parts = [_correlating(thumbnails, some[i : i + _BLOCK]) for i in range(0, len(some), _BLOCK)]
        pairs = np.concatenate([pairs, *(part for part, _ in parts)])
        score = np.concatenate([score, *(part for _, part in parts)])
        if len(pairs) > limit:
            pairs, score = _closest(pairs, score)
    return _closest(pairs, score)[0]


def _promising(thumbnails: npt.NDArray[np.uint8], rows: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Positions in ``rows`` of pairs that may correlate."""
    if len(rows) <= _FEW:
        yield np.triu_indices(len(rows), 1)
        return
    codes = signatures(thumbnails[rows])
    whole = codes.view(np.uint64).ravel()
    for first, second in candidates(codes):
        near = np.bitwise_count(whole[first] ^ whole[second]) <= _DIFFERENT_BITS
        yield first[near], second[near]


def _correlating(thumbnails: npt.NDArray[np.uint8], pairs: Rows) -> tuple[Rows, Floats]:
    """Those of the pairs whose thumbnails correlate, and how much."""
    a, b = thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]]
    correlation = (_normalised(a) * _normalised(b)).sum((-2, -1))
    # Of a sample with several images, some may be flat, which correlate with nothing: the last step compares them.
    alike = ((correlation >= _CORRELATION) | (_flat(a) & _flat(b))).all(1)
    return pairs[alike], correlation[alike].mean(1)


def _closest(pairs: Rows, score: Floats) -> tuple[Rows, Floats]:
    """Each pair once, and of each first row those with the highest scores, ascending."""
    pairs, place = np.unique(pairs, axis=0, return_index=True)
    score = score[place]
    order = np.lexsort((-score, pairs[:, 0]))
    rank = np.arange(len(order)) - np.searchsorted(pairs[order, 0], pairs[order, 0])
    # In the order of rows, so that decoded images are used again while they last.
    kept = np.sort(order[rank < _CLOSEST])
    return pairs[kept], score[kept]


def _mapped(
    function: Callable[[int], bytes | None], rows: list[int], pool: ThreadPoolExecutor
) -> Iterator[bytes | None]:
    numbers = iter(rows)
    while some := list(islice(numbers, 4096)):
        yield from pool.map(function, some)


class _Groups:
    """Rows that belong together (union-find); rows that were never joined have no entry."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def root(self, row: int) -> int:
        while (parent := self._parent.get(row, row)) != row:
            self._parent[row] = self._parent.get(parent, parent)  # shorter next time
            row = parent
        return row

    def join(self, rows: Sequence[int]) -> None:
        """Put rows into one group; its root is the smallest."""
        roots = sorted({self.root(row) for row in rows})
        for row in (*roots, *rows):
            self._parent[row] = roots[0]

    def all(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for row in sorted(self._parent):
            found.setdefault(self.root(row), []).append(row)
        return list(found.values())
