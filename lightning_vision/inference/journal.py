"""How far a prediction came, so that an interrupted one goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.inference.growing import GrowingFile
from lightning_vision.overrides import override

JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class State:
    """Where a prediction stands after a batch.

    Args:
        row: Images of the source that are dealt with.
        count: Images among them that were predicted; the others cannot be read.
        sizes: Bytes of every file that grows, by its path below the folder.
    """

    row: int = 0
    count: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)


class Journal:
    """``journal.jsonl``: what is predicted and how, then a line for the state after each batch. It goes at the end.

    A line counts when it is whole, and is written after what it tells of. So a process may be killed at any time.

    Args:
        folder: The folder of the predictions.
        about: All that the predictions depend on, as plain data by dotted names.

    Attributes:
        state: Where the prediction stands.

    Raises:
        ConfigError: The folder holds an interrupted prediction that something else was predicted in, or otherwise.
        DataError: The folder cannot be made or written.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        path = self.folder / JOURNAL
        about = json.loads(json.dumps(about, default=str))
        begun, last, size = _read(path.with_name(f"{JOURNAL}.partial"))
        if begun is not None and last is not None and begun != about:
            raise _changed(self.folder, begun, about)
        self.state = State() if last is None else State(**last)
        self._file = GrowingFile(path, size if last is not None else 0)
        if last is None:
            self._add(about)

    def commit(self, state: State) -> None:
        """Note the state after a batch."""
        self._add(asdict(state))
        self.state = state

    def end(self) -> None:
        """Remove the journal: all is done, or nothing was."""
        self.state = State()
        self._file.abandon(remove=True)

    def leave(self) -> None:
        """Close the journal for the run that goes on; one without any batch is removed."""
        self._file.abandon(remove=not self.state.row)

    def _add(self, line: Mapping[str, Any]) -> None:
        self._file.add(json.dumps(line, ensure_ascii=True).encode() + b"\n")


def _read(path: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None, int]:
    """The first line of a journal, its last whole one of the others, and the bytes of all whole lines."""
    first = last = None
    size = 0
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                first, last = (line, last) if first is None else (first, line)
    return (None if first is None else json.loads(first)), (None if last is None else json.loads(last)), size


def _changed(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> ConfigError:
    """Word what is not as it was when the prediction began."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    said = [f"{n}={now.get(n)}, was {before.get(n)}" if n in _SHOWN or "." in n else f"another {n}" for n in names]
    return ConfigError(
        "The folder holds an interrupted prediction, which can only go on as it began.",
        given=f"{folder}: {listed(said, 5)}",
        expected="the same model, images and settings, another folder, or this one without what is in it",
        override=override("output_dir", f"{folder.parent}-2"),
    )


_SHOWN = ("batch_size", "save", "table", "frame_step", "tile", "overlap", "tta", "image_size")
