"""The table of samples in flat buffers: a million rows take about 50 MB, and forked workers copy nothing of it.

A Python list of paths costs a worker process 94 MB a million rows, because reading a string changes its reference
count. One buffer of bytes with offsets has no such objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from lightning_vision.data.label_sets import YES, LabelSets
from lightning_vision.types import SPLITS, Split, TargetSpec

_BLOCK = 1 << 14  # rows that are handled at once
Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """Something found while the data were read: ``error`` stops a run, ``warning`` and ``note`` do not."""

    severity: Severity
    message: str


class PackedStrings:
    """An immutable sequence of strings: UTF-8 bytes end to end, and the offset of each.

    File names that are not valid UTF-8 survive (``surrogateescape``, as ``os.fsdecode`` gives them).

    Args:
        data: uint8 ``(total bytes,)``.
        offsets: int64 ``(N + 1,)``, from 0, never decreasing; string i is ``data[offsets[i]:offsets[i + 1]]``.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != data.size:
            raise ValueError("offsets must start at 0 and end at the number of bytes")
        self.data = data
        self.offsets = offsets

    @classmethod
    def from_strings(cls, strings: Iterable[str]) -> PackedStrings:
        """Pack any iterable, also a generator, without holding its strings."""
        packer, rest = Packer(), iter(strings)
        while block := list(islice(rest, _BLOCK)):
            packer.add(block)
        return packer.packed()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"row {i} of {n}")
        i = i % n
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        # In blocks of rows: numpy scalars cost several times what the slices of a bytes object do.
        for start in range(0, len(self), _BLOCK):
            offsets = self.offsets[start : start + _BLOCK + 1]
            text = self.data[offsets[0] : offsets[-1]].tobytes()
            ends = (offsets - offsets[0]).tolist()
            for i, j in pairwise(ends):
                yield text[i:j].decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedStrings):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.data, other.data)

    __hash__ = None  # type: ignore[assignment]  # compared by content, and the content is large

    def __repr__(self) -> str:
        return f"PackedStrings({len(self)} strings, {self.nbytes} bytes)"

    def __getstate__(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        return self.data, self.offsets

    def __setstate__(self, state: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]) -> None:
        self.data, self.offsets = state

    @property
    def nbytes(self) -> int:
        """Memory of both buffers, bytes."""
        return int(self.data.nbytes + self.offsets.nbytes)

    @property
    def empty(self) -> npt.NDArray[np.bool_]:
        """Which strings are empty, bool ``(N,)``."""
        return np.diff(self.offsets) == 0

    def take(self, rows: npt.ArrayLike) -> PackedStrings:
        """Return the strings of ``rows`` (int array, any order, repeats allowed) as new buffers."""
        rows = np.asarray(rows, dtype=np.int64)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)}")
        rows = rows % max(len(self), 1)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.empty(int(offsets[-1]), np.uint8)
        # In blocks: positions of all bytes at once would take eight times the memory of the strings.
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            first, last = offsets[start], offsets[min(start + _BLOCK, len(rows))]
            source = np.repeat(self.offsets[rows[block]] - offsets[:-1][block], lengths[block])
            source += np.arange(first, last, dtype=np.int64)
            data[first:last] = self.data[source]
        return PackedStrings(data, offsets)


