"""Generated images of circles, squares and triangles: labels and masks to try everything without a download."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lightning_vision.data.index import SampleIndex
from lightning_vision.data.mask_colors import hex_color
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import DEFAULTS, NO_FURTHER, FurtherColumns, Source, cache_folder
from lightning_vision.data.sources.table import TableSource
from lightning_vision.errors import DataError
from lightning_vision.types import Between, TargetKind

SHAPES = ("circle", "square", "triangle")
_PALETTE = ((0, 0, 0), (230, 80, 60), (60, 160, 230), (250, 200, 50))
_FORMAT = 1  # of the generated files: a change of the drawing gives another folder
_MARKER = "complete.json"


class ShapesSource(Source):
    """A small data set that is drawn when it is first needed, the same for the same arguments.

    Every image has one large object, whose shape is the label, and up to three small ones, each a circle, a square or
    a triangle in a random bright colour on dark, textured noise. The large object covers at least twice as many pixels
    as all small ones. The mask tells the shape of every pixel: background, circle, square, triangle. 70 % train, 15 %
    val, 15 % test, each shape equally often. JPEG images, palette PNG masks, one ``index.csv``.

    Args:
        num_images: Number of images.
        size: Height and width in pixels.
        generator_seed: Another seed draws other images.
        path: Folder in which the folder of images is made. null = the user's cache folder.
    """

    def __init__(
        self,
        num_images: Annotated[int, Between(60)] = 320,
        size: Annotated[int, Between(32, 2048)] = 64,
        generator_seed: Annotated[int, Between(0)] = 0,
        path: str | None = None,
    ) -> None:
        self.num_images = num_images
        self.size = size
        self.generator_seed = generator_seed
        self.path = path

    def read(
        self,
        wanted: TargetKind | None,
        seed: int,
        strict: bool = True,
        preprocessing: Preprocessing = DEFAULTS,
        coverage: bool = True,
        further: FurtherColumns = NO_FURTHER,
    ) -> SampleIndex:
        """Draw the images unless they are there, and read their index; ``seed`` plays no part."""
        table = os.path.join(self.folder(), "index.csv")
        names = ["background", *SHAPES] if wanted == "mask" else list(SHAPES)
        # By colour or by index, the classes are the same.
        colors = (
            [hex_color(c) for c in _PALETTE] if wanted == "mask" and preprocessing.infer_image_num_classes else None
        )
        target = "mask" if wanted == "mask" else "label"
        source = TableSource(table, image="image", target=target, split="split", class_names=names, colors=colors)
        return source.read(wanted, seed, strict, preprocessing, coverage, further)

    def folder(self) -> str:
        """Return the folder of the images, drawn if it is not there or not complete.

        Two processes may do this at once: each draws into a folder of its own, and the first renames it into place.

        Raises:
            DataError: ``path`` cannot be written.
        """
        params = {"num_images": self.num_images, "size": self.size, "seed": self.generator_seed, "format": _FORMAT}
        name = f"shapes-{self.num_images}x{self.size}-seed{self.generator_seed}-v{_FORMAT}"
        root = cache_folder("") if self.path is None else os.path.abspath(os.path.expanduser(self.path))
        final = os.path.join(root, name)
        if _complete(final, params):
            return final
        try:
            os.makedirs(root, exist_ok=True)
            draft = tempfile.mkdtemp(prefix=f".{name}-", dir=root)
        except OSError as error:
            raise DataError(
                f"{root}: the sample images cannot be written: {error.strerror}", override="data.path=FOLDER"
            ) from error
        try:
            self._draw_all(draft)
            with open(os.path.join(draft, _MARKER), "w", encoding="utf-8") as file:
                json.dump(params, file)
            os.chmod(draft, 0o755)
            _move_into_place(draft, final, params)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return final

    def _draw_all(self, folder: str) -> None:
        os.mkdir(os.path.join(folder, "images"))
        os.mkdir(os.path.join(folder, "masks"))
        rows = ["image,label,mask,split"]
        for i in range(self.num_images):
            label, position = i % len(SHAPES), (i // len(SHAPES)) % 20
            split = "train" if position < 14 else "val" if position < 17 else "test"
            image, mask = draw(np.random.default_rng([self.generator_seed, i]), self.size, label)
            Image.fromarray(image).save(os.path.join(folder, "images", f"{i:05d}.jpg"), quality=92)
            png = Image.frombytes("P", (self.size, self.size), mask.tobytes())
            png.putpalette([value for colour in _PALETTE for value in colour])
            png.save(os.path.join(folder, "masks", f"{i:05d}.png"))
            rows.append(f"images/{i:05d}.jpg,{SHAPES[label]},masks/{i:05d}.png,{split}")
        with open(os.path.join(folder, "index.csv"), "w", encoding="utf-8") as file:
            file.write("\n".join(rows) + "\n")


def draw(rng: np.random.Generator, size: int, label: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw one sample: uint8 image ``(size, size, 3)`` and uint8 mask ``(size, size)`` with 0 to 3."""
    while True:
        mask = Image.new("L", (size, size))  # number of the object of each pixel
        pen = ImageDraw.Draw(mask)
        large = rng.uniform(0.24, 0.34) * size
        kinds = [label]
        centre = rng.uniform(large, size - large, 2)
        for number in range(1, int(rng.integers(0, 4)) + 1):
            kind = int(rng.integers(len(SHAPES)))
            radius = rng.uniform(0.08, 0.12) * size
            _object(pen, kind, rng.uniform(radius, size - radius, 2), radius, rng.uniform(0, 2 * math.pi), number + 1)
            kinds.append(kind)
        # The large one last, on top: it is always seen as a whole.
        _object(pen, label, centre, large, rng.uniform(0, 2 * math.pi), 1)
        objects = np.asarray(mask)
        area = np.bincount(objects.ravel(), minlength=2)
        if area[1] >= 2 * area[2:].sum():
            break
    image = _texture(rng, size)
    classes = np.zeros((size, size), np.uint8)
    for number, kind in enumerate(kinds, start=1):
        inside = objects == number
        # Bright on dark: finding the objects is easy, so that a first run shows something; telling them apart is not.
        colour = rng.uniform(60, 255, 3)
        while colour.max() < 190:
            colour = rng.uniform(60, 255, 3)
        image[inside] = colour + rng.normal(0, 8, (int(inside.sum()), 3))
        classes[inside] = kind + 1
    return image.clip(0, 255).astype(np.uint8), classes


