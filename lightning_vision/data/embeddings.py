"""Features of a frozen encoder on disk: an image is decoded and encoded once, its features are read ever after.

A frozen encoder is in eval mode and has no gradients, so it says the same of an image in every epoch. The store is that
of the decoded pixels (``store.py``) with other columns: flags, keys, resuming and sharing among ranks are the same.

Features are stored in half precision, and a row that was just encoded is read back like any other: all epochs see the
same values, and a run that was killed in its first epoch goes on with what it had. A row with a value that half
precision cannot hold (65504 is the largest) is not stored: it is encoded in every epoch, and nothing becomes infinite.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_vision.data.modes import Failure, Mode, Rows, SampleDecoder, Wait
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.store import Column, Store, store_key
from lightning_vision.data.store_files import FEATURES_PREFIX, remove_unused, store_folder

# Raise it when the same encoder, the same image and the same settings give other features than before.
FORMAT_VERSION = 1
LARGEST = torch.finfo(torch.float16).max


@dataclass
class Usage:
    """What a run had of its cache.

    Args:
        rows: Rows of the opened stores.
        nbytes: Their size on the disk.
        folder: Where they lie.
        encoded: Rows that were encoded, each time.
        seconds: Time that encoding took.
        read: Rows that were read without encoding, each time.
        too_large: Rows that were encoded but not stored, because half precision cannot hold them, each time.
    """

    rows: int = 0
    nbytes: int = 0
    folder: Path | None = None
    encoded: int = 0
    seconds: float = 0.0
    read: int = 0
    too_large: int = 0


class EmbeddingCache:
    """Opens the stores of a run's features.

    Args:
        encode: Images ``(B, C, H, W)`` uint8 to features, each ``(B, *shape)`` float32 on the CPU.
        shapes: Shape of each feature of one image: one vector, or the maps of a pyramid.
        identity: Plain data that differ where the features of an image do: weights, pixel statistics, precision. Asked
            for when a store is opened, when the weights are in place.
        limit: GiB that the stores of this and of earlier runs may take together; None = any.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], list[Tensor]],
        shapes: Sequence[tuple[int, ...]],
        identity: Callable[[], Mapping[str, Any]],
        limit: float | None = None,
    ) -> None:
        self.encode = encode
        self.shapes = tuple(shapes)
        self.identity = identity
        self.limit = limit
        self.usage = Usage()

    def columns(self, mask_shape: tuple[int, int] | None) -> dict[str, Column]:
        """The columns of a store: the features, and the masks that go with them."""
        found: dict[str, Column] = {f"features{i}": (np.float16, shape) for i, shape in enumerate(self.shapes)}
        if mask_shape is not None:
            found["masks"] = (np.uint8, mask_shape)
        return found

    def bytes_of_row(self, mask_shape: tuple[int, int] | None) -> int:
        """Bytes that a row takes in the store."""
        return sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in self.columns(mask_shape).values())

    def open(self, decoder: SampleDecoder, rows: Rows, pixels: Callable[[], Mode]) -> Embedded:
        """Open the features of some rows.

        Args:
            decoder: What the images are.
            rows: int64, ascending: the rows of the index that will be asked for.
            pixels: Opens what decodes them, when the first row is missing.

        Raises:
            DataError: The disk has not enough room, or the folder cannot be written.
        """
        index, settings = decoder.index, decoder.preprocessing
        about = {"features": [list(shape) for shape in self.shapes], "format": FORMAT_VERSION, **self.identity()}
        key = hashlib.blake2b(store_key(index, rows, decoder.geometry, settings).encode(), digest_size=16)
        key.update(json.dumps(about, sort_keys=True).encode())
        folder = store_folder(settings.lazy_cache_dir) / f"{FEATURES_PREFIX}{key.hexdigest()}"
        if self.limit is not None and not folder.exists():
            make_room(folder.parent, self.bytes_of_row(decoder.mask_shape) * len(rows), self.limit)
        store = Store(
            folder,
            len(rows),
            self.columns(decoder.mask_shape),
            {"origin": index.origin, **about},
            instead="preprocessing.cache_encoder_embeddings=false",
        )
        self.usage.rows += len(rows)
        self.usage.nbytes += store.nbytes
        self.usage.folder = folder.parent
        return Embedded(decoder, rows, self, store, pixels)