class Packer:
    """Collects strings block by block in growing buffers: no object of a string outlives its block.

    Args:
        capacity: Bytes that are reserved; more of them cost nothing until they are written.
    """

    def __init__(self, capacity: int = 1 << 12) -> None:
        self._data = np.empty(capacity, np.uint8)
        self._size = 0
        self._offsets = [np.zeros(1, np.int64)]

    def add(self, strings: Sequence[str], strip: bool = False) -> None:
        """Append a block of strings, with ``strip`` without their surrounding white space."""
        # Looking for marks between the strings in one buffer is several times faster than asking each for its length.
        marked = ("\0" + "\0".join(strings) + "\0").encode("utf-8", "surrogateescape")
        content = np.frombuffer(marked, np.uint8)
        marks = np.flatnonzero(content == 0)
        if strip and (may_be_space(content[marks[:-1] + 1]) or may_be_space(content[marks[1:] - 1])):
            self.add([string.strip() for string in strings])
        elif len(marks) == len(strings) + 1:
            ends = marks[1:] - np.arange(1, len(marks))
            self.add_bytes("".join(strings).encode("utf-8", "surrogateescape"), ends)
        else:  # none at all, or a mark within a string
            encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
            self.add_bytes(b"".join(encoded), np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    def add_bytes(self, data: bytes | memoryview, ends: npt.NDArray[np.int64]) -> None:
        """Append strings as their UTF-8 bytes end to end, and where each ends there."""
        self._offsets.append(ends + self._size)
        end = self._size + len(data)
        if end > len(self._data):
            grown = np.empty(max(end, 2 * len(self._data)), np.uint8)
            grown[: self._size] = self._data[: self._size]
            self._data = grown
        self._data[self._size : end] = np.frombuffer(data, np.uint8)
        self._size = end

    def packed(self) -> PackedStrings:
        """Return all strings, in the packer's own buffers: nothing can be added afterwards."""
        self._data.resize(self._size, refcheck=False)  # gives back what was not written
        data, offsets = self._data, np.concatenate(self._offsets)
        data.flags.writeable = offsets.flags.writeable = False
        return PackedStrings(data, offsets)


# First and last bytes of white space in UTF-8, and of the characters that share them.
_SPACE = np.isin(np.arange(256), [*range(9, 14), *range(28, 33), *range(0x80, 0xB0), 0xC2, 0xE1, 0xE2, 0xE3])


def may_be_space(ends: npt.NDArray[np.uint8]) -> bool:
    """Tell whether one of these first or last bytes of strings may belong to white space that ``str.strip`` removes."""
    return bool(_SPACE[ends].any())


@dataclass(eq=False)
class FurtherTarget:
    """A label or a set of labels of every sample: what a further output predicts, or the main one.

    Args:
        target: What is predicted.
        label: int32 ``(N,)`` class ids, where one label is predicted; ``target.ignore_index``, one past the last class,
            where it is none of the classes.
        labels: Sets of labels, where any number of them is predicted.
    """

    target: TargetSpec
    label: npt.NDArray[np.int32] | None = None
    labels: LabelSets | None = None

    def __post_init__(self) -> None:
        if (self.label is None) == (self.labels is None):
            raise ValueError("a target is either a label or a set of labels for each row")
        if self.label is not None:
            self.label = np.ascontiguousarray(self.label, np.int32)
        if self.labels is not None and self.labels.num_labels != self.target.num_classes:
            raise ValueError(f"sets of {self.labels.num_labels} labels for {self.target.num_classes} classes")

    @property
    def column(self) -> npt.NDArray[np.int32] | LabelSets:
        """The label or the labels of every row."""
        found = self.labels if self.label is None else self.label
        assert found is not None
        return found

    def __len__(self) -> int:
        return len(self.column)

    @property
    def nbytes(self) -> int:
        """Memory of the labels, bytes."""
        return int(self.column.nbytes)

    def take(self, rows: npt.ArrayLike) -> FurtherTarget:
        """Return the targets of these rows alone, in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        label = None if self.label is None else self.label[rows]
        return replace(self, label=label, labels=None if self.labels is None else self.labels.take(rows))

    def values(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.uint8]:
        """What a batch of ``rows`` holds: class ids int64 ``(B,)``, or sets uint8 ``(B, C)`` of 1, 0 and 255."""
        if self.labels is not None:
            return self.labels.rows(rows)
        assert self.label is not None
        return self.label[rows].astype(np.int64)

    def key(self, row: int) -> int | bytes:
        """What two rows with the same target have in common."""
        return self.labels.key(row) if self.labels is not None else int(self.column[row])  # type: ignore[index]

    def text(self, row: int) -> str:
        """The target of a row in words."""
        names = self.target.class_names
        if self.labels is not None:
            return "|".join(names[c] for c in np.flatnonzero(self.labels.rows([row])[0] == YES)) or "no label"
        label = int(self.column[row])  # type: ignore[index]
        return names[label] if 0 <= label < len(names) else "unknown"

    def unknown(self, rows: npt.NDArray[np.int64]) -> int:
        """Count, among these rows, labels that are none of the classes; of sets, labels of which nobody knows."""
        if self.labels is not None:
            return int(self.labels.counts(rows)[1].sum())
        assert self.label is not None
        return int((self.label[rows] == self.target.num_classes).sum())


@dataclass(eq=False)
class SampleIndex:
    """Paths, targets and split of every sample.

    Args:
        image: Absolute path of every image.
        split: uint8 ``(N,)``: 0 train, 1 val, 2 test (the order of ``SPLITS``).
        label: int32 ``(N,)`` class ids, or None; ``target.ignore_index`` where it is none of the classes.
        mask: Absolute path of every mask, or None.
        target: What is predicted, or None when only images were wanted.
        origin: Where the rows come from, for messages.
        is_split: The data say which sample is in which split; False = drawn by fractions.
        problems: What was found while reading. Strict reading raises errors instead of keeping them here.
        further: Absolute paths of the second image of every sample, of the third and so on, where there are several.
        labels: The set of labels of every sample, or None.
        further_targets: What further outputs predict, by their names, beside the main target.
    """

    image: PackedStrings
    split: npt.NDArray[np.uint8]
    label: npt.NDArray[np.int32] | None = None
    mask: PackedStrings | None = None
    target: TargetSpec | None = None
    origin: str = ""
    is_split: bool = True
    problems: tuple[Problem, ...] = field(default=())
    further: tuple[PackedStrings, ...] = ()
    labels: LabelSets | None = None
    further_targets: Mapping[str, FurtherTarget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.image)
        columns = [("split", self.split), ("label", self.label), ("labels", self.labels), ("mask", self.mask)]
        columns += [("further", column) for column in self.further]
        for name, column in [*columns, *self.further_targets.items()]:
            if column is not None and len(column) != n:
                raise ValueError(f"{name} has {len(column)} rows, image has {n}")
        self.split = np.ascontiguousarray(self.split, np.uint8)
        if n and self.split.max() >= len(SPLITS):
            raise ValueError(f"split {self.split.max()} is none of 0, 1, 2")
        if self.label is not None:
            self.label = np.ascontiguousarray(self.label, np.int32)

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        kind = self.target.kind if self.target else "no target"
        return f"SampleIndex({self.counts()}, {kind}, {self.origin!r})"

    @property
    def images(self) -> tuple[PackedStrings, ...]:
        """All columns of images, the main one first."""
        return (self.image, *self.further)

    @property
    def main_labels(self) -> FurtherTarget | None:
        """The main target, where it is a label or a set of labels."""
        if self.target is None or (self.label is None and self.labels is None):
            return None
        return FurtherTarget(self.target, self.label, self.labels)

    def image_path(self, i: int) -> str:
        """Absolute path of image ``i``, the first where a sample has several."""
        return self.image[i]

    def mask_path(self, i: int) -> str:
        """Absolute path of mask ``i``; ValueError if the index has no masks."""
        if self.mask is None:
            raise ValueError(f"{self.origin}: these samples have no masks")
        return self.mask[i]

    def rows(self, split: Split) -> npt.NDArray[np.int64]:
        """Rows of one split, ascending, int64."""
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    def counts(self) -> dict[Split, int]:
        """Number of rows of each split."""
        counts = np.bincount(self.split, minlength=len(SPLITS))
        return {name: int(counts[i]) for i, name in enumerate(SPLITS)}

    def take(self, rows: npt.ArrayLike | Sequence[int]) -> SampleIndex:
        """Return the index of these rows alone, in their order; target, origin and problems are kept."""
        rows = np.asarray(rows, dtype=np.int64)
        return SampleIndex(
            image=self.image.take(rows),
            split=self.split[rows],
            label=None if self.label is None else self.label[rows],
            mask=None if self.mask is None else self.mask.take(rows),
            target=self.target,
            origin=self.origin,
            is_split=self.is_split,
            problems=self.problems,
            further=tuple(column.take(rows) for column in self.further),
            labels=None if self.labels is None else self.labels.take(rows),
            further_targets={name: target.take(rows) for name, target in self.further_targets.items()},
        )

    def as_split(self, split: Split) -> SampleIndex:
        """Return the same samples, all in one split."""
        part = np.full(len(self), SPLITS.index(split), np.uint8)
        return replace(self, split=part, is_split=True)

    @property
    def nbytes(self) -> int:
        """Memory of all columns, bytes."""
        columns = (*self.images, self.split, self.label, self.labels, self.mask, *self.further_targets.values())
        return sum(int(c.nbytes) for c in columns if c is not None)
