"""Hydra's side of a sweep: the sweeper that conf/config.yaml names."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class TrialSweeper(Sweeper):
    """Runs trials with a leaderboard: every combination, or a search.

    Args:
        max_batch_size: Trials of a batch, for other launchers than Hydra's own; None = all.
        params: What is swept over, by key; typed words override it.
    """

    def __init__(self, max_batch_size: int | None = None, params: dict[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives."""
        from lightning_vision.sweeps.runners import Hydra

        self.hydra = Hydra(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep of these words."""
        from lightning_vision.sweeps.run import sweep

        return sweep(self.hydra, arguments, self.params, self.max_batch_size)
