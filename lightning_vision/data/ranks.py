"""Which of several processes this one is."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

Item = TypeVar("Item")


def rank_and_world() -> tuple[int, int]:
    """Return the number of this process, from 0, and of all: 0 and 1 where there is but one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def gathered(items: list[Item]) -> list[Item]:
    """Return the items of all processes, rank by rank. All of them have to call it."""
    _, world = rank_and_world()
    if world == 1:
        return items
    parts: list[list[Item]] = [[] for _ in range(world)]
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def gathered_by_first(items: list[Item]) -> list[Item]:
    """Return the items of all processes, rank by rank, to the first one and none to the others; all have to call it."""
    rank, world = rank_and_world()
    if world == 1:
        return items
    parts: list[list[Item]] | None = [[] for _ in range(world)] if rank == 0 else None
    distributed.gather_object(items, parts)
    return [item for part in parts or () for item in part]
