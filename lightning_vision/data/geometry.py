"""To which height, width and number of channels all images are brought."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import Header, read_header
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.overrides import override
from lightning_vision.types import Geometry


def infer_geometry(
    index: SampleIndex, preprocessing: Preprocessing, image_size: int | Sequence[int] | None = None
) -> Geometry:
    """Take what is given, and infer the rest from headers of training images; no pixel is decoded.

    Size: ``image_size``, else the preprocessing's height and width, else the size of the first readable training image,
    each side capped by ``infer_image_max_*``, and both the smaller one with ``requires_equal_dimensions``. Channels:
    ``num_channels``, else from ``infer_image_sample_size`` training images spread evenly: 1 if all are grey, 3 if one
    has colour; the alpha channel is kept (2, 4) only if all have one. Without training images all are looked at.

    Args:
        index: The samples.
        preprocessing: Its settings.
        image_size: The root setting: pixels of both sides, or ``[height, width]``, or None.

    Raises:
        ConfigError: Settings that contradict each other, or nothing given and nothing to infer.
        DataError: No training image can be read.
    """
    size = _given_size(preprocessing, image_size)
    rows = index.rows("train")
    if not len(rows):
        rows = np.arange(len(index), dtype=np.int64)
    if size is None:
        first = first_readable(map(index.image_path, rows.tolist()), index.origin, "image_size=256")
        height = min(first.height, preprocessing.infer_image_max_height)
        width = min(first.width, preprocessing.infer_image_max_width)
        if preprocessing.requires_equal_dimensions:
            height = width = min(height, width)
        size = height, width
    channels = preprocessing.num_channels
    if channels is None:
        count = preprocessing.infer_image_sample_size
        channels = sampled_channels(index, rows, count) if preprocessing.infer_image_num_channels else 3
    return Geometry(size[0], size[1], channels, len(index.images))


def training_geometry(geometry: Geometry, preprocessing: Preprocessing) -> Geometry:
    """Return what training images are brought to: ``train_size``, or the geometry itself.

    Raises:
        ConfigError: ``train_size`` is smaller than the model's input: a crop of that size could not be cut out.
    """
    size = preprocessing.train_size
    if size is None:
        return geometry
    height, width = (size, size) if isinstance(size, int) else size
    if height < geometry.height or width < geometry.width:
        larger = [max(height, geometry.height), max(width, geometry.width)]
        raise ConfigError(
            "preprocessing.train_size is smaller than the model's input, which is to be cut out of it",
            given=f"train_size {height} x {width}, image_size {geometry.height} x {geometry.width}",
            expected="at least image_size on both sides",
            override=[override("preprocessing.train_size", larger), "preprocessing.train_size=null"],
        )
    return replace(geometry, height=height, width=width)


def _given_size(preprocessing: Preprocessing, image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    height, width = preprocessing.height, preprocessing.width
    if image_size is not None:
        sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides):
            raise ConfigError(
                "image_size is no size",
                given=image_size,
                expected="pixels of both sides, or [height, width]",
                override=["image_size=256", "image_size=[256,320]"],
            )
        size = sides[0], sides[1]
        for name, value, side in (("height", height, size[0]), ("width", width, size[1])):
            if value is not None and value != side:
                raise ConfigError(
                    f"image_size and preprocessing.{name} contradict each other",
                    given=f"image_size={image_size}, preprocessing.{name}={value}",
                    expected="one of them, or both the same",
                    override=[f"preprocessing.{name}=null", "image_size=null"],
                )
    elif height is not None and width is not None:
        size = height, width
    elif height is not None or width is not None:
        known, missing = ("height", "width") if width is None else ("width", "height")
        value = height if width is None else width
        raise ConfigError(
            f"preprocessing.{known} is given without preprocessing.{missing}",
            given=f"preprocessing.{known}={value}",
            expected="both, or neither",
            override=[f"image_size={value}", f"preprocessing.{missing}={value}"],
        )
    elif not preprocessing.infer_image_dimensions:
        raise ConfigError(
            "preprocessing.infer_image_dimensions is false, and no size is given",
            override=["image_size=256", "preprocessing.infer_image_dimensions=true"],
        )
    else:
        return None
    if preprocessing.requires_equal_dimensions and size[0] != size[1]:
        raise ConfigError(
            "preprocessing.requires_equal_dimensions is set, and the sides differ",
            given=f"height {size[0]}, width {size[1]}",
            override=[f"image_size={min(size)}", "preprocessing.requires_equal_dimensions=false"],
        )
    return size


def first_readable(paths: Iterable[str], origin: str, override: str) -> Header:
    """Return the header of the first image that can be read, of a thousand.

    Raises:
        DataError: None of them can be read; with ``origin`` and the ``override`` that does without.
    """
    reasons = []
    for path in islice(paths, 1000):
        try:
            return read_header(path)
        except DataError as error:
            reasons.append(error.summary)
    raise DataError(
        f"{origin}: none of the first {len(reasons)} images can be read, so no size can be inferred",
        given=listed(reasons, 3),
        override=override,
    )


def sampled_channels(index: SampleIndex, rows: npt.NDArray[np.int64], count: int) -> int:
    """Return the channels that ``count`` images, spread evenly over the rows, have in common.

    Raises:
        DataError: None of them can be read.
    """
    count = min(count, len(rows))
    sample = rows[np.linspace(0, len(rows) - 1, count).astype(np.int64)] if count else rows
    found = []
    reasons = []
    for row in sample:
        try:
            found += [read_header(column[int(row)]).num_channels for column in index.images]
        except DataError as error:
            reasons.append(error.summary)
    if not found:
        raise DataError(
            f"{index.origin}: none of {len(reasons)} sampled images can be read, so channels cannot be inferred",
            given=listed(reasons, 3),
            override="preprocessing.num_channels=3",
        )
    return common_channels(found)


def common_channels(found: Sequence[int]) -> int:
    """Channels that hold all of these images: colour if one has it, alpha if all have it."""
    colour = any(channels >= 3 for channels in found)
    alpha = all(channels in (2, 4) for channels in found)
    return (3 if colour else 1) + alpha