def _object(
    pen: ImageDraw.ImageDraw, kind: int, centre: npt.NDArray[np.float64], radius: float, turn: float, number: int
) -> None:
    x, y = float(centre[0]), float(centre[1])
    if kind == 0:
        pen.ellipse((x - radius * 0.9, y - radius * 0.9, x + radius * 0.9, y + radius * 0.9), fill=number)
        return
    corners = 4 if kind == 1 else 3
    angles = [turn + 2 * math.pi * c / corners for c in range(corners)]
    pen.polygon([(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles], fill=number)


def _texture(rng: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Smooth blotches of two colours with fine noise, float ``(size, size, 3)`` about 0 to 255."""
    coarse = Image.fromarray((rng.random((6, 6)) * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    blend = np.asarray(coarse, np.float64)[..., None] / 255
    first = rng.uniform(15, 95, 3)
    second = first + rng.uniform(-30, 30, 3)
    return blend * first + (1 - blend) * second + rng.normal(0, 10, (size, size, 1))


def _complete(folder: str, params: dict[str, int]) -> bool:
    try:
        with open(os.path.join(folder, _MARKER), encoding="utf-8") as file:
            if json.load(file) != params:
                return False
        counts = [len(os.listdir(os.path.join(folder, part))) for part in ("images", "masks")]
    except (OSError, ValueError):
        return False  # not drawn yet, or not all of it: it is drawn anew
    return counts == [params["num_images"]] * 2 and os.path.isfile(os.path.join(folder, "index.csv"))


def _move_into_place(draft: str, final: str, params: dict[str, int]) -> None:
    for _ in range(2):
        try:
            os.rename(draft, final)
            return
        except OSError:
            if _complete(final, params):
                return  # another process was first, with the same images
            # What lies there is not complete: set it aside under our own name, and try again.
            aside = tempfile.mkdtemp(prefix=".incomplete-", dir=os.path.dirname(final))
            os.rename(final, os.path.join(aside, "old"))
            shutil.rmtree(aside)
    raise DataError(f"{final}: the sample images cannot be moved there", override="data.path=FOLDER")
