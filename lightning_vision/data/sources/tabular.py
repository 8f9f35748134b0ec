"""What every table of rows and named columns offers, whatever file or object holds it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.index import PackedStrings
from lightning_vision.errors import listed
from lightning_vision.types import TargetKind

DELIMITED_SUFFIXES = (".csv", ".tsv", ".tab", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (*DELIMITED_SUFFIXES, *PARQUET_SUFFIXES)


class Table(ABC):
    """Cells as text: of images and masks their paths. An empty cell is a missing value.

    Attributes:
        path: Where the table is, for messages.
        header: Names of the columns.
        notes: What is worth knowing about how it was read.
        base: Where images that are no files are spooled; None = the user's cache folder.
    """

    path: str
    header: list[str]
    notes: Sequence[str] = ()
    base: str | None = None

    @abstractmethod
    def columns(self, names: Sequence[str]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]]:
        """Read columns; cells are stripped of surrounding white space.

        Returns:
            The columns; int64 ``(N,)`` the number of each row; and what is wrong with rows that are left out: another
            number of cells than the header has.
        """

    @abstractmethod
    def kind(self, name: str) -> TargetKind | None:
        """Tell whether a column holds masks (or images), or labels. None: there are no rows to tell from."""

    @abstractmethod
    def holds_sets(self, name: str, separator: str) -> bool:
        """True if a column of labels is one of lists, or has a cell of several in its first rows."""

    @property
    def folder(self) -> str:
        """Where relative paths start."""
        return os.path.dirname(self.path)

    def holds_pictures(self, name: str) -> bool:
        """True if the type of a column tells that it holds images."""
        return False

    def class_names(self, name: str) -> list[str] | None:
        """The classes of a column of labels in their order, where the table names them."""
        return None

    def places(self, rows: Sequence[int], limit: int = 10) -> str:
        """Name rows by their numbers, as people find them."""
        return f"row {listed(rows, limit)}"


def all_image_names(cells: Sequence[str]) -> bool:
    """True if there are filled cells and all of them are names of image files."""
    filled = [cell for cell in cells if cell]
    return bool(filled) and all(is_image_name(os.path.basename(cell)) for cell in filled)
