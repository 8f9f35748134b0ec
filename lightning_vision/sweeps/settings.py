"""The settings of a sweep: conf/sweep/default.yaml says what each means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lightning_vision.types import Between


@dataclass(frozen=True)
class SweepSettings:
    """How the trials of a sweep are found and run.

    Args:
        jobs: Trials at a time. Two and more run in processes of their own, which share cores and GPUs.
        processes: Each trial in a process of its own, also one at a time.
        trials: Trials of a search over ranges with Optuna, resumed ones counted; None = every combination.
        sampler: How the search chooses: ``tpe``, ``random`` or ``grid``.
        seed: Of the sampler.
        storage: SQLite file, or URL, that the search is kept in; None = ``study.db`` in the sweep's folder.
        resume: Folder of a sweep to go on with: its words hold, finished trials are kept.
    """

    jobs: Annotated[int, Between(1)] = 1
    processes: bool = False
    trials: Annotated[int, Between(1)] | None = None
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: Annotated[int, Between(0, 4294967295)] = 0
    storage: str | None = None
    resume: str | None = None

    @property
    def apart(self) -> bool:
        """Whether trials have processes of their own."""
        return self.processes or self.jobs > 1
