"""Predictions as files: a table of labels, or masks at the size of the images they were made for."""

from __future__ import annotations

import csv
import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lightning_vision.errors import DataError
from lightning_vision.inference.prediction import Prediction
from lightning_vision.reports.files import cannot_write, whole_file
from lightning_vision.reports.palette import IGNORED
from lightning_vision.reports.sheet import overlay

TABLE = "predictions.csv"
_JPEG_LIMIT = 65500  # longest side that libjpeg writes


class Writer(ABC):
    """Writes predictions, and a CSV about them.

    The CSV grows row by row under ``predictions.csv.partial`` and gets its name when all rows are there. Each row is
    flushed, so that the partial file, which stays after an error, holds every row up to it.
    """

    def __init__(self, folder: Path, class_names: Sequence[str] | None = None) -> None:
        if class_names is not None and not class_names:
            raise ValueError("class_names must not be empty")
        self.folder = Path(folder)
        self.class_names = tuple(class_names or ())
        self.table = self.folder / TABLE
        self.partial = self.folder / f"{TABLE}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # File names are bytes on Linux: those that are no UTF-8 are written as they are.
            self._file = self.partial.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise cannot_write(self.table, error) from error
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._started = False

    @abstractmethod
    def add(self, prediction: Prediction) -> None:
        """Write a prediction."""

    @abstractmethod
    def _header(self) -> list[str]:
        """Names of the columns."""

    def _write_row(self, row: Sequence[str]) -> None:
        if self._file.closed:
            raise ValueError(f"the writer of {self.table} is closed")
        try:
            if not self._started:
                self._started = True
                self._rows.writerow(self._header())
            if row:
                self._rows.writerow(row)
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.table, error) from error

    def close(self) -> None:
        """Give the table its final name; a table of an earlier run is replaced. Does nothing the second time."""
        if self._file.closed:
            return
        self._write_row(())
        try:
            self._file.close()
            self.partial.replace(self.table)
        except OSError as error:
            raise cannot_write(self.table, error) from error

    def abandon(self) -> None:
        """Close the file but leave it under its partial name, unless it has no rows."""
        try:
            self._file.close()
            if not self._started:
                self.partial.unlink()
        except OSError as error:
            raise cannot_write(self.table, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.abandon()
        except DataError as second:
            # The first error is the cause (a full disk fails again on closing): it goes on, with a note.
            error.add_note(str(second))


class LabelWriter(Writer):
    """Writes ``predictions.csv``: ``path,label,probability`` and ``p_<class>`` for each class.

    If the first row comes with its truth, a column ``truth`` follows ``probability``. Use it as a context manager:
    the table has its final name when the block ends without an error, and ``.partial`` behind it otherwise.

    Args:
        folder: Folder to write into; it is made.
        class_names: Names of the classes, the position is the class id.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        super().__init__(folder, class_names)
        self._with_truth = False

    def _header(self) -> list[str]:
        truth = ["truth"] if self._with_truth else []
        return ["path", "label", "probability", *truth, *(f"p_{name}" for name in self.class_names)]

    def add(self, prediction: Prediction) -> None:
        """Add the row of a prediction."""
        assert prediction.probabilities is not None
        self.write(prediction.path, prediction.probabilities)

    def write(self, path: str, probabilities: NDArray[Any], truth: str | None = None) -> None:
        """Add a row.

        Args:
            path: Path of the image, written as given.
            probabilities: ``(C,)``, 0 to 1; written with six digits.
            truth: Name of the true class, or None.

        Raises:
            ValueError: The shape is wrong, a probability is not finite, or a truth comes after a first row without.
            DataError: The disk is full or the file cannot be written.
        """
        values = np.asarray(probabilities, dtype=np.float64)
        if values.shape != (len(self.class_names),):
            raise ValueError(f"expected ({len(self.class_names)},) probabilities, got {values.shape}: {path}")
        if not np.isfinite(values).all():
            raise ValueError(f"the probabilities are not finite: {path}")
        if not self._started:
            self._with_truth = truth is not None
        elif truth is not None and not self._with_truth:
            raise ValueError(f"the first row had no truth, so the table has no column for it: {path}")
        best = int(values.argmax())
        column = [truth or ""] if self._with_truth else []
        texts = [f"{v:.6g}" for v in values]
        self._write_row([str(path), self.class_names[best], texts[best], *column, *texts])


class MaskWriter(Writer):
    """Writes a palette PNG for each mask, an overlay on its image, and ``predictions.csv``.

    ``masks/`` holds PNGs of mode P whose index is the class; ``overlays/`` JPEGs (PNGs
    beyond 65500 pixels a side). Sub-folders below ``root`` are
    mirrored. Two images of one name (``a.jpg`` and ``a.png``) give two masks: the later keeps its suffix
    (``a.png.png``), then a number. The table has ``path,mask,overlay`` (the last two relative to the folder, with
    slashes) and ``share_<class>``, the share of the pixels of each class. Use it as a context manager.

    Args:
        folder: Folder to write into; it is made. Files of the same names are replaced.
        class_names: Names of the classes, at most 256; the position is the class id.
        palette: One RGB triple a class.
        overlays: Write overlays too.
        root: Folder that the sub-folders are taken below; images outside it, and all images where it is None, are
            written without sub-folders.
        ignore_index: Mask value of pixels without a prediction, such as those that a crop cut away; None is 255. They
            keep that value in the mask, show the image alone in the overlay, and count for no class's share.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        class_names: Sequence[str],
        palette: Sequence[Sequence[int]],
        overlays: bool = True,
        root: Path | None = None,
        ignore_index: int | None = None,
    ) -> None:
        if len(palette) != len(class_names) or len(class_names) > 256:
            raise ValueError(f"{len(class_names)} classes (at most 256) need as many colours, got {len(palette)}")
        super().__init__(folder, class_names)
        self.palette = tuple(tuple(int(v) for v in colour) for colour in palette)
        self.overlays = overlays
        self.root = None if root is None else Path(os.path.abspath(root))
        # All 256 entries: Pillow packs a shorter palette into fewer bits a pixel than other readers may expect.
        self._png_palette = [v for c in (*self.palette, *[IGNORED] * (256 - len(self.palette))) for v in c]
        # With 256 classes no value is left to mark a pixel without a prediction.
        self.unpredicted = 255 if ignore_index is None and len(class_names) < 256 else ignore_index
        self._owners: dict[str, str] = {}

    def _header(self) -> list[str]:
        return ["path", "mask", "overlay", *(f"share_{name}" for name in self.class_names)]

    def add(self, prediction: Prediction) -> None:
        """Write the mask of a prediction, its overlay and its row."""
        assert prediction.mask is not None
        self.write(prediction.path, prediction.mask)

    def write(
        self, path: str | Path, mask: NDArray[Any], image: NDArray[np.uint8] | None = None
    ) -> tuple[Path, Path | None]:
        """Write the mask of an image, its overlay and its row.

        Args:
            path: Path of the image; it is opened for the overlay, and turned as its EXIF orientation says.
            mask: ``(H, W)`` uint8 class ids at the image's original size (after EXIF orientation).
            image: The image ``(H, W, C)`` uint8 where it need not or cannot be opened.

        Returns:
            Path of the mask, and of the overlay or None.

        Raises:
            ValueError: The mask is not two-dimensional uint8, or holds a value that is neither a class nor the mark of
                pixels without a prediction.
            DataError: The image cannot be read or has another size, or a file cannot be written.
        """
        if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
            raise ValueError(f"a mask is uint8 (H, W), got {mask.dtype} {mask.shape}: {path}")
        counts = np.bincount(mask.ravel(), minlength=256)
        if self.unpredicted is not None:
            counts[self.unpredicted] = 0
        counts, others = np.split(counts, [len(self.class_names)])
        if others.any():
            value = len(counts) + int(others.argmax())
            raise ValueError(f"mask value {value} is no class of {len(self.class_names)}: {path}")
        name = self._name(Path(path))
        mask_path = self.folder / "masks" / f"{name}.png"
        picture = Image.fromarray(np.ascontiguousarray(mask))
        picture.putpalette(self._png_palette)
        with whole_file(mask_path) as temporary:
            picture.save(temporary, format="PNG")
        overlay_path = None
        if self.overlays:
            jpeg = max(mask.shape) <= _JPEG_LIMIT
            overlay_path = self.folder / "overlays" / f"{name}{'.jpg' if jpeg else '.png'}"
            pixels = overlay(self._image(path, mask, image), mask, self.palette, self.unpredicted)
            blended = Image.fromarray(pixels)
            with whole_file(overlay_path) as temporary:
                blended.save(temporary, **({"format": "JPEG", "quality": 90} if jpeg else {"format": "PNG"}))
        shares = [f"{count / mask.size:.6g}" for count in counts]
        files = [p.relative_to(self.folder).as_posix() if p else "" for p in (mask_path, overlay_path)]
        self._write_row([str(path), *files, *shares])
        return mask_path, overlay_path

    def _image(self, path: str | Path, mask: NDArray[Any], image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        pixels = read_rgb(Path(path)) if image is None else image
        if pixels.shape[:2] != mask.shape:
            raise DataError(
                f"the mask does not have the size of its image: {path}",
                given=f"mask {mask.shape[0]} x {mask.shape[1]}",
                expected=f"{pixels.shape[0]} x {pixels.shape[1]} (height x width)",
            )
        return pixels

    def _name(self, path: Path) -> str:
        """Name below ``masks/`` and ``overlays/`` without suffix; the same image always gets the same one."""
        source = os.path.abspath(path)
        inside = PurePosixPath(path.name)
        if self.root is not None and Path(source).is_relative_to(self.root):
            inside = PurePosixPath(Path(source).relative_to(self.root).as_posix())
        parent = inside.parent
        number = 1
        candidates = [inside.stem, inside.name]
        while True:
            for candidate in candidates:
                name = str(parent / candidate)
                # Some file systems take letters of either case, or composed and decomposed ones, for the same.
                key = unicodedata.normalize("NFC", name).casefold()
                if self._owners.setdefault(key, source) == source:
                    return name
            number += 1
            candidates = [f"{inside.name}_{number}"]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as ``(H, W, 3)`` uint8 at its original size, turned as its EXIF orientation says.

    Images of 16 bits are scaled to 8; alpha is dropped.

    Raises:
        DataError: The file is missing or no readable image.
    """
    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I;16"):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            # Palettes with transparency go by RGBA: Pillow warns about the direct way.
            image = image.convert("RGBA") if image.mode == "P" else image
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot read the image {path}", given=error, expected="an image that Pillow reads") from error
