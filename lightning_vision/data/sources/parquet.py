"""Parquet files, through the extra ``parquet``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from lightning_vision.data.sources.arrow import ArrowTable
from lightning_vision.data.sources.delimited import existing_file
from lightning_vision.errors import DataError
from lightning_vision.extras import require


class ParquetTable(ArrowTable):
    """One Parquet file. Class names that Hugging Face's library wrote into it are used.

    Args:
        path: The file.

    Raises:
        ConfigError: No such file, or pyarrow is not installed.
        DataError: It is no Parquet file.
    """

    def __init__(self, path: str) -> None:
        require("parquet", "pyarrow", needs="Parquet files need", given=path, instead=["data.path=FILE.csv"])
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = existing_file(path)
        try:
            self._file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise DataError(f"{path}: no Parquet file, or a damaged one", given=str(error)) from error
        schema = self._file.schema_arrow
        about = os.stat(path)
        super().__init__(path, schema, f"{path} {about.st_size} {about.st_mtime_ns}", _class_names(schema))
        if not self.header:
            raise DataError(f"{path}: the table has no columns")
        twice = sorted({name for name in self.header if self.header.count(name) > 1})
        if twice:
            raise DataError(f"{path}: the table names a column twice", given=", ".join(twice))

    def batches(self, name: str, rows: int) -> Iterator[Any]:
        """Yield one column in pieces; see ``ArrowTable.batches``."""
        for batch in self._file.iter_batches(rows, columns=[name]):
            yield batch.column(0)


def _class_names(schema: Any) -> dict[str, list[str]]:
    """The names of class ids, and of lists of them, as Hugging Face's ``Dataset.to_parquet`` leaves them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        items = {name: _of_list(feature) for name, feature in features.items()}
        return {k: f["names"] for k, f in items.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (ValueError, AttributeError, KeyError):
        return {}  # somebody else's metadata


def _of_list(feature: Any) -> Any:
    """The feature of the items of a list, as any version of the library writes one; any other feature itself."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        return feature.get("feature")
    return feature