class Embedded(Mode):
    """Encodes a sample once, writes its features to a store, and reads them back ever after.

    Args:
        decoder: What the images are.
        rows: int64, ascending: the rows of the index that will be asked for.
        cache: Encodes, and counts.
        store: Features, and masks where there are any, of these rows.
        pixels: Opens what decodes them, when the first row is missing.
    """

    prefetch = 4

    def __init__(
        self, decoder: SampleDecoder, rows: Rows, cache: EmbeddingCache, store: Store, pixels: Callable[[], Mode]
    ) -> None:
        super().__init__(decoder, rows)
        self.cache = cache
        self.store = store
        self._open_pixels = pixels
        self._pixels: Mode | None = None

    def start(self, rows: Rows, pool: Executor, pin_memory: bool = False) -> tuple[dict[str, Any], Wait]:
        """Begin to obtain rows of the index.

        Returns:
            Their part of a batch, which is there after what waits was called: ``features``, a list of ``(B, *shape)``
            float16 (float32 where half precision cannot hold a row), and, with masks, uint8 ``target`` ``(B, H, W)``.
        """
        samples: dict[str, Any] = {}
        slots = self._slots(rows)
        self.store.will_need(slots[self.store.complete(slots)])
        missing = np.flatnonzero(~self.store.verify(slots))
        self.cache.usage.read += len(rows) - len(missing)
        if not len(missing):

            def read() -> list[Failure]:
                samples.update(self._read(slots, pin_memory))
                return []

            return samples, read
        if self._pixels is None:
            self._pixels = self._open_pixels()
        pixels, wait = self._pixels.start(rows[missing], pool, pin_memory)

        def encode() -> list[Failure]:
            failures = wait()
            places, images = missing, pixels
            failed = torch.zeros(len(missing), dtype=torch.bool)
            failed[[failure.position for failure in failures]] = True
            if failures and self.decoder.preprocessing.on_bad_image != "blank":
                good = (~failed).nonzero().flatten()
                places, images = missing[good.numpy()], {k: v.index_select(0, good) for k, v in pixels.items()}
                failed = failed[good]
            samples.update(self._encode(slots, places, images, failed, pin_memory))
            return [Failure(int(missing[failure.position]), failure.error) for failure in failures]

        return samples, encode

    def close(self) -> None:
        """Sync and close the store."""
        self.store.close()
        if self._pixels is not None:
            self._pixels.close()

    def _encode(
        self, slots: Rows, places: Rows, pixels: Mapping[str, Tensor], blank: Tensor, pin_memory: bool
    ) -> dict[str, Any]:
        """Encode the samples at these places of a batch, store those that are not blank, and read the whole batch."""
        if not len(places):
            return self._read(slots, pin_memory)
        usage = self.cache.usage
        started = time.perf_counter()
        features = self.cache.encode(pixels["image"])
        usage.seconds += time.perf_counter() - started
        usage.encoded += len(places)
        values = self._named({**pixels, "features": features})
        stored = torch.stack([feature.abs().flatten(1).amax(1) <= LARGEST for feature in features]).all(0)
        usage.too_large += int((~stored).sum())
        stored &= ~blank  # a file that is mended must not meet the features of a black image
        for i in stored.nonzero().flatten().tolist():
            slot = slots[places[i : i + 1]]
            # Another rank may have been faster; what is there once stays as it is.
            if not self.store.complete(slot)[0]:
                self.store.write(int(slot[0]), {name: value[i] for name, value in values.items()})
        samples = self._read(slots, pin_memory)
        if not stored.all():
            others = torch.from_numpy(places)[~stored]
            for i, encoded in enumerate(features):
                samples["features"][i] = samples["features"][i].float().index_copy(0, others, encoded[~stored])
            if "target" in samples:
                samples["target"].index_copy_(0, others, pixels["target"][~stored])
        return samples

    def _read(self, slots: Rows, pin_memory: bool) -> dict[str, Any]:
        """Read rows of the store; what is not there yet holds anything."""
        samples: dict[str, Any] = {
            "features": [self._buffer(slots, shape, pin_memory, torch.float16) for shape in self.cache.shapes]
        }
        if self.decoder.mask_shape is not None:
            samples["target"] = self._buffer(slots, self.decoder.mask_shape, pin_memory)
        self.store.read(slots, self._named(samples))
        return samples

    def _named(self, samples: Mapping[str, Any]) -> dict[str, Tensor]:
        """Features and masks by the names of their columns."""
        found = {f"features{i}": feature for i, feature in enumerate(samples["features"])}
        return found if self.decoder.mask_shape is None else {**found, "masks": samples["target"]}


def worth_caching(nbytes: int, preprocessing: Preprocessing) -> tuple[bool, str]:
    """Decide whether features of this size are cached without being asked for, and say why or why not."""
    size, limit = nbytes / 2**30, preprocessing.embedding_cache_limit
    if size > limit:
        return False, f"the features would take {size:.2f} GiB, and preprocessing.embedding_cache_limit is {limit:g}"
    try:
        folder = store_folder(preprocessing.lazy_cache_dir)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return False, f"the cache folder cannot be used: {error.strerror}"
    if 2 * size > free:
        return False, f"the features would take {size:.2f} GiB, and {folder} has {free:.2f} GiB left"
    return True, f"the encoder is frozen and nothing random comes before it; {size:.3f} GiB in {folder}"


def make_room(folder: Path, nbytes: int, limit: float) -> None:
    """Remove the features that were unused for longest, until they and the new ones take at most ``limit`` GiB."""
    found = []
    for path in folder.glob(f"{FEATURES_PREFIX}*/about.json"):
        try:
            found.append((path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))["bytes"], path.parent))
        except (OSError, ValueError, KeyError):
            continue  # another process removes it, or is about to write it
    total = nbytes + sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit * 2**30:
            break
        if remove_unused(path):
            total -= size
