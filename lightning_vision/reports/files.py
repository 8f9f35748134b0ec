"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_vision.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

DPI = 110


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` and rename it to ``path`` at the end; folders are made.

    The temporary name does not hold the target's name, which may already be as long as the file system allows.

    Raises:
        DataError: The folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".{os.getpid()}-{threading.get_ident()}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        _remove(temporary)


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure of matplotlib as PNG; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    with whole_file(out) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)


def save_image(image: Image.Image, out: Path) -> None:
    """Write an image as PNG; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    with whole_file(out) as temporary:
        image.save(temporary, format="PNG")


def _remove(path: Path) -> None:
    """Remove a left-over; where the folder itself is unusable there is none, and the first error says so."""
    if os.path.lexists(path):
        path.unlink()


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error of a file that cannot be written, naming its folder and the system's reason."""
    return DataError(
        f"cannot write into the folder {path.parent}",
        given=f"{path.name}: {error.strerror or error}",
        expected="a folder that can be written, on a disk with free space",
    )
