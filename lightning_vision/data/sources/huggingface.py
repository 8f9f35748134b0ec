"""Hugging Face datasets, from the hub or from disk, through the extra ``datasets``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from lightning_vision.data.sources.arrow import ArrowTable
from lightning_vision.data.sources.in_python import write_named
from lightning_vision.data.sources.missing import is_saved_dataset, no_such_path
from lightning_vision.data.sources.table import TableSource
from lightning_vision.data.sources.tabular import PARQUET_SUFFIXES, Table
from lightning_vision.data.splits import split_id
from lightning_vision.errors import ConfigError, DataError, VisionError, listed, nearest
from lightning_vision.extras import require
from lightning_vision.overrides import override
from lightning_vision.types import SPLITS, Between

_SPLIT = "split of the dataset"  # the column that tells the split of a row


class HuggingFaceSource(TableSource):
    """Images and targets from a Hugging Face dataset.

    Images are never decoded: bytes become files once, below ``preprocessing.lazy_cache_dir``; without bytes, the path
    is used. Columns of class ids have the names of their classes, in their order; an id of -1 is a missing label. A
    sequence of class ids, or of names, is a set of labels.

    Args:
        path: A folder that ``save_to_disk`` wrote, an Arrow or Parquet file, a folder of such files or of images, or a
            name on the hub, such as ``cifar10`` or ``beans``. A path that exists goes before a name.
        name: Configuration, of datasets that have several.
        revision: Branch, tag or commit on the hub. null = the newest.
        image: Column of images. null = the only one, or found among the usual names.
        inputs: Columns of images, where each sample has several; in place of ``image``.
        target: Column of labels, or of masks, or a list of columns, one for each label, with true or false. null = the
            only one, or found among the usual names.
        separator: What stands between the labels of a text, where an image has any number of them.
        train_split: Name of the split to train on. null = the usual names; a dataset of one split is split by the
            fractions.
        val_split: Name of the split to validate on. null = the usual names, or else drawn from train.
        test_split: Name of the split to test on. null = the usual names.
        group: Column of what must stay together in a random split (a patient, a video).
        val_fraction: Share of val where there is none.
        test_fraction: Share of test where the dataset has one split.
        class_names: Names in the order of their ids: a list, or a file with one a line. null = those of the dataset.
        num_classes: Number of classes, compared with the data. null = found in the data.
        unknown: Labels that mean none of the classes, in any split (open-set recognition).
        label_map: From labels as they are written to class names: a map, or a file (JSON, YAML, or lines
            ``label,name``). Several labels may have one name.
        ignore_index: Mask value left out of loss and metrics.
        mask_values: ``index``: the value is the class id; ``binary``: 0 and 255; ``threshold``: from 128 on is
            foreground; ``color``: the colour names the class; ``auto``: found in the files.
        colors: Colours of the classes, ``#rrggbb``, in the order of their ids. null = found in the training masks, with
            ``preprocessing.infer_image_num_classes``.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        image: str | None = None,
        inputs: list[str] | None = None,
        target: str | list[str] | None = None,
        separator: str = "|",
        train_split: str | None = None,
        val_split: str | None = None,
        test_split: str | None = None,
        group: str | None = None,
        val_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        test_fraction: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        class_names: str | list[str] | None = None,
        num_classes: Annotated[int | None, Between(2, 65536)] = None,
        unknown: list[str] | None = None,
        label_map: str | dict[str, str] | None = None,
        ignore_index: Annotated[int | None, Between(0, 255)] = None,
        mask_values: Literal["auto", "index", "binary", "threshold", "color"] = "auto",
        colors: list[str] | None = None,
    ) -> None:
        super().__init__(
            path,
            image=image,
            inputs=inputs,
            target=target,
            separator=separator,
            group=group,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            class_names=class_names,
            num_classes=num_classes,
            unknown=unknown,
            label_map=label_map,
            ignore_index=ignore_index,
            mask_values=mask_values,
            colors=colors,
        )
        self.name = name
        self.revision = revision
        self.named_splits = {"train": train_split, "val": val_split, "test": test_split}

    def _open(self) -> Table:
        if not self.path:
            raise ConfigError("data=huggingface needs a folder or a name on the hub", override="data.path=cifar10")
        found = _load(self.path, self.name, self.revision)
        local = os.path.abspath(os.path.expanduser(self.path))
        place = local if os.path.exists(local) else self.path
        return DatasetTable(place, *_parts(found, self.named_splits, place))

    def _split_column(self, table: Table) -> str | None:
        return _SPLIT if _SPLIT in table.header else super()._split_column(table)


