"""What a prediction writes beside its table, in which format, and what of it is there already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Output:
    """What is written about images, and what an interrupted prediction left behind.

    Args:
        save: ``probabilities``, ``embeddings``, ``overlays``; None = what the task writes by default.
        table: The format of the finished table.
        sizes: Bytes of each partial file that are kept, by the file's final path; all others begin anew.
        count: Images that they hold.
    """

    save: tuple[str, ...] | None = None
    table: Literal["csv", "parquet"] = "csv"
    sizes: Mapping[Path, int] = field(default_factory=dict)
    count: int = 0

    def saves(self, what: str, default: bool = False) -> bool:
        """Whether it is written."""
        return default if self.save is None else what in self.save

    def kept(self, path: Path) -> int:
        """Bytes of this file that are kept."""
        return self.sizes.get(path, 0)


PLAIN = Output()
