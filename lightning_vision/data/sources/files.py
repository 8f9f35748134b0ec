"""Images to predict: a file, a folder, a pattern, or a table."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import numpy as np

from lightning_vision.data.headers import is_image_name
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.base import (
    DEFAULTS,
    NO_FURTHER,
    FurtherColumns,
    RawSamples,
    Source,
    TargetSettings,
    build_index,
    no_further,
)
from lightning_vision.data.sources.natural import natural_key
from lightning_vision.data.sources.problems import Problems
from lightning_vision.data.sources.table import TableSource
from lightning_vision.data.sources.tabular import TABLE_SUFFIXES
from lightning_vision.errors import ConfigError, DataError, listed, nearest
from lightning_vision.types import TargetKind


class FilesSource(Source):
    """Images without targets, all in the split ``test``.

    Numbers in the names of a folder or pattern count by their value: ``frame_2`` comes before ``frame_10``. The images
    of a folder come before those of its sub-folders.

    Args:
        path: A list of images; or one image; a folder, searched to any depth; a pattern such as
            ``photos/**/*.jpg``; or a table with a column of images, whose targets are read too where they are wanted.
        inputs: Columns of images in a table, where each sample has several.
    """

    def __init__(self, path: str | Sequence[str | os.PathLike[str]], inputs: list[str] | None = None) -> None:
        self.path = path
        self.inputs = inputs

    def read(
        self,
        wanted: TargetKind | None = None,
        seed: int = 0,
        strict: bool = True,
        preprocessing: Preprocessing = DEFAULTS,
        coverage: bool = True,
        further: FurtherColumns = NO_FURTHER,
    ) -> SampleIndex:
        """List the images; see ``Source.read``. What is wanted has a meaning for tables only."""
        if not self.path:
            raise ConfigError("no images to predict", override="source=FOLDER_OR_FILE")
        is_table = isinstance(self.path, str) and self.path.lower().endswith(TABLE_SUFFIXES)
        if self.inputs is not None and not is_table:
            raise ConfigError(
                f"the model takes {len(self.inputs)} images a sample, so they come as the columns of a table",
                given=f"source={self.path}",
                expected=f"a CSV, TSV or Parquet file with the columns {listed(self.inputs)}",
                override="source=TABLE.csv",
            )
        if not isinstance(self.path, str):
            no_further(further, "a list of images")
            found = [os.path.abspath(os.path.expanduser(os.fspath(path))) for path in self.path]
            return self._index(found, f"{len(found)} images", Problems(strict), preprocessing)
        given = os.path.abspath(os.path.expanduser(self.path))
        if os.path.isfile(given) and given.lower().endswith(TABLE_SUFFIXES):
            table = TableSource(given, inputs=self.inputs)
            return table.read(wanted, seed, strict, preprocessing, coverage, further).as_split("test")
        no_further(further, given)
        problems = Problems(strict)
        ignored: list[str] = []
        found = self._find(given, ignored)
        if not found:
            raise DataError(f"{given}: no images", given=listed(ignored, 5) if ignored else "an empty folder")
        if ignored:
            problems.note(f"{len(ignored)} files that are no images are left out: {listed(ignored, 5)}")
        return self._index(found, given, problems, preprocessing)

    @staticmethod
    def _index(found: Sequence[str], origin: str, problems: Problems, preprocessing: Preprocessing) -> SampleIndex:
        paths = PackedStrings.from_strings(found)
        split = np.full(len(found), 2, np.uint8)
        raw = RawSamples(paths, paths, mask=None, labels=None, split=split, row=None, origin=origin, folder="")
        return build_index(raw, TargetSettings(None, None, None, "auto", 0.0, 0.0), 0, problems, preprocessing)

    @staticmethod
    def _find(given: str, ignored: list[str]) -> list[str]:
        if os.path.isfile(given):
            return [given]  # whatever its name: reading it tells whether it is an image
        if os.path.isdir(given):
            found: list[str] = []
            for folder, folders, files in os.walk(given, followlinks=True):
                folders[:] = sorted(
                    (name for name in folders if not name.startswith((".", "__MACOSX"))), key=natural_key
                )
                for name in sorted(files, key=natural_key):
                    (found if is_image_name(name) else ignored).append(os.path.join(folder, name))
            return found
        if glob.has_magic(given):
            matches = sorted((p for p in glob.iglob(given, recursive=True) if os.path.isfile(p)), key=natural_key)
            ignored += [path for path in matches if not is_image_name(os.path.basename(path))]
            found = [path for path in matches if is_image_name(os.path.basename(path))]
            if not found and not ignored:
                raise ConfigError("the pattern fits no file", given=given, override="source=FOLDER")
            return found
        folder, name = os.path.split(given)
        near = nearest(name, os.listdir(folder)) if os.path.isdir(folder) else None
        raise ConfigError(
            f"{given} does not exist",
            expected="an image, a folder, a pattern or a table",
            nearest=os.path.join(folder, near) if near else None,
        )
