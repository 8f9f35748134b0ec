"""Open-set figures against loops over the rows."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score
from torch import Tensor

from lightning_vision.metrics import OpenSetScores
from lightning_vision.metrics.open_set import at_threshold, rejection_threshold

SIZE, CLASSES = 150, 4


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    target = torch.randint(0, CLASSES, (SIZE,), generator=generator)
    logits = torch.randn(SIZE, CLASSES, generator=generator) + 2 * torch.nn.functional.one_hot(target, CLASSES)
    target[torch.rand(SIZE, generator=generator) < 0.3] = -1
    return logits, target


def test_figures_against_loops() -> None:
    logits, target = rows()
    metric = OpenSetScores()
    for part in range(0, SIZE, 40):
        metric.update(logits[part : part + 40], target[part : part + 40], torch.tensor(0.5))
    computed = metric.compute()
    computed |= at_threshold(computed, 0.6)
    found = {name: value.item() for name, value in computed.items() if value.ndim == 0}
    probabilities = logits.double().softmax(1)
    predicted = torch.tensor([max(range(CLASSES), key=lambda c: row[c].item()) for row in probabilities])
    confidence = probabilities.max(1).values
    known = target >= 0
    assert found["loss"] == 0.5
    right = known & (predicted == target)
    assert found["known_accuracy"] == pytest.approx((right.sum() / known.sum()).item())
    assert found["unknown_auroc"] == pytest.approx(roc_auc_score(known, confidence.float()))
    pairs = [(k, u) for k in known.nonzero().flatten() for u in (~known).nonzero().flatten()]
    won = sum(bool(right[k] and confidence[k] > confidence[u]) for k, u in pairs)
    assert found["oscr"] == pytest.approx(won / len(pairs))
    kept = confidence >= 0.6
    assert found["known_kept"] == pytest.approx((kept & known).sum().item() / known.sum().item())
    assert found["unknown_recall"] == pytest.approx((~kept & ~known).sum().item() / (~known).sum().item())
    f1 = f1_score(target.where(known, 99), predicted.where(kept, 99), labels=range(CLASSES), average="macro")
    assert found["open_set_f1"] == pytest.approx(f1)
    torch.testing.assert_close(computed["confidence"], confidence.float())
    for name, value in (("predicted", predicted), ("labels", target), ("known", known)):
        assert torch.equal(computed[name], value)


def test_confidence_may_be_given_and_rows_ignored() -> None:
    metric = OpenSetScores(ignore_index=255)
    metric.update(
        torch.tensor([[1.0, 0], [0, 1], [1, 0]]),
        torch.tensor([0, -1, 255]),
        torch.tensor(1.0),
        confidence=torch.tensor([7.0, 3.0, 99.0]),
    )
    assert metric.compute()["confidence"].tolist() == [7, 3]
    assert metric.loss_weight == 2
    assert metric.compute()["unknown_auroc"] == 1


def test_edges_without_a_warning() -> None:
    wrong = OpenSetScores()
    wrong.update(torch.tensor([[1.0, 0], [1.0, 0]]), torch.tensor([1, -1]))
    assert wrong.compute()["oscr"] == 0
    for target, undefined in ((torch.tensor([-1, -1]), "known_accuracy"), (torch.tensor([0, 1]), "oscr")):
        metric = OpenSetScores()
        metric.update(torch.tensor([[1.0, 0], [1.0, 0]]), target)
        found = metric.compute()
        assert math.isnan(found[undefined])
        assert math.isnan(found["unknown_auroc"])
        assert math.isnan(at_threshold(found, 0.5)["known_kept" if undefined == "known_accuracy" else "unknown_recall"])


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_processes_give_the_figures_of_one(gathered: Callable[..., dict[str, Tensor]]) -> None:
    logits, target = rows()
    whole, first, second, none = (OpenSetScores() for _ in range(4))
    whole.update(logits, target)
    first.update(logits[:31], target[:31])
    second.update(logits[31:], target[31:])
    for ranks in ((first, second), (none, second, first)):
        for name, value in whole.compute().items():
            if value.ndim == 0:
                torch.testing.assert_close(gathered(*ranks)[name], value)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=20))
def test_no_rejection_threshold_parts_better(pairs: list[tuple[int, bool]]) -> None:
    confidence = torch.tensor([float(c) for c, _ in pairs])
    known = torch.tensor([k for _, k in pairs])
    threshold = rejection_threshold(confidence, known)
    if not known.any():
        assert threshold == 0
    elif known.all():
        assert (confidence >= threshold).double().mean() >= 0.95 - 1 / len(pairs)
    else:
        sums = [parted(confidence >= c, known) for c in confidence]
        assert parted(confidence >= threshold, known) == pytest.approx(max(sums))


def parted(kept: Tensor, known: Tensor) -> float:
    return kept[known].double().mean().item() + (~kept)[~known].double().mean().item()
