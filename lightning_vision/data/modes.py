"""Three ways to obtain decoded samples: on demand, from RAM, from disk. The bytes are the same in all three."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_vision.data.decode import decode_sized
from lightning_vision.data.headers import read_header
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.ranks import rank_and_world
from lightning_vision.data.store import Store, StoreError, open_stores
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import Geometry

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Failure:
    """A sample that could not be decoded: its position in the batch, and why."""

    position: int
    error: DataError

    def reason(self, path: str) -> str:
        """Why, in one line, without the path."""
        why = self.error.summary.removeprefix(f"{path}: ")
        return why if self.error.given is None else f"{why} ({self.error.given})"

    def refused(self) -> DataError:
        """The error where no sample may fail, with the setting that would leave it out."""
        self.error.overrides += [
            "preprocessing.on_bad_image=skip  (leaves out what cannot be read)",
            "preprocessing.on_bad_image=blank  (a black image in its place)",
        ]
        return self.error


# Waits until the buffers are filled; returns what failed.
Wait = Callable[[], list[Failure]]
# Copies pixels and masks that are decoded already into the buffers; returns what failed when they were.
Copy = Callable[[Tensor, Tensor | None], list[Failure]]


@dataclass(frozen=True)
class SampleDecoder:
    """Decodes one row of an index, image and mask.

    Args:
        index: The samples.
        geometry: Height, width and channels.
        preprocessing: ``resize`` and ``exact_decode`` count here.
        set_aside: Images whose height and width it takes are not decoded, their pixels are 0; None = none.
    """

    index: SampleIndex
    geometry: Geometry
    preprocessing: Preprocessing
    set_aside: Callable[[tuple[int, int]], bool] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an image."""
        return self.geometry.shape

    @property
    def unlabelled(self) -> int:
        """The mask value that counts for nothing."""
        target = self.index.target
        assert target is not None
        assert target.ignore_index is not None
        return target.ignore_index

    @property
    def mask_shape(self) -> tuple[int, int] | None:
        """``(H, W)`` of a mask, or None if there are none."""
        return None if self.index.mask is None else (self.geometry.height, self.geometry.width)

    @property
    def bytes_of_row(self) -> int:
        """Bytes of a decoded sample."""
        return math.prod(self.image_shape) + math.prod(self.mask_shape or (0,))

    def __call__(self, row: int, image: Tensor, mask: Tensor | None) -> None:
        """Decode ``row`` into ``image`` ``(C, H, W)`` and ``mask`` ``(H, W)``.

        Raises:
            DataError: Image or mask cannot be decoded, or do not go together.
        """
        if self.set_aside is not None:
            header = read_header(self.index.image_path(row))
            if self.set_aside((header.height, header.width)):
                image.numpy()[:] = 0
                return
        resize, exact = self.preprocessing.resize, self.preprocessing.exact_decode
        sizes = [
            decode_sized(column[row], self.geometry, resize, exact, out)[1]
            for column, out in zip(self.index.images, image.split(self.geometry.num_channels), strict=True)
        ]
        if mask is not None:
            assert self.index.target is not None
            size = (self.geometry.height, self.geometry.width)
            decode_mask(self.index.mask_path(row), self.index.target, size, sizes[0], resize=resize, out=mask)


