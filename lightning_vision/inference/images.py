"""What is predicted, in parts of bounded size: files as they lie, frames and arrays through a folder of their own."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.sources.memory import spool_one
from lightning_vision.errors import DataError
from lightning_vision.inference.identity import images_digest
from lightning_vision.reports.files import cannot_write

IMAGES, BYTES = 256, 2**28  # of a part on the disk; at least one batch


@dataclass(frozen=True)
class Part:
    """Some images in a row.

    Args:
        index: Their files.
        first: Images of the source before them.
        names: What they are called; None = by their files.
    """

    index: SampleIndex
    first: int = 0
    names: Sequence[str] | None = None


class Images(ABC):
    """Images to predict.

    Attributes:
        total: How many there are, None where nobody knows.
        broken: Path and reason where the source ended early.
    """

    total: int | None
    broken: tuple[str, str] | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells these images from others, as plain data."""

    @abstractmethod
    def parts(self, start: int = 0) -> Iterator[Part]:
        """All images from this one on, part by part; a part is gone when the next is asked for."""


class Files(Images):
    """The files of an index: one part, since it takes some fifty bytes a file."""

    def __init__(self, index: SampleIndex) -> None:
        self.index = index
        self.total = len(index)

    def identity(self) -> dict[str, Any]:
        """The paths, and what tells of each file that it is as it was."""
        return {"images": images_digest(self.index)}

    def parts(self, start: int = 0) -> Iterator[Part]:
        """The rows of the index."""
        rest = self.index.take(np.arange(start, len(self.index))) if start else self.index
        if len(rest):
            yield Part(rest, start)


class Streamed(Images):
    """Images that are no files, or come one by one: each part is written to a temporary folder and removed again.

    Args:
        open_at: Returns the images from a position on; anything that ``spool_one`` takes.
        name: Returns the name of the image at a position.
        read: Makes an index of the files of a part.
        batch_size: A part is a multiple of it, so that all runs see the same batches.
        total: How many there are, None where nobody knows.
        about: What tells these images from others.
        tolerant: Where the source breaks off, what came before counts.
    """

    def __init__(
        self,
        open_at: Callable[[int], Iterator[Any]],
        name: Callable[[int], str],
        read: Callable[[Sequence[str]], SampleIndex],
        batch_size: int,
        total: int | None = None,
        about: Mapping[str, Any] | None = None,
        tolerant: bool = False,
    ) -> None:
        self.open_at, self.name, self.read = open_at, name, read
        self.batch_size = batch_size
        self.total = total
        self.about = dict(about or {})
        self.tolerant = tolerant

    def identity(self) -> dict[str, Any]:
        """What the source says of itself."""
        return self.about

    def parts(self, start: int = 0) -> Iterator[Part]:
        """As many images as fit into a part, then the next ones.

        Raises:
            DataError: An item is no image; with its position.
        """
        images, first = self.open_at(start), start
        while True:
            with tempfile.TemporaryDirectory(prefix="lightning_vision-") as folder:
                paths = list(self._spooled(images, first, folder))
                if not paths and first == 0 and self.broken is None:
                    raise DataError("no images to predict", given="an iterator without any")
                if not paths:
                    return
                inside = folder + os.sep
                names = [self.name(first + i) if p.startswith(inside) else p for i, p in enumerate(paths)]
                yield Part(self.read(paths), first, names)
                first += len(paths)

    def _spooled(self, images: Iterator[Any], first: int, folder: str) -> Iterator[str]:
        """Write batch after batch, until the part is full."""
        count = size = 0
        while count == 0 or (count < IMAGES and size < BYTES):
            batch = self._batch(images)
            for image in batch:
                path = self._write(image, first + count, folder)
                size += os.stat(path).st_size if path.startswith(folder) else 0
                count += 1
                yield path
            if len(batch) < self.batch_size:
                return

    def _batch(self, images: Iterator[Any]) -> list[Any]:
        found: list[Any] = []
        try:
            for image in islice(images, self.batch_size):
                found.append(image)  # noqa: PERF402  # what came before an error is kept
        except DataError as error:
            if not self.tolerant:
                raise
            self.broken = (error.summary, str(error.given))
        return found

    def _write(self, image: Any, position: int, folder: str) -> str:
        try:
            if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
                # Without compression: it is read once, and soon.
                path = os.path.join(folder, f"{position}.npy")
                np.save(path, image)
                return path
            return spool_one(image, folder)
        except OSError as error:
            raise cannot_write(Path(folder) / "frame", error) from error
        except DataError as error:
            raise DataError(f"image {position}: {error.summary}", given=error.given, expected=error.expected) from error
