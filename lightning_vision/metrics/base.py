"""What all scores share: the mean loss, and rows of a pass that are kept until its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric


class Scores(Metric):
    """The mean loss of one pass over a split, and room for stored rows.

    Sums are added and rows are put behind each other over processes, so several processes give the figures of one.
    Stored rows stay on the device that made them: an update neither waits for the device nor copies to the host.
    States keep their types where the model is brought to another one: sums in half precision would not be right.
    """

    full_state_update = False
    loss_sum: Tensor
    loss_weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._no_rows: dict[str, Tensor] = {}
        self.add_sum("loss_sum", (), torch.float64)
        self.add_sum("loss_weight", (), torch.float64)

    def add_sum(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> None:
        """Add a state that starts with zeros and is summed over processes."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def add_rows(self, name: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> None:
        """Add a state of stored rows, each of this shape, that are put behind each other over processes."""
        self._no_rows[name] = torch.empty((0, *shape), dtype=dtype)
        self.add_state(name, [], dist_reduce_fx="cat")

    def rows(self, name: str) -> Tensor:
        """Return all stored rows of a state ``(N, *shape)``."""
        stored = getattr(self, name)
        if isinstance(stored, Tensor):  # after they were gathered from several processes
            return stored
        return torch.cat([self._none(name), *stored])

    def add_loss(self, loss: Tensor | None, weight: Tensor | int) -> None:
        """Add the mean loss of a batch, weighted by what was counted in it.

        The mean over a split then does not depend on how it was cut into batches. A batch with nothing to count has
        loss zero by contract; its weight is zero as well.
        """
        if loss is not None:
            self.loss_sum += loss.detach().double() * weight
            self.loss_weight += weight

    def mean_loss(self) -> Tensor:
        """Return the mean loss; zero where nothing was counted."""
        return self.loss_sum / self.loss_weight.clamp(min=1)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        return super()._apply(lambda state: state.to(fn(state).device), exclude_state)  # type: ignore[return-value]

    def sync(
        self,
        dist_sync_fn: Callable[..., Any] | None = None,
        process_group: Any | None = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """Gather the states of all processes, as torchmetrics does.

        A process without any row takes part with none of the right shape and type; torchmetrics would send a vector of
        floats, and the processes would wait for each other or misread what they get.
        """
        for name in self._no_rows:
            if isinstance(stored := getattr(self, name), list) and not stored:
                stored.append(self._none(name))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

    def _none(self, name: str) -> Tensor:
        return self._no_rows[name].to(self.device)
