"""Predicted masks as pictures, and a table about them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lightning_vision.errors import DataError
from lightning_vision.inference.names import Names
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.pictures import read_rgb
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.writers import Writer
from lightning_vision.reports.files import whole_file
from lightning_vision.reports.palette import IGNORED
from lightning_vision.reports.sheet import legend_image, overlay

_JPEG_LIMIT = 65500  # longest side that libjpeg writes


class MaskWriter(Writer):
    """Writes a palette PNG for each mask, an overlay on its image, probabilities on request, and a table.

    ``masks/`` holds PNGs of mode P whose index is the class; ``overlays/`` JPEGs (PNGs beyond 65500 pixels a side)
    and ``legend.png``, which class has which colour;
    ``probabilities/`` float16 arrays ``(C, H, W)``. How they are named, ``Names`` says. The table has
    ``path,mask,overlay`` (relative to the folder, with slashes), ``probabilities`` where they are written, and
    ``share_<class>``, the share of the pixels of each class.

    Args:
        folder: Folder to write into; it is made. Files of the same names are replaced.
        class_names: Names of the classes, at most 256; the position is the class id.
        palette: One RGB triple a class.
        overlays: Write overlays too, unless ``output`` says what is written.
        root: Folder whose sub-folders are mirrored, or None.
        ignore_index: Mask value of pixels without a prediction, such as those that a crop cut away; None is 255. They
            keep that value in the mask, show the image alone in the overlay, and count for no class's share.
        output: What is written, the format of the table, and what is there already.

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
        output: Output = PLAIN,
    ) -> None:
        if len(palette) != len(class_names) or len(class_names) > 256:
            raise ValueError(f"{len(class_names)} classes (at most 256) need as many colours, got {len(palette)}")
        super().__init__(folder, class_names, output)
        self.palette = tuple(tuple(int(v) for v in colour) for colour in palette)
        self.overlays = output.saves("overlays", overlays)
        self.probabilities = output.saves("probabilities")
        self.names = Names(root)
        self._has_legend = False
        # All 256 entries: Pillow packs a shorter palette into fewer bits a pixel than other readers may expect.
        self._png_palette = [v for c in (*self.palette, *[IGNORED] * (256 - len(self.palette))) for v in c]
        # With 256 classes no value is left to mark a pixel without a prediction.
        self.unpredicted = 255 if ignore_index is None and len(class_names) < 256 else ignore_index
        if self.table.started:
            self._take_names()

    def _take_names(self) -> None:
        """Give the images of an interrupted prediction the names that they have."""
        with self.table.file.partial.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                self.names.of(row["path"])

    def _columns(self) -> Mapping[str, type]:
        more = {"probabilities": str} if self.probabilities else {}
        shares = {f"share_{name}": float for name in self.class_names}
        return {"path": str, "mask": str, "overlay": str, **more, **shares}

    def add(self, prediction: Prediction) -> None:
        """Write the mask of a prediction, its overlay and its row."""
        assert prediction.mask is not None
        image = read_rgb(Path(prediction.file)) if prediction.file and self.overlays else None
        self.write(prediction.path, prediction.mask, image, prediction.probabilities)

    def write(
        self,
        path: str | Path,
        mask: NDArray[Any],
        image: NDArray[np.uint8] | None = None,
        probabilities: NDArray[Any] | None = None,
    ) -> tuple[Path, Path | None]:
        """Write the mask of an image, its overlay and its row.

        Args:
            path: Path of the image; it is opened for the overlay, and turned as its EXIF orientation says.
            mask: ``(H, W)`` uint8 class ids at the image's original size (after EXIF orientation).
            image: The image ``(H, W, C)`` uint8 where it need not or cannot be opened.
            probabilities: ``(C, H, W)``, where they are to be written.

        Returns:
            Path of the mask, and of the overlay or None.

        Raises:
            ValueError: The mask is not two-dimensional uint8, or holds a value that is neither a class nor the mark of
                pixels without a prediction.
            DataError: The image cannot be read or has another size, or a file cannot be written.
        """
        if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.size:
            raise ValueError(f"a mask is uint8 (H, W), got {mask.dtype} {mask.shape}: {path}")
        shares = self._shares(mask, path)
        name = self.names.of(path)
        mask_path = self.folder / "masks" / f"{name}.png"
        picture = Image.fromarray(np.ascontiguousarray(mask))
        picture.putpalette(self._png_palette)
        with whole_file(mask_path) as temporary:
            picture.save(temporary, format="PNG")
        overlay_path = self._overlay(name, path, mask, image) if self.overlays else None
        files: list[Path | None] = [mask_path, overlay_path]
        if self.probabilities:
            assert probabilities is not None
            files.append(self.folder / "probabilities" / f"{name}.npy")
            with whole_file(files[-1]) as temporary, temporary.open("wb") as file:  # type: ignore[arg-type]
                np.save(file, probabilities.astype(np.float16, copy=False))
        self.table.add([str(path), *(p.relative_to(self.folder).as_posix() if p else "" for p in files), *shares])
        return mask_path, overlay_path

    def _shares(self, mask: NDArray[np.uint8], path: str | Path) -> list[str]:
        """The share of each class."""
        counts = np.bincount(mask.ravel(), minlength=256)
        if self.unpredicted is not None:
            counts[self.unpredicted] = 0
        counts, others = np.split(counts, [len(self.class_names)])
        if others.any():
            value = len(counts) + int(others.argmax())
            raise ValueError(f"mask value {value} is no class of {len(self.class_names)}: {path}")
        return [f"{count / mask.size:.6g}" for count in counts.tolist()]

    def _overlay(self, name: str, path: str | Path, mask: NDArray[Any], image: NDArray[np.uint8] | None) -> Path:
        """Draw the mask over its image."""
        pixels = read_rgb(Path(path)) if image is None else image
        if pixels.shape[:2] != mask.shape:
            raise DataError(
                f"the mask does not have the size of its image: {path}",
                given=f"mask {mask.shape[0]} x {mask.shape[1]}",
                expected=f"{pixels.shape[0]} x {pixels.shape[1]} (height x width)",
            )
        if not self._has_legend:
            with whole_file(self.folder / "overlays" / "legend.png") as temporary:
                legend_image(self.class_names, self.palette).save(temporary, format="PNG")
            self._has_legend = True
        jpeg = max(mask.shape) <= _JPEG_LIMIT
        found = self.folder / "overlays" / f"{name}{'.jpg' if jpeg else '.png'}"
        blended = Image.fromarray(overlay(pixels, mask, self.palette, self.unpredicted))
        with whole_file(found) as temporary:
            blended.save(temporary, **({"format": "JPEG", "quality": 90} if jpeg else {"format": "PNG"}))
        return found
