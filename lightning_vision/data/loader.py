"""Batches for Lightning: decoded by threads of this process, in an order that seed and epoch decide, resumable.

What Lightning needs of a loader that is no ``DataLoader``, read in lightning 2.6.6: ``set_epoch`` is called on
``loader.sampler`` before the first batch of an epoch, but after ``iter(loader)`` in the first one, so ``__iter__`` is a
generator, which begins with the first batch. With a known length nothing is fetched ahead, and the last batch is never
asked for its successor: the generator is closed when the next epoch begins, or by ``Trainer.teardown``.
``state_dict`` goes into every checkpoint under ``loops``, and comes back before the first batch of a resumed epoch.
"""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_vision.data.modes import Failure, Mode, Wait
from lightning_vision.data.order import FixedOrder, ShuffledOrder
from lightning_vision.data.ranks import rank_and_world
from lightning_vision.errors import DataError
from lightning_vision.types import UNKNOWN, Batch

THREAD_PREFIX = "lv-decode"


class Loader:
    """Batches of some rows of an index, for this rank.

    Args:
        mode: Where samples come from; its ``rows`` are loaded.
        batch_size: Samples in a batch of this rank.
        train: Every rank gets the same number of rows: the first few are repeated at the end, at most world - 1,
            counted in ``repeats_added``. A last batch of one is merged into the one before (BatchNorm cannot use it).
            Otherwise each row is seen once over all ranks, and a rank that has none left gets empty batches.
        shuffle: A new order every epoch.
        seed: Of the order, at least 0.
        repeats: How often each drawn row stands behind itself in the order. Ranks take turns, so the repeats of a row
            are spread over them.
        items: Rows of an epoch over all ranks, repeats counted; None = the number of rows. The next epoch goes on
            where this one ends; see ``ShuffledOrder``.
        prefetch: Batches decoded ahead; None = what suits the mode.
        threads: Threads that decode.
        on_bad_image: ``error`` raises the DataError of an image that cannot be decoded; ``skip`` leaves the row out of
            its batch, ``blank`` keeps it with a black image (which the mode put there); both add it to ``bad``.
        pin_memory: Allocate pinned memory, for copies to a CUDA device.
    """

    batch_sampler = None

    def __init__(
        self,
        mode: Mode,
        batch_size: int,
        *,
        train: bool = False,
        shuffle: bool = False,
        seed: int = 0,
        repeats: int = 1,
        items: int | None = None,
        prefetch: int | None = None,
        threads: int = 1,
        on_bad_image: Literal["error", "skip", "blank"] = "error",
        pin_memory: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.mode = mode
        self.batch_size = batch_size
        self.train = train
        n = len(mode.rows)
        self.sampler = ShuffledOrder(n, seed, repeats, items) if shuffle else FixedOrder(n, repeats, items)
        self.seed = seed
        self.prefetch = mode.prefetch if prefetch is None else prefetch
        self.threads = threads
        self.on_bad_image = on_bad_image
        self.pin_memory = pin_memory
        self._bad: dict[str, str] = {}
        self._position = (0, 0)  # epoch, batches handed out
        self._resume: tuple[int, int] | None = None
        self._pools: weakref.WeakSet[ThreadPoolExecutor] = weakref.WeakSet()

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Path and reason of every image that was skipped or blanked, each once, in the order of their discovery."""
        return list(self._bad.items())

    def take_bad(self) -> list[tuple[str, str]]:
        """Return ``bad``, and forget it: what millions of files left behind would not stay in memory."""
        found = self.bad
        self._bad.clear()
        return found

    @property
    def repeats_added(self) -> int:
        """Rows that some rank sees once more in an epoch, so that all ranks have the same number of steps."""
        world = rank_and_world()[1]
        return -len(self.sampler) % world if self.train else 0

    def __len__(self) -> int:
        return len(self._bounds(rank_and_world()[1]))

    def __iter__(self) -> Iterator[Batch]:
        rank, world = rank_and_world()
        epoch = self.sampler.epoch
        # A state of another epoch is that of an epoch that ended early, and this is the next.
        start = self._resume[1] if self._resume is not None and self._resume[0] == epoch else 0
        self._resume, self._position = None, (epoch, start)
        rows, bounds = self._shard(rank, world), self._bounds(world)
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix=THREAD_PREFIX)
        self._pools.add(pool)
        ahead: deque[tuple[npt.NDArray[np.int64], Batch, Wait]] = deque()
        submitted = start
        try:
            for step in range(start, len(bounds)):
                while submitted < len(bounds) and len(ahead) <= self.prefetch:
                    ahead.append(self._start(rows[slice(*bounds[submitted])], pool))
                    submitted += 1
                batch = self._finish(*ahead.popleft())
                if step == len(bounds) - 1:
                    # Lightning does not ask for more, and would leave idle threads behind until the next epoch.
                    pool.shutdown()
                self._position = (epoch, step + 1)
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def load(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Load these rows of the index as one batch, outside of any epoch."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix=THREAD_PREFIX) as pool:
            return self._finish(*self._start(rows, pool))

    def close(self) -> None:
        """Stop the threads of epochs that were left in the middle."""
        for pool in list(self._pools):
            pool.shutdown(wait=True, cancel_futures=True)

    def state_dict(self) -> dict[str, int]:
        """Where the epoch stands, plain integers. After the last batch it is the start of the next epoch."""
        epoch, batches = self._position if self._resume is None else self._resume
        if batches >= len(self):
            epoch, batches = epoch + 1, 0
        return {"epoch": epoch, "batches": batches, **self._signature()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue there: the next iteration begins with the batch that follows."""
        epoch, batches = int(state_dict["epoch"]), int(state_dict["batches"])
        signature = self._signature()
        # Older states know neither: an epoch was once every row.
        state_dict = {"repeats": 1, "items": state_dict.get("rows"), **state_dict}
        changed = [name for name in signature if state_dict.get(name) != signature[name]]
        if changed and batches:
            before = ", ".join(f"{name} {state_dict.get(name)} -> {signature[name]}" for name in changed)
            warnings.warn(f"the rest of epoch {epoch} is drawn anew, because its batches are others now: {before}")
            batches = 0
        self.sampler.set_epoch(epoch)
        self._resume = (epoch, batches)

    def _signature(self) -> dict[str, int]:
        """What the order of the batches follows from, beside the epoch."""
        world = rank_and_world()[1]
        return {
            "rows": len(self.mode.rows),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "world": world,
            "repeats": self.sampler.repeats,
            "items": self.sampler.items,
        }

    def _shard(self, rank: int, world: int) -> npt.NDArray[np.int64]:
        """The rows of this rank, in the order of the epoch."""
        order = self.sampler.order()
        if self.train:
            order = np.resize(order, -(-len(order) // world) * world)
        return self.mode.rows[order[rank::world]]

    def _bounds(self, world: int) -> list[tuple[int, int]]:
        """First and last + 1 of every batch, the same on every rank: those of the rank with the most rows."""
        most, size = -(-len(self.sampler) // world), self.batch_size
        bounds = [(i, min(i + size, most)) for i in range(0, most, size)]
        if self.train and size > 1 and len(bounds) > 1 and most % size == 1:
            bounds[-2:] = [(bounds[-2][0], most)]
        return bounds

    def _start(
        self, rows: npt.NDArray[np.int64], pool: ThreadPoolExecutor
    ) -> tuple[npt.NDArray[np.int64], Batch, Wait]:
        samples, wait = self.mode.start(rows, pool, self.pin_memory)
        samples["index"] = torch.from_numpy(rows)
        index = self.mode.decoder.index
        if index.labels is not None:
            samples["target"] = torch.from_numpy(index.labels.rows(rows))
        elif index.label is not None and self.mode.decoder.mask_shape is None:
            samples["target"] = torch.from_numpy(index.label[rows].astype(np.int64))
        if index.further_targets:
            targets = index.further_targets.items()
            samples["targets"] = {name: torch.from_numpy(target.values(rows)) for name, target in targets}
        return rows, cast(Batch, samples), wait

    def _finish(self, rows: npt.NDArray[np.int64], batch: Batch, wait: Wait) -> Batch:
        failures = wait()
        return batch if not failures else self._without(rows, batch, failures)

    def _without(self, rows: npt.NDArray[np.int64], batch: Batch, failures: list[Failure]) -> Batch:
        if self.on_bad_image == "error":
            raise failures[0].refused()
        for failure in failures:
            path = self.mode.decoder.index.image_path(int(rows[failure.position]))
            self._bad.setdefault(path, failure.reason(path))
        if self.on_bad_image == "blank":
            self._unlabel(batch, failures)
            return batch
        failed = {failure.position for failure in failures}
        good = torch.tensor([i for i in range(len(rows)) if i not in failed], dtype=torch.int64)
        if self.train and not len(good):
            # A step without samples has no gradient, and a step less would make the other ranks wait for good.
            raise DataError(
                f"no image of a training batch can be decoded, {len(rows)} of {len(rows)}", given=str(failures[0].error)
            )
        return cast(Batch, {key: _taken(value, good) for key, value in batch.items()})

    def leave_out(self, row: int, error: DataError) -> None:
        """Count a row among the bad ones whose image turned out unreadable only when it was used.

        Raises:
            DataError: With ``on_bad_image=error``.
        """
        failure = Failure(0, error)
        if self.on_bad_image == "error":
            raise failure.refused()
        path = self.mode.decoder.index.image_path(row)
        self._bad.setdefault(path, failure.reason(path))

    def _unlabel(self, batch: Batch, failures: list[Failure]) -> None:
        """Put what does not count in place of the further targets of black images."""
        for name, target in self.mode.decoder.index.further_targets.items():
            ignored = UNKNOWN if target.labels is not None else target.target.ignore_index
            assert ignored is not None  # see Preprocessing.require_unlabelled
            batch["targets"][name][[failure.position for failure in failures]] = ignored


def _taken(value: Any, good: Tensor) -> Any:
    """Samples of one tensor, of each map of a pyramid, or of each further target."""
    if isinstance(value, dict):
        return {name: _taken(part, good) for name, part in value.items()}
    return [_taken(part, good) for part in value] if isinstance(value, list) else value.index_select(0, good)