class DatasetTable(ArrowTable):
    """Datasets of the same columns, one after another. Unless all is train, a column tells the split of each row.

    Args:
        path: Where they are from, for messages.
        parts: The datasets of train, val and test.
        left_out: Names of the splits that are none of these.
        base: Where images are spooled; None = the user's cache folder.

    Raises:
        DataError: Their columns differ.
    """

    def __init__(self, path: str, parts: Mapping[str, Any], left_out: Sequence[str], base: str | None = None) -> None:
        import pyarrow as pa

        first = next(iter(parts.values()))
        for name, part in parts.items():
            if part.features != first.features:
                raise DataError(
                    f"{path}: the splits have different columns",
                    given=f"{name}: {listed(part.column_names)}; {next(iter(parts))}: {listed(first.column_names)}",
                )
        schema = first.features.arrow_schema
        if list(parts) != ["train"]:
            schema = schema.append(pa.field(_SPLIT, pa.string()))
        items = {key: _of_list(feature) for key, feature in first.features.items()}
        names = {key: list(f.names) for key, f in items.items() if type(f).__name__ == "ClassLabel"}
        super().__init__(path, schema, " ".join(map(_fingerprint, parts.values())), names, base)
        self._parts = dict(parts)
        if left_out:
            self.notes = (f"{path}: splits that are neither train, val nor test are left out: {listed(left_out)}",)

    @property
    def folder(self) -> str:
        """The folder, or where Python runs if the dataset is on the hub: the library itself reads paths so."""
        return self.path if os.path.isdir(self.path) else os.getcwd()

    def batches(self, name: str, rows: int) -> Iterator[Any]:
        """Yield one column in pieces, undecoded; see ``ArrowTable.batches``."""
        import pyarrow as pa

        for split, part in self._parts.items():
            if name == _SPLIT:
                yield pa.array([split] * len(part), pa.string())
                continue
            for batch in part.select_columns([name]).with_format("arrow").iter(rows):
                yield batch.column(0)

    def places(self, rows: Sequence[int], limit: int = 10) -> str:
        """Name rows by their split, and by their position there, from 0 as the library counts."""
        texts, start = [], 1
        for split, part in self._parts.items():
            mine = [row - start for row in rows if start <= row < start + len(part)]
            if mine:
                texts.append(f"{split} {listed(mine, limit)}")
            start += len(part)
        return "row " + "; ".join(texts)


def settings_of_dataset(data: Any, base: str | None) -> dict[str, Any]:
    """Write a table of a Dataset or DatasetDict once; return the settings of ``data=table`` that read it.

    Raises:
        ConfigError: It is a stream, or has no split to train on.
        DataError: A column holds what no table can hold.
    """
    parts = dict(data) if isinstance(data, Mapping) else {"train": data}
    if not parts or not all(hasattr(part, "select_columns") and hasattr(part, "__len__") for part in parts.values()):
        raise ConfigError(
            "data is a dataset without rows to go back to",
            given=type(data).__name__,
            expected="a Dataset or a DatasetDict: load_dataset(..., streaming=False)",
        )
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = DatasetTable(f"the {type(data).__name__}", *_parts(parts, {}, "the dataset"), base)
    columns: dict[str, Any] = {}
    for name in table.header:
        try:
            columns["split" if name == _SPLIT else name] = list(table.columns([name])[0][0])
        except DataError:
            continue  # boxes and the like are neither images nor targets
    names = {name: {"names": found, "_type": "ClassLabel"} for name in columns if (found := table.class_names(name))}
    about = json.dumps({"info": {"features": names}})
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": about}), buffer)
    return {"data.path": write_named(buffer.getvalue().to_pybytes(), "parquet", base), "data.root": os.getcwd()}


