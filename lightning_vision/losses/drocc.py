"""DROCC: what lies around normal images, but not near them, is anomalous, and the worst of it is searched for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.losses.deep_svdd import NORMAL, mean_over
from lightning_vision.types import Between

EPSILON = 1e-6  # keeps the loss of an adversarial sample with score 0 finite


class DROCCLoss(Loss):
    """DROCC (Goyal et al., ICML 2020) with ``p(normal) = exp(-score)``.

    The paper's objective is cross-entropy on normal samples ``x`` and adversarial ones ``x + h``::

        weight * (mean(-log p(normal | x)) + perturbation_strength * mean(-log(1 - p(normal | x + h))))

    where ``h`` is what looks most normal in the shell ``radius <= ||h||_2 <= gamma * radius``. The probability is that
    of the hypersphere classifier (Ruff et al., 2020, https://arxiv.org/abs/2006.00339): the first term is the mean
    score, as in Deep SVDD, and the second forbids that all images end in the centre. The search starts at random
    directions and takes steps against the gradient of the score, which is the direction of steepest ascent of the
    second term; every step has the same length and ends with a projection to the shell (the authors project after
    every tenth of 50 short steps).

    ``x`` is what the trained part of the model takes: the standardised image, or the embedding of a frozen encoder.
    In eval mode there is no search: the loss is the first term.

    Args:
        num_classes: Number of classes, which is 2.
        class_names: Their names.
        ignore_index: Not needed: only class 0 counts.
        radius: Inner radius of the shell, in units of ``x``; None: half the square root of its number of elements, the
            paper's choice for standardised data.
        gamma: Outer radius by inner radius.
        perturbation_strength: Weight of the adversarial term (mu in the paper).
        num_perturbation_steps: Steps of the search, each a forward and a backward pass; 0: random points.
        step_size: Length of a step, in units of ``x``; None: the inner radius by the number of steps.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("anomaly",)
    needs: ClassVar[tuple[str, ...]] = ("inputs", "score")
    trains_on_anomalies: ClassVar[bool] = False

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        radius: Annotated[float, Between(0, low_open=True)] | None = None,
        gamma: Annotated[float, Between(1)] = 2.0,
        perturbation_strength: Annotated[float, Between(0)] = 1.0,
        num_perturbation_steps: Annotated[int, Between(0)] = 5,
        step_size: Annotated[float, Between(0)] | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.radius = radius
        self.gamma = gamma
        self.perturbation_strength = perturbation_strength
        self.num_perturbation_steps = num_perturbation_steps
        self.step_size = step_size
        self.weight = weight

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        inputs: Tensor | None = None,
        score: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            logits: Scores ``(B,)`` of the inputs.
            target: Class ids ``(B,)``, 0 for normal.
            inputs: ``x``, ``(B, ...)``; only for training.
            score: From such inputs to their scores; only for training.
        """
        normal = target == NORMAL
        clean = mean_over(at_least_float32(logits), normal)
        if not self.training or self.perturbation_strength == 0:
            return self.weight * clean
        assert inputs is not None
        assert score is not None
        found = at_least_float32(score(self.search(inputs.detach(), score)))
        adversarial = mean_over(-torch.log(-torch.expm1(-found - EPSILON)), normal)
        return self.weight * (clean + self.perturbation_strength * adversarial)

    def search(self, inputs: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the most normal looking ``x + h`` that was found; parameters get no gradient."""
        radius = self.radius or 0.5 * inputs[0].numel() ** 0.5
        step = radius / max(1, self.num_perturbation_steps) if self.step_size is None else self.step_size
        h = self._to_shell(torch.randn_like(inputs), radius)
        for _ in range(self.num_perturbation_steps):
            with torch.enable_grad():
                h.requires_grad_()
                (slope,) = torch.autograd.grad(at_least_float32(score(inputs + h)).sum(), h)
            # A slope of 0, which has no direction, leaves the sample where it is.
            h = self._to_shell(h.detach() - step * slope / _norm(slope), radius)
        return inputs + h

    def _to_shell(self, h: Tensor, radius: float) -> Tensor:
        """Project to the nearest point of the shell."""
        norm = _norm(h)
        return h * (norm.clamp(radius, self.gamma * radius) / norm)


def _norm(x: Tensor) -> Tensor:
    """Length of each sample, ``(B, 1, ...)``, never 0."""
    return x.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (x.ndim - 1))
