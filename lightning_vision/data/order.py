"""The order in which a loader goes through its rows: a function of seed and epoch, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler, SequentialSampler

Positions = npt.NDArray[np.int64]


class ShuffledOrder(Sampler[int]):
    """Permutation after permutation of n rows, each row so many times behind itself, cut into epochs.

    All epochs are one sequence: where one ends, in the middle of a permutation or of the repeats of a row, the next
    goes on. So each row is seen equally often, whatever the length of an epoch. Repeated augmentation: Hoffer et al.
    2020, https://arxiv.org/abs/1901.09335. timm's ``RepeatAugSampler`` and mmpretrain's draw a new permutation for each
    epoch instead and leave its rest out, so that chance decides which rows are seen.

    Args:
        n: Number of rows.
        seed: Of the permutations, at least 0.
        repeats: How often each drawn row stands behind itself.
        items: Length of an epoch, repeats counted; None = n.
    """

    def __init__(self, n: int, seed: int, repeats: int = 1, items: int | None = None) -> None:
        self.n, self.seed, self.repeats, self.epoch = n, seed, repeats, 0
        self.items = n if items is None else items

    def __len__(self) -> int:
        return self.items

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it."""
        self.epoch = epoch

    def order(self) -> Positions:
        """The positions of this epoch, int64 ``(items,)``."""
        first = self.epoch * self.items
        draws = np.arange(first, first + self.items) // self.repeats
        turns, places = np.divmod(draws, max(1, self.n))
        found = np.empty(self.items, np.int64)
        for turn in np.unique(turns).tolist():
            here = turns == turn
            found[here] = np.random.default_rng((self.seed, turn)).permutation(self.n)[places[here]]
        return found


class FixedOrder(SequentialSampler):
    """The order of the rows, the same in every epoch; the arguments are those of ``ShuffledOrder``."""

    def __init__(self, n: int, repeats: int = 1, items: int | None = None) -> None:
        self.n, self.repeats, self.epoch = n, repeats, 0
        self.items = n if items is None else items
        super().__init__(range(self.items))

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())

    def set_epoch(self, epoch: int) -> None:
        """Remember the epoch, for the state."""
        self.epoch = epoch

    def order(self) -> Positions:
        """The positions of every epoch, int64 ``(items,)``."""
        return np.arange(self.items) // self.repeats % max(1, self.n)