def _parts(
    found: Mapping[str, Any], named: Mapping[str, str | None], origin: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Choose the datasets of train, val and test; return them, and the names of those that are left out.

    Raises:
        ConfigError: A named split is not there, or none has a usual name.
    """
    for part, name in named.items():
        if name is not None and name not in found:
            near = nearest(name, found)
            raise ConfigError(
                f"{origin}: data.{part}_split is no split of the dataset",
                given=name,
                expected=listed(found),
                nearest=near,
                override=override(f"data.{part}_split", near or next(iter(found))),
            )
    taken = {name for name in named.values() if name is not None}
    chosen = {part: name for part, name in named.items() if name is not None}
    for name in found:
        number = split_id(name)
        if number is not None and name not in taken:
            chosen.setdefault(SPLITS[number], name)
    if not chosen and len(found) == 1:
        chosen = {"train": next(iter(found))}
    if not chosen:
        raise ConfigError(
            f"{origin}: no split of the dataset has a usual name",
            given=listed(found),
            expected="train, validation, test",
            override=override("data.train_split", next(iter(found))),
        )
    parts: dict[str, Any] = {part: found[chosen[part]] for part in SPLITS if part in chosen}
    return parts, tuple(name for name in found if name not in chosen.values())


def _of_list(feature: Any) -> Any:
    """The feature of the items of a list, as any version of the library has one; any other feature itself."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return (
        getattr(feature, "feature", feature) if type(feature).__name__ in ("Sequence", "List", "LargeList") else feature
    )


def _fingerprint(part: Any) -> str:
    """The library's own fingerprint, and the state of the files: one folder may be written again."""
    files = [os.stat(file["filename"]) for file in part.cache_files]
    return " ".join([part._fingerprint, str(len(part)), *(f"{f.st_size} {f.st_mtime_ns}" for f in files)])


def _load(path: str, name: str | None, revision: str | None) -> Mapping[str, Any]:
    """Load a dataset as one or more splits.

    Raises:
        ConfigError: The library is not installed, there is no such dataset, or it cannot be fetched.
    """
    given = f"data=huggingface {override('data.path', path)}"
    require("datasets", "datasets", needs="Hugging Face datasets need", given=given)
    import datasets

    local = os.path.abspath(os.path.expanduser(path))
    exists = os.path.exists(local)
    if not exists and (path.startswith((".", "~", os.sep)) or path.count("/") > 1):
        wanted = "a folder or a file of a dataset, or a name on the hub"
        raise no_such_path("data.path", path, wanted, os.path.isdir)
    try:
        if is_saved_dataset(local):
            found = datasets.load_from_disk(local)
        elif local.endswith(".arrow") and exists:
            found = datasets.Dataset.from_file(local)
        elif local.endswith(PARQUET_SUFFIXES) and exists:
            found = datasets.load_dataset("parquet", data_files=local)
        else:
            found = datasets.load_dataset(local if exists else path, name, revision=revision)
    except Exception as error:  # the library and what it builds on raise nearly every type
        raise _not_loaded(path, name, exists, error) from error
    return found if isinstance(found, Mapping) else {str(found.split or "train"): found}


def _not_loaded(path: str, name: str | None, exists: bool, error: Exception) -> VisionError:
    given = override("data.path", path) + ("" if name is None else f" {override('data.name', name)}")
    reason = f"{type(error).__name__}: {str(error).strip()[:500]}"
    if exists:
        return DataError(
            f"{path}: the dataset cannot be read: {reason}",
            given=given,
            expected="a folder of save_to_disk, an Arrow or Parquet file, or a folder of such files or of images",
            override=[f"data=folder {override('data.path', path)}"] if os.path.isdir(path) else [],
        )
    if isinstance(error, ValueError) and "onfig" in str(error):
        return ConfigError(
            f"{path}: data.name is no configuration of the dataset, or one must be chosen: {reason}",
            given=given,
            override="data.name=CONFIGURATION",
        )
    return ConfigError(
        f"{path}: no such file or folder, and it cannot be fetched from the hub: {reason}",
        given=given,
        expected="a name on huggingface.co/datasets and a network, or a copy on disk; private ones need hf auth login; "
        "HF_HUB_OFFLINE=1 allows only what was fetched before",
        override="data.path=FOLDER  (written elsewhere by load_dataset(...).save_to_disk(FOLDER))",
    )
