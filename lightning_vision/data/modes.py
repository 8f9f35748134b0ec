"""Three ways to obtain decoded samples: on demand, from RAM, from disk. The bytes are the same in all three."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_vision.data.decode import decode_sized
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.store import open_store
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.types import Geometry

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Failure:
    """A sample that could not be decoded: its position in the batch, and why."""

    position: int
    error: DataError

    def refused(self) -> DataError:
        """The error where no sample may fail, with the setting that would leave it out."""
        self.error.overrides.append("preprocessing.on_bad_image=skip  (leaves out what cannot be read)")
        return self.error


# Waits until the buffers are filled; returns what failed.
Wait = Callable[[], list[Failure]]


@dataclass(frozen=True)
class SampleDecoder:
    """Decodes one row of an index, image and mask.

    Args:
        index: The samples.
        geometry: Height, width and channels.
        preprocessing: ``resize`` and ``exact_decode`` count here.
    """

    index: SampleIndex
    geometry: Geometry
    preprocessing: Preprocessing

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an image."""
        return self.geometry.shape

    @property
    def mask_shape(self) -> tuple[int, int] | None:
        """``(H, W)`` of a mask, or None if there are none."""
        return None if self.index.mask is None else (self.geometry.height, self.geometry.width)

    def __call__(self, row: int, image: Tensor, mask: Tensor | None) -> None:
        """Decode ``row`` into ``image`` ``(C, H, W)`` and ``mask`` ``(H, W)``.

        Raises:
            DataError: Image or mask cannot be decoded, or do not go together.
        """
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
        samples: dict[str, Any] = {"image": self._buffer(rows, self.decoder.image_shape, pin_memory)}
        if self.decoder.mask_shape is not None:
            samples["target"] = self._buffer(rows, self.decoder.mask_shape, pin_memory)
        return samples, self._fill(rows, samples["image"], samples.get("target"), pool)

    def close(self) -> None:
        """Free memory and files."""

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Begin to fill ``images`` ``(B, C, H, W)`` and ``masks`` ``(B, H, W)``."""
        raise NotImplementedError

    def _buffer(self, rows: Rows, shape: tuple[int, ...], pin_memory: bool, dtype: torch.dtype = torch.uint8) -> Tensor:
        return torch.empty((len(rows), *shape), dtype=dtype, pin_memory=pin_memory)

    def _slots(self, rows: Rows) -> Rows:
        """Positions of ``rows`` among ``self.rows``."""
        return np.searchsorted(self.rows, rows)


class Lazy(Mode):
    """Decodes whenever a sample is asked for, one task an image."""

    prefetch = 4

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        return decode_into(self.decoder, rows, images, masks, pool)


class LazyCached(Mode):
    """Decodes a sample once, writes it to a store, and reads it back ever after."""

    prefetch = 4

    def __init__(self, decoder: SampleDecoder, rows: Rows) -> None:
        super().__init__(decoder, rows)
        self.store = open_store(decoder.index, rows, decoder.geometry, decoder.preprocessing)

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Begin to read ahead, or to decode what is not in the store."""
        slots = self._slots(rows)
        done = self.store.complete(slots)
        if done.all():
            self.store.will_need(slots)

            def read() -> list[Failure]:
                self.store.read(slots, _columns(images, masks))
                return []

            return read
        return _waiting(
            [
                pool.submit(self._one, row, slot, cached, images[i], None if masks is None else masks[i])
                for i, (row, slot, cached) in enumerate(zip(rows.tolist(), slots.tolist(), done.tolist(), strict=True))
            ]
        )

    def _one(self, row: int, slot: int, cached: bool, image: Tensor, mask: Tensor | None) -> None:
        if cached:
            self.store.read_one(slot, _columns(image, mask))
            return
        self.decoder(row, image, mask)
        self.store.write(slot, _columns(image, mask))

    def close(self) -> None:
        """Sync and close the store."""
        self.store.close()


class Eager(Mode):
    """Decodes all rows at once, and keeps them in RAM.

    Args:
        decoder: Decodes a row.
        rows: The rows to decode.
        threads: Threads that decode.
        ranks: Processes on this machine that do the same, each with its own copy.

    Raises:
        ConfigError: The pixels take more memory than is free.
        DataError: A sample cannot be decoded, and ``preprocessing.on_bad_image`` is ``error``.
    """

    prefetch = 0

    def __init__(self, decoder: SampleDecoder, rows: Rows, threads: int = 1, ranks: int = 1) -> None:
        super().__init__(decoder, rows)
        n, shape, mask_shape = len(rows), decoder.image_shape, decoder.mask_shape
        needed = n * (int(np.prod(shape)) + (int(np.prod(mask_shape)) if mask_shape else 0))
        _check_memory(needed, n, ranks)
        self.images = torch.empty((n, *shape), dtype=torch.uint8)
        self.masks = torch.empty((n, *mask_shape), dtype=torch.uint8) if mask_shape else None
        self._failed: dict[int, DataError] = {}
        with ThreadPoolExecutor(threads, thread_name_prefix="lv-decode-all") as pool:
            # In blocks, so that a million rows are not a million waiting tasks.
            for first in range(0, n, 1024):
                block = slice(first, min(first + 1024, n))
                masks = None if self.masks is None else self.masks[block]
                for failure in decode_into(decoder, rows[block], self.images[block], masks, pool)():
                    if decoder.preprocessing.on_bad_image == "error":
                        pool.shutdown(cancel_futures=True)
                        raise failure.refused()
                    self._failed[first + failure.position] = failure.error

    def _fill(self, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
        """Nothing is begun ahead: the copy from RAM is made when it is waited for."""
        slots = self._slots(rows)

        def read() -> list[Failure]:
            where = torch.from_numpy(slots)
            torch.index_select(self.images, 0, where, out=images)
            if self.masks is not None and masks is not None:
                torch.index_select(self.masks, 0, where, out=masks)
            if not self._failed:
                return []
            return [Failure(i, self._failed[s]) for i, s in enumerate(slots.tolist()) if s in self._failed]

        return read

    def close(self) -> None:
        """Free the pixels."""
        self.images, self.masks = self.images[:0], None


def open_mode(decoder: SampleDecoder, rows: Rows, threads: int = 1, ranks: int = 1) -> Mode:
    """Build the mode that ``preprocessing.mode`` names."""
    if decoder.preprocessing.mode == "eager":
        return Eager(decoder, rows, threads, ranks)
    return (LazyCached if decoder.preprocessing.mode == "lazy_cached" else Lazy)(decoder, rows)


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
            override=["preprocessing.mode=lazy", "preprocessing.mode=lazy_cached"],
        )


def decode_into(decoder: SampleDecoder, rows: Rows, images: Tensor, masks: Tensor | None, pool: Executor) -> Wait:
    """Begin to decode rows into ``images`` ``(B, C, H, W)`` and ``masks`` ``(B, H, W)``, one task an image."""
    futures = [
        pool.submit(decoder, row, images[i], None if masks is None else masks[i]) for i, row in enumerate(rows.tolist())
    ]
    return _waiting(futures)


def _columns(image: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Name image and mask, or images and masks, as the store does."""
    return {"images": image} if mask is None else {"images": image, "masks": mask}


def _waiting(futures: list[Future[None]]) -> Wait:
    def wait() -> list[Failure]:
        failures = []
        for position, future in enumerate(futures):
            try:
                future.result()
            except DataError as error:
                failures.append(Failure(position, error))
        return failures

    return wait
