"""Nearest neighbours against scikit-learn and a loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from lightning_vision.metrics import NeighbourAccuracy, neighbours
from lightning_vision.metrics.neighbours import neighbour_accuracy


def rows(size: int = 80, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, classes, (size,), generator=generator) * 7
    centres = torch.randn(29, 6, generator=generator)
    return centres[target] + torch.randn(size, 6, generator=generator) * 1.5, target


def scored(vectors: Tensor, target: Tensor, **settings: int) -> NeighbourAccuracy:
    metric = NeighbourAccuracy(**settings)
    for part in range(0, len(target), 23):
        metric.update(vectors[part : part + 23], target[part : part + 23], torch.tensor(3.0))
    return metric


@pytest.mark.parametrize("k", [1, 5])
def test_against_scikit_learn_and_in_blocks(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, target = rows()
    reference = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: 1 - distance / 2, algorithm="brute")
    expected = cross_val_score(reference, vectors.double().numpy(), target.numpy(), cv=LeaveOneOut()).mean()
    assert 0.3 < expected < 0.95
    for block in (1024, 7):
        monkeypatch.setattr(neighbours, "BLOCK", block)
        found = scored(vectors, target, k=k).compute()
        assert found["neighbour_accuracy"].item() == pytest.approx(expected)
        assert found["loss"] == 3


def test_votes_by_hand() -> None:
    # The one near neighbour is outvoted by two at a right angle; they lose against it when they lie opposite.
    near, right, opposite = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    vectors = torch.tensor([near, near, right, right])
    assert neighbour_accuracy(vectors, torch.tensor([0, 0, 1, 1]), 3).item() == 1.0
    assert neighbour_accuracy(vectors, torch.tensor([1, 0, 1, 1]), 3).item() == 0.5
    vectors = torch.tensor([near, near, opposite, opposite])
    assert neighbour_accuracy(vectors, torch.tensor([0, 0, 1, 1]), 3).item() == 1.0


def test_too_few_rows() -> None:
    assert scored(*rows(1)).compute()["neighbour_accuracy"].isnan()
    vectors = torch.tensor([[1.0, 0], [1.0, 0.1]])
    assert scored(vectors, torch.tensor([4, 4])).compute()["neighbour_accuracy"] == 1


def test_a_bounded_even_sample_of_a_longer_pass() -> None:
    vectors, target = rows(500)
    metric = scored(vectors, target, max_rows=100)
    assert torch.equal(metric.rows("truth"), target[::8])
    taken = torch.nn.functional.normalize(vectors, dim=1)[::8]
    torch.testing.assert_close(metric.rows("vectors").view(-1, 6), taken)
    metric.reset()
    metric.update(vectors[:10], target[:10])
    assert len(metric.rows("truth")) == 10


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_processes_give_the_figure_of_one(gathered: Callable[..., dict[str, Tensor]]) -> None:
    vectors, target = rows()
    first, second = scored(vectors[:30], target[:30]), scored(vectors[30:], target[30:])
    whole = scored(vectors, target).compute()
    for ranks in ((first, second), (NeighbourAccuracy(), second, first)):
        assert gathered(*ranks) == whole
    assert gathered(NeighbourAccuracy(), NeighbourAccuracy())["neighbour_accuracy"].isnan()
