"""Entmax-1.5: between softmax and sparsemax, with probabilities that can be exactly 0."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.losses.base import Loss, at_least_float32
from lightning_vision.types import Between


def entmax15(logits: Tensor, dim: int = 1) -> Tensor:
    """Return the 1.5-entmax of logits (Peters, Niculae and Martins, ACL 2019, Algorithm 2), differentiable.

    ``p_k = max(0, z_k / 2 - tau) ** 2`` with the ``tau`` for which they sum to 1, found exactly by sorting.

    Args:
        logits: Floating point of at least 32 bits, any shape.
        dim: The classes.

    Returns:
        Probabilities, same shape. A class that is 2 or more below the largest logit has exactly 0.
    """
    z = (logits - logits.amax(dim, keepdim=True)) / 2
    # The largest is 0 and its probability tau ** 2 is at most 1, so what is below -1 gets none, however far below: cut
    # off there, nothing loses digits, and -inf is a number.
    z = z.clamp(min=-1)
    with torch.no_grad():
        ordered = z.sort(dim, descending=True).values
        shape = [-1 if i == dim % z.ndim else 1 for i in range(z.ndim)]
        count = torch.arange(1, z.shape[dim] + 1, device=z.device, dtype=z.dtype).view(shape)
        mean = ordered.cumsum(dim) / count
        spread = ordered.square().cumsum(dim) - count * mean.square()
        tau = mean - ((1 - spread) / count).clamp(min=0).sqrt()
        # At least one, so that NaN gives NaN and no index out of range.
        size = ((tau <= ordered) & (ordered > -1)).sum(dim, keepdim=True).clamp(min=1)
        support = (z >= ordered.gather(dim, size - 1)).to(z.dtype)
    # Once more, for the gradient, and because the differences of sums above lose digits where many classes share.
    count = support.sum(dim, keepdim=True)
    mean = (z * support).sum(dim, keepdim=True) / count
    spread = ((z - mean).square() * support).sum(dim, keepdim=True)
    # The root is the mean of sqrt(p) over the support, and so at least 1 / count.
    tau = (mean - ((1 - spread) / count).sqrt()).clamp(min=-1)
    return (z - tau).clamp(min=0).square()


class Entmax15Loss(Loss):
    """Fenchel-Young loss of 1.5-entmax (Peters, Niculae and Martins, ACL 2019), averaged over samples or pixels.

    With ``p = entmax15(z)`` of the logits ``z`` and ``e_y`` the one-hot truth::

        loss = weight * mean(sum_k (p_k - e_yk) z_k + (1 - sum_k p_k ** 1.5) / 0.75)

    whose gradient to ``z`` is ``p - e_y``. It is 0 as soon as the true class is 2 above every other. Predictions take
    entmax too, so that most classes have a probability of exactly 0. Of mixed images ``e_y`` is the probability of
    every class, ``q``, and ``(1 - sum_k q_k ** 1.5) / 0.75`` is taken off, so that the loss is 0 at ``p = q``.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        weight: Factor of the whole loss.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")
    soft_targets: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits ``(B, C)`` or ``(B, C, H, W)`` and class ids ``(B,)`` or ``(B, H, W)``.

        The target may also be probabilities in the shape of the logits, all 0 where ignored.
        """
        z = at_least_float32(logits)
        # p - e_y sums to 0, so a shift changes nothing but the digits that large logits would cost.
        z = z - z.detach().amax(1, keepdim=True)
        # p is where the expression has its maximum: held fixed, the gradient is p - e_y.
        p = entmax15(z.detach())
        if target.is_floating_point():
            q = target.to(z.dtype)
            counted = q.amax(1) > 0
            truth = (q * z).sum(1) + (1 - q.pow(1.5).sum(1)) / 0.75
        else:
            target = target.long()
            ignore = self.ignore_index
            counted = torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore
            truth = z.gather(1, target.where(counted, 0).unsqueeze(1)).squeeze(1)
        loss = (p * z).sum(1) - truth + (1 - p.pow(1.5).sum(1)) / 0.75
        return self.weight * loss.where(counted, 0.0).sum() / counted.sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the 1.5-entmax of logits ``(B, C)`` or ``(B, C, H, W)``, same shape and type."""
        return entmax15(at_least_float32(logits)).to(logits.dtype)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return logits of this 1.5-entmax, ``max(z / 2 - tau, 0)^2``: those for which tau is 0."""
        p = probabilities.float()
        return torch.where(p > 0, 2 * p.sqrt(), -1.0)
