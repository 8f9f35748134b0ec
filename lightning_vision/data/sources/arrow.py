"""Tables of typed columns, as Parquet files and Hugging Face datasets hold them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_vision.data.index import PackedStrings
from lightning_vision.data.label_cells import is_set
from lightning_vision.data.sources.cells import as_text
from lightning_vision.data.sources.memory import spool_one
from lightning_vision.data.sources.spooled import image_folder, remembered
from lightning_vision.data.sources.tabular import Table, all_image_names
from lightning_vision.errors import DataError
from lightning_vision.types import TargetKind

_FIRST_ROWS = 20  # tell what a column holds
_PICTURES = 64  # encoded images that are in memory at once
_ROWS = 1 << 14


class ArrowTable(Table):
    """A table of Arrow columns. Images are paths, encoded bytes, or structs of ``bytes`` and ``path``.

    Bytes are spooled once into ``<base>/images/<column>/``. Rows are numbered from 1.

    Args:
        path: Where it is, for messages.
        schema: pyarrow's schema of all columns.
        fingerprint: Another one whenever the content may have changed.
        class_names: The names of integer class ids, alone or in lists, by column.
        base: Where images are spooled; None = the user's cache folder.
    """

    def __init__(
        self, path: str, schema: Any, fingerprint: str, class_names: dict[str, list[str]], base: str | None = None
    ) -> None:
        self.path = path
        self.header = list(schema.names)
        self._schema = schema
        self._fingerprint = fingerprint
        self._class_names = class_names
        self.base = base

    @abstractmethod
    def batches(self, name: str, rows: int) -> Iterable[Any]:
        """Yield one column as pyarrow arrays of at most ``rows`` cells, in order."""

    def class_names(self, name: str) -> list[str] | None:
        """The names of a column of class ids, or of lists of them."""
        return self._class_names.get(name)

    def holds_pictures(self, name: str) -> bool:
        """True for bytes, and for structs of bytes and path."""
        import pyarrow as pa

        kind = self._schema.field(name).type
        if pa.types.is_struct(kind):
            return {"bytes", "path"} <= {kind.field(i).name for i in range(kind.num_fields)}
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def kind(self, name: str) -> TargetKind | None:
        """Masks, if the column holds encoded images, or the names of image files in its first rows."""
        if self.holds_pictures(name):
            return "mask"
        first = self._first_cells(name)
        if not first:
            return None
        return "mask" if all_image_names([cell for cell in first if isinstance(cell, str)]) else "label"

    def holds_sets(self, name: str, separator: str) -> bool:
        """See ``Table.holds_sets``."""
        import pyarrow as pa

        kind = self._schema.field(name).type
        if any(is_list(kind) for is_list in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
            return True
        return any(is_set(cell, separator) for cell in self._first_cells(name) if isinstance(cell, str))

    def _first_cells(self, name: str) -> list[Any]:
        first = next(iter(self.batches(name, _FIRST_ROWS)), None)
        return [] if first is None else list(first.to_pylist())

    def columns(self, names: Sequence[str]) -> tuple[list[PackedStrings], npt.NDArray[np.int64], list[str]]:
        """Read columns, images as paths; see ``Table.columns``. No row has other cells than the header."""
        columns = [self._pictures(name) if self.holds_pictures(name) else self._text(name) for name in names]
        return columns, np.arange(1, len(columns[0]) + 1, dtype=np.int64), []

    def _text(self, name: str) -> PackedStrings:
        try:
            return PackedStrings.from_strings(as_text(self._cells(name, _ROWS), self._class_names.get(name), True))
        except DataError as error:
            where = f"{self.path}: column {name}, {error.summary}"
            raise DataError(where, given=error.given, expected=error.expected) from error

    def _pictures(self, name: str) -> PackedStrings:
        folder = image_folder(self.base, name)

        def spool() -> Iterator[str]:
            for row, cell in enumerate(self._cells(name, _PICTURES), start=1):
                try:
                    yield _path(cell, folder)
                except DataError as error:
                    raise DataError(
                        f"{self.path}: {self.places([row])}, column {name}: {error.summary}",
                        given=error.given,
                        expected=error.expected,
                        override=error.overrides,
                    ) from error

        return remembered(folder, f"{self._fingerprint} {name}", spool)

    def _cells(self, name: str, rows: int) -> Iterator[Any]:
        for batch in self.batches(name, rows):
            yield from batch.to_pylist()


def _path(cell: bytes | dict[str, Any] | None, folder: str) -> str:
    """The path of a cell's image; that of a struct without bytes is taken as it stands, like a cell of paths."""
    if isinstance(cell, dict) and cell["bytes"] is None:
        return str(cell["path"] or "")
    return "" if cell is None else spool_one(cell, folder, keep_unknown=True)
