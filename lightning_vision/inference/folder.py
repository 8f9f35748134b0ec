"""The folder of predictions: what is written about each image, what cannot be read, and how far it came."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from lightning_vision.errors import ConfigError, DataError
from lightning_vision.head import Head
from lightning_vision.inference.growing import GrowingArray, GrowingFile
from lightning_vision.inference.journal import Journal, State
from lightning_vision.inference.output import Output
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.table_file import TableFile
from lightning_vision.inference.writers import TABLE, Writer
from lightning_vision.overrides import override

UNREADABLE, EMBEDDINGS, PROBABILITIES = "unreadable.csv", "embeddings.npy", "probabilities.npy"


class PredictionFolder:
    """Writes predictions into a folder, and goes on where an interrupted prediction stopped.

    Several outputs have a folder each. After each batch the journal notes how far all files have grown; a prediction
    that goes on cuts them back to that. Use it as a context manager: files have their final names when the block ends
    without an error.

    Args:
        folder: Where to; it is made.
        heads: The outputs of the model, by name.
        root: The folder that the images lie in, if it is one.
        output: What is written beside the tables, and their format.
        about: All that the predictions depend on, as plain data.

    Attributes:
        before: Where an earlier run stopped.
        count: Images that are predicted, those of earlier runs among them.
        unreadable: Images that cannot be read.

    Raises:
        ConfigError: The folder holds an interrupted prediction of something else, or a finished one.
        DataError: The folder cannot be made or written, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        heads: Sequence[tuple[str, Head]],
        root: Path | None,
        output: Output,
        about: Mapping[str, Any],
    ) -> None:
        self.folder = Path(folder)
        asked = {"save": None if output.save is None else list(output.save), "table": output.table}
        self.journal = Journal(self.folder, {**about, **asked})
        self.before = self.journal.state
        self.count, self._row = self.before.count, self.before.row
        sizes = {self.folder / name: size for name, size in self.before.sizes.items()}
        output = Output(output.save, output.table, sizes, self.before.count)
        with ExitStack() as stack:
            stack.callback(self.journal.leave)
            if not self.before.row:
                _refuse_finished(self.folder, [name for name, _ in heads])
            self.writers: dict[str, Writer] = {}
            # Arrays that are written on request, a row an image, and what goes into them.
            self._arrays: list[tuple[GrowingArray, Callable[[Prediction], NDArray[Any] | None]]] = []

            def grow(path: Path, value: Callable[[Prediction], NDArray[Any] | None]) -> None:
                array = GrowingArray(path, output.kept(path), output.count)
                stack.callback(array.abandon)
                self._arrays.append((array, value))

            for name, head in heads:
                place = self.folder if len(heads) == 1 else self.folder / name
                self.writers[name] = stack.enter_context(head.task.writer(place, root, output))
                if output.saves("probabilities") and "probabilities" in head.task.saves and head.task.output != "mask":
                    grow(place / PROBABILITIES, partial(_probabilities, name))
            # The array of a model that compares images is its task's own.
            if output.saves("embeddings") and not (len(heads) == 1 and "embeddings" in heads[0][1].task.saves):
                grow(self.folder / EMBEDDINGS, lambda prediction: prediction.embedding)
            path = self.folder / UNREADABLE
            self._bad = TableFile(path, lambda: {"path": str, "reason": str}, Output(sizes=sizes))
            stack.callback(self._bad.abandon)
            self._stack = stack.pop_all()
        self.unreadable = sum(1 for _ in self._bad_rows()) if self._bad.started else 0

    @property
    def files(self) -> list[GrowingFile]:
        """All files that grow."""
        own = [array.file for array, _ in self._arrays]
        return [self._bad.file, *own, *(file for writer in self.writers.values() for file in writer.files)]

    def receive(self, prediction: Prediction) -> None:
        """Write a prediction."""
        for name, writer in self.writers.items():
            writer.add(prediction.outputs.get(name, prediction))
        for array, value in self._arrays:
            found = value(prediction)
            assert found is not None
            array.add(found, prediction.path)
        self.count += 1

    def left_out(self, path: str, reason: str) -> None:
        """Note an image that cannot be read."""
        self._bad.add([path, reason])
        self.unreadable += 1

    def reached(self, row: int) -> None:
        """Note that all images before this one are dealt with."""
        self._row = row
        sizes = {file.path.relative_to(self.folder).as_posix(): file.size for file in self.files}
        self.journal.commit(State(row, self.count, sizes))

    def discard(self) -> None:
        """Leave nothing behind: no image was predicted."""
        for file in self.files:
            file.abandon(remove=True)
        self.journal.end()

    def first_unreadable(self, count: int) -> list[tuple[str, str]]:
        """Path and reason of some images that cannot be read."""
        return [(path, reason) for path, reason in islice(self._bad_rows(), count)]

    def _bad_rows(self) -> Iterator[list[str]]:
        path = self._bad.path if self._bad.file.closed else self._bad.file.partial
        if path.is_file():
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = csv.reader(file)
                next(rows, None)
                yield from rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._finish()
            except DataError as failed:
                self._abandon(failed)
                raise
        else:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Leave all files for a run that goes on."""
        try:
            self._stack.__exit__(type(error), error, error.__traceback__)
        except DataError as second:
            error.add_note(str(second))

    def _finish(self) -> None:
        """Give all files their final names."""
        for writer in self.writers.values():
            writer.close()
        for array, _ in self._arrays:
            array.close()
        if self.unreadable:
            self._bad.close()
        else:
            self._bad.abandon()
        self.journal.end()
        self._stack.close()  # what the tables were made of goes last: without it nothing could go on


def _refuse_finished(folder: Path, names: Sequence[str]) -> None:
    """Refuse to write among the files of another prediction: what both have would be of the second, the rest not."""
    places = [folder, *(folder / name for name in names)]
    found = [(place / TABLE).with_suffix(kind) for place in places for kind in (".csv", ".parquet")]
    there = next((file for file in found if file.is_file()), None)
    if there is not None:
        raise ConfigError(
            "The folder holds a finished prediction, whose files would be mixed with new ones.",
            given=there,
            expected="a new folder",
            override=override("output_dir", f"{folder.parent}-2"),
        )


def _probabilities(output: str, prediction: Prediction) -> NDArray[Any] | None:
    return prediction.outputs.get(output, prediction).probabilities
