"""Settings of a trained model that are fitted on stored outputs of the validation split."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_vision.metrics.anomaly import best_f1_threshold
from lightning_vision.types import UNKNOWN

# Temperatures beyond say that the logits separate the classes without error, or say nothing of them.
COLDEST, HOTTEST = 0.01, 100.0
STEPS = 100
LOWEST = -1e6
# No probability is so small that an image of its class would decide alone.
LEAST = 1e-12
# Numbers that are softened at once: 32 MB in float64.
BLOCK = 2**22


def fit_temperature(logits: Tensor, target: Tensor, ignore_index: int | None = None) -> float:
    """Find the temperature T whose ``softmax(logits / T)`` has the least negative log-likelihood (Guo et al. 2017).

    The likelihood is convex in 1 / T, so its slope has one zero, which is found by Newton's method inside a bracket, in
    float64; never worse than T = 1.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)`` class ids or ``ignore_index``.
        ignore_index: Target value that is left out, or None.

    Returns:
        The temperature, in [0.01, 100]; 1 without rows.
    """
    if ignore_index is not None:
        counted = target != ignore_index
        logits, target = logits[counted], target[counted]
    if not len(target):
        return 1.0
    target = target.long()
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    slope, curvature = _derivatives(logits, target, inverse)
    if slope == 0:
        return 1.0
    for end, temperature in ((high, COLDEST), (low, HOTTEST)):
        if _derivatives(logits, target, end)[0] * (end - 1) <= 0:  # still falling at the end of the range
            return temperature
    for _ in range(STEPS):
        if slope > 0:
            high = inverse
        else:
            low = inverse
        step = inverse - slope / curvature if curvature > 0 else 0.0
        following = step if low < step < high else (low * high) ** 0.5
        done = abs(following - inverse) <= 1e-12 * inverse
        inverse = following
        if done:
            break
        slope, curvature = _derivatives(logits, target, inverse)
    better = negative_log_likelihood(logits, target, 1 / inverse) <= negative_log_likelihood(logits, target)
    return 1 / inverse if better else 1.0


def negative_log_likelihood(logits: Tensor, target: Tensor, temperature: float = 1.0) -> float:
    """Mean of ``-log softmax(logits / temperature)`` at the target, in float64.

    Args:
        logits: ``(N, C)``.
        target: ``(N,)`` class ids.
        temperature: Above zero.
    """
    parts = _blocks(logits, target)
    return sum(cross_entropy(z / temperature, y, reduction="sum").item() for z, y in parts) / len(target)


def fit_thresholds(probabilities: Tensor, target: Tensor, default: float = 0.5) -> Tensor:
    """Find the threshold of each label that has the largest F1.

    Args:
        probabilities: ``(N, L)``.
        target: ``(N, L)`` 1 present, 0 absent, 255 unknown: left out.
        default: Threshold of labels that are always or never present.

    Returns:
        float32 ``(L,)``: a label is predicted from its threshold on.
    """
    found = []
    for scores, truth in zip(probabilities.T, target.T, strict=True):
        known = truth != UNKNOWN
        threshold = best_f1_threshold(scores[known], truth[known] == 1)
        found.append(default if threshold is None else threshold)
    return torch.tensor(found, dtype=torch.float32)


def _derivatives(logits: Tensor, target: Tensor, inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed negative log-likelihood by 1 / T."""
    slope = curvature = 0.0
    for z, y in _blocks(logits, target):
        p = (z * inverse).softmax(1)
        centred = z - (p * z).sum(1, keepdim=True)
        slope -= centred.gather(1, y[:, None]).sum().item()
        curvature += (p * centred.square()).sum().item()
    return slope, curvature


def _blocks(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut into blocks of rows in float64, whose largest logit is zero; minus infinity becomes a number like it."""
    rows = max(1, BLOCK // max(1, logits.shape[1]))
    for z, y in zip(logits.split(rows), target.split(rows), strict=True):
        z = z.double()
        yield (z - z.max(1, keepdim=True).values).clamp(min=LOWEST), y