class Mode:
    """How the samples of some rows are obtained.

    Args:
        decoder: Decodes a row.
        rows: int64, ascending: the rows of the index that will be asked for.
    """

    prefetch: ClassVar[int]

    def __init__(self, decoder: SampleDecoder, rows: Rows) -> None:
        self.decoder = decoder
        self.rows = rows

    def start(self, rows: Rows, pool: Executor, pin_memory: bool = False) -> tuple[dict[str, Any], Wait]:
        """Begin to obtain rows of the index.

        Returns:
            Their part of a batch, uint8 ``image`` ``(B, C, H, W)`` and, with masks, uint8 ``target`` ``(B, H, W)``,
            which is there after what waits was called.
        """
        samples: dict[str, Any] = {}
        copy = self._at_hand(rows)
        if copy is None:
            samples.update(self._room(rows, pin_memory))
            wait = self._fill_once(rows, samples["image"], samples.get("target"), pool)
        else:

            def wait() -> list[Failure]:
                # Room is made only now, where the batch before lay: still in the processor's caches.
                room = self._room(rows, pin_memory)
                samples.update(room)
                return copy(room["image"], room.get("target"))

        return samples, self._blanked(wait, samples) if self.decoder.preprocessing.on_bad_image == "blank" else wait

    def prepare(self, pool: Executor, advance: Callable[[int], object] = lambda count: None) -> list[Failure]:
        """Decode all rows ahead of training, in the modes that keep them.

        Args:
            pool: Runs the decoding.
            advance: Called with the number of rows that were dealt with since the last call.

        Returns:
            What could not be decoded, by its position among ``rows``. The first failure ends it where
            ``preprocessing.on_bad_image`` is ``error``.
        """
        return []

    def close(self) -> None:
        """Free memory and files."""

    def _blanked(self, wait: Wait, samples: dict[str, Any]) -> Wait:
        """Put a black image, and a mask that does not count, where decoding failed."""

        def wait_and_blank() -> list[Failure]:
            failures = wait()
            if failures:
                samples["blank"] = torch.zeros(len(samples["image"]), dtype=torch.bool)
            for failure in failures:
                samples["blank"][failure.position] = True
                samples["image"][failure.position] = 0
                if self.decoder.mask_shape is not None:
                    samples["target"][failure.position] = self.decoder.unlabelled
            return failures

        return wait_and_blank

    def _at_hand(self, rows: Rows) -> Copy | None:
        """Return what copies these rows, if none of them has to be decoded."""
        return None

    def _fill_once(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Begin as ``_fill`` does, with each row that is there several times once, and copy it when it waits."""
        source, firsts = first_occurrences(rows)
        count = len(firsts)
        if count == len(rows):
            return self._fill(rows, images, masks, pool)
        wait = self._fill(rows[firsts], images[:count], None if masks is None else masks[:count], pool)

        def wait_and_copy() -> list[Failure]:
            errors = {failure.position: failure.error for failure in wait()}
            # From the back: what is copied lies before its place, and is overwritten only later.
            for place, origin in reversed(list(enumerate(source.tolist()))):
                if place != origin:
                    images[place].copy_(images[origin])
                    if masks is not None:
                        masks[place].copy_(masks[origin])
            return [Failure(i, errors[origin]) for i, origin in enumerate(source.tolist()) if origin in errors]

        return wait_and_copy

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Begin to decode into ``images`` ``(B, C, H, W)`` and ``masks`` ``(B, H, W)``, one task an image."""
        return _waiting(
            [
                pool.submit(self.decoder, row, images[i], None if masks is None else masks[i])
                for i, row in enumerate(rows.tolist())
            ]
        )

    def _room(self, rows: Rows, pin_memory: bool) -> dict[str, Tensor]:
        """Return an uninitialised ``image`` ``(B, C, H, W)`` and, with masks, ``target`` ``(B, H, W)``."""
        shapes = {"image": self.decoder.image_shape, "target": self.decoder.mask_shape}
        return {name: self._buffer(rows, shape, pin_memory) for name, shape in shapes.items() if shape is not None}

    def _buffer(self, rows: Rows, shape: tuple[int, ...], pin_memory: bool, dtype: torch.dtype = torch.uint8) -> Tensor:
        return torch.empty((len(rows), *shape), dtype=dtype, pin_memory=pin_memory)

    def _slots(self, rows: Rows) -> Rows:
        """Positions of ``rows`` among ``self.rows``."""
        return np.searchsorted(self.rows, rows)


class Lazy(Mode):
    """Decodes whenever a sample is asked for, one task an image."""

    prefetch = 4


class LazyCached(Mode):
    """Decodes a sample once, writes it to a store, and reads it back ever after."""

    prefetch = 4

    def __init__(self, decoder: SampleDecoder, rows: Rows) -> None:
        super().__init__(decoder, rows)
        self.stores = open_stores(decoder.index, rows, decoder.geometry, decoder.preprocessing)

    def prepare(self, pool: Executor, advance: Callable[[int], object] = lambda count: None) -> list[Failure]:
        """Decode what the stores do not hold yet; see ``Mode.prepare``."""

        def fill(part: slice) -> list[Failure]:
            rows = self.rows[part]
            return self._fill(rows, *_empty(len(rows), self.decoder), pool)()

        # A block is what decoding needs in memory beside the store.
        return _in_blocks(self, fill, 64, advance)

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Begin to read what the stores hold, unverified so far, and to decode the rest."""
        slots = self._slots(rows)
        return _waiting(
            [
                pool.submit(self._one, row, slot, images[i], None if masks is None else masks[i])
                for i, (row, slot) in enumerate(zip(rows.tolist(), slots.tolist(), strict=True))
            ]
        )

    def _at_hand(self, rows: Rows) -> Copy | None:
        """Tell the kernel what will be read; see ``Mode._at_hand``."""
        slots = self._slots(rows)
        at_hand = True
        for store in self.stores:
            done = store.complete(slots)
            store.will_need(slots if done.all() else slots[done])
            at_hand = at_hand and bool((done & store.verified(slots)).all())
        if not at_hand:
            return None

        def copy(images: Tensor, masks: Tensor | None) -> list[Failure]:
            for store, values in self._parts(images, masks):
                store.read(slots, values)
            return []

        return copy

    def _one(self, row: int, slot: int, image: Tensor, mask: Tensor | None) -> None:
        """Read a row, or decode and write it where one of the stores does not have it."""
        parts = self._parts(image, mask)
        there = [store.take(slot, values) for store, values in parts]
        if all(there):
            return
        self.decoder(row, image, mask)
        for found, (store, values) in zip(there, parts, strict=True):
            if not found:
                store.write(slot, values)

    def _parts(self, images: Tensor, masks: Tensor | None) -> list[tuple[Store, dict[str, Tensor]]]:
        """What of a sample, or of a batch, belongs to each store: its image's channels, and to the first the mask."""
        if len(self.stores) == 1:
            return [(self.stores[0], {"images": images} if masks is None else {"images": images, "masks": masks})]
        parts: list[tuple[Store, dict[str, Tensor]]] = []
        for store, image in zip(self.stores, images.split(self.decoder.geometry.num_channels, -3), strict=True):
            parts.append((store, {"images": image} if masks is None or parts else {"images": image, "masks": masks}))
        return parts

    def close(self) -> None:
        """Sync and close the stores."""
        for store in self.stores:
            store.close()


class Eager(Mode):
    """Decodes all rows at once, in ``prepare``, and keeps them in memory.

    Raises:
        ConfigError: The pixels take more memory than is free.
    """

    prefetch = 0

    def __init__(self, decoder: SampleDecoder, rows: Rows, ranks: int = 1) -> None:
        super().__init__(decoder, rows)
        _check_memory(len(rows) * decoder.bytes_of_row, len(rows), ranks)
        self.images, self.masks = _empty(len(rows), decoder)
        self._failed: dict[int, DataError] = {}

    def prepare(self, pool: Executor, advance: Callable[[int], object] = lambda count: None) -> list[Failure]:
        """Decode all rows; see ``Mode.prepare``."""

        def fill(part: slice) -> list[Failure]:
            masks = None if self.masks is None else self.masks[part]
            return self._fill(self.rows[part], self.images[part], masks, pool)()

        failures = _in_blocks(self, fill, 1024, advance)
        self._failed = {failure.position: failure.error for failure in failures}
        return failures

    def _at_hand(self, rows: Rows) -> Copy | None:
        """See ``Mode._at_hand``: nothing is begun ahead."""
        slots = self._slots(rows)

        def copy(images: Tensor, masks: Tensor | None) -> list[Failure]:
            where = torch.from_numpy(slots)
            torch.index_select(self.images, 0, where, out=images)
            if self.masks is not None and masks is not None:
                torch.index_select(self.masks, 0, where, out=masks)
            if not self._failed:
                return []
            return [Failure(i, self._failed[s]) for i, s in enumerate(slots.tolist()) if s in self._failed]

        return copy

    def close(self) -> None:
        """Free the pixels."""
        self.images, self.masks = self.images[:0], None


def open_mode(decoder: SampleDecoder, rows: Rows, ranks: int = 1) -> Mode:
    """Build the mode that ``preprocessing.mode`` names.

    Args:
        decoder: Decodes a row.
        rows: int64, ascending: the rows of the index that will be asked for.
        ranks: Processes of this machine that each hold the pixels of an eager mode.
    """
    settings = decoder.preprocessing
    if settings.mode == "lazy":
        return Lazy(decoder, rows)
    if settings.mode == "eager" and settings.in_memory:
        return Eager(decoder, rows, ranks)
    return LazyCached(decoder, rows)


def first_occurrences(rows: Rows) -> tuple[Rows, Rows]:
    """Number rows in the order of their appearance, the same row always alike.

    Returns:
        The number of each of the rows, at most its position, and for each number the position where it appears first.
    """
    _, firsts, inverse = np.unique(rows, return_index=True, return_inverse=True)
    by_appearance = np.argsort(firsts)
    return np.argsort(by_appearance)[inverse], firsts[by_appearance]


def _in_blocks(
    mode: Mode, fill: Callable[[slice], list[Failure]], size: int, advance: Callable[[int], object]
) -> list[Failure]:
    """Fill the rows of a mode block by block, so that a million rows are not a million waiting tasks.

    Each rank begins elsewhere: what they share is decoded once.
    """
    failed = []
    rank, world = rank_and_world()
    starts = range(0, len(mode.rows), size)
    mine = len(starts) * rank // world
    for first in (*starts[mine:], *starts[:mine]):
        last = min(first + size, len(mode.rows))
        for failure in fill(slice(first, last)):
            if mode.decoder.preprocessing.on_bad_image == "error":
                raise failure.refused()
            failed.append(Failure(first + failure.position, failure.error))
        advance(last - first)
    return failed


def _empty(count: int, decoder: SampleDecoder) -> tuple[Tensor, Tensor | None]:
    """Return room for images, and for masks where there are any."""
    images = torch.empty((count, *decoder.image_shape), dtype=torch.uint8)
    shape = decoder.mask_shape
    return images, None if shape is None else torch.empty((count, *shape), dtype=torch.uint8)


def available_memory() -> int | None:
    """Bytes of memory that can still be taken, of the machine and of the container; None if neither tells."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            most, now = (Path(folder, name).read_text().strip() for name in (limit, used))
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            # Cached files are given back when memory is asked for.
            found.append(int(most) - int(now) + int(stat.get("inactive_file", 0)))
    return min(found) if found else None


def _check_memory(needed: int, rows: int, ranks: int) -> None:
    free = available_memory()
    if free is not None and needed * ranks > free:
        each = f" in each of {ranks} processes" if ranks > 1 else ""
        raise ConfigError(
            "preprocessing.mode=eager: the decoded images do not fit in memory",
            given=f"{rows} images, {needed / 2**30:.2f} GiB{each}",
            expected=f"at most {max(free, 0) / 2**30:.2f} GiB, which is free now",
            override=["preprocessing.mode=lazy", "preprocessing.in_memory=false", "preprocessing.mode=lazy_cached"],
        )


def _waiting(futures: list[Future[None]]) -> Wait:
    def wait() -> list[Failure]:
        failures = []
        for position, future in enumerate(futures):
            try:
                future.result()
            except StoreError:
                raise
            except DataError as error:
                failures.append(Failure(position, error))
        return failures

    return wait
