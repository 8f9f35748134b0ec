"""Several processes without starting any."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torchmetrics import Metric


def _gathered(*ranks: Metric) -> Any:
    """What the first of several processes computes, each with one of these metrics, as torchmetrics gathers states."""

    def as_rank(metric: Metric, gather: Callable[..., list[Tensor]]) -> Metric:
        metric = copy.deepcopy(metric)
        metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
        return metric

    sent: list[list[Tensor]] = []
    for rank in ranks:
        sent.append([])

        def record(state: Tensor, group: Any = None, log: list[Tensor] = sent[-1]) -> list[Tensor]:
            log.append(state)
            return [state]

        as_rank(rank, record).sync(record, distributed_available=lambda: True)
    for states in zip(*sent, strict=True):
        # What torch.distributed.all_gather asks for, and torchmetrics' padding.
        assert len({(state.dtype, state.ndim) for state in states}) == 1
        assert len({state.shape[1:] for state in states}) == 1
    turns = iter(zip(*sent, strict=True))
    return as_rank(ranks[0], lambda state, group=None: list(next(turns))).compute()


@pytest.fixture
def gathered() -> Callable[..., Any]:
    return _gathered
