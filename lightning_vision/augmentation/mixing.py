"""What becomes of the targets of two samples whose images are mixed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_vision.types import UNKNOWN, TargetSpec


class Mix(NamedTuple):
    """How every image of a batch was made of two.

    First a part of the partner is pasted into the image, then what came of it is blended with the partner.

    Args:
        partner: int64 ``(B,)``, the other sample, never the sample itself where there are two or more.
        share: float32 ``(B,)`` in [0, 1], of the sample itself in the whole: that of its label.
        pasted: bool ``(B, H, W)``, the pixels that are the partner's; None: none.
        blended: float32 ``(B,)`` in [0, 1], of the sample itself in every pixel that is not pasted; None: all of it.
    """

    partner: Tensor
    share: Tensor
    pasted: Tensor | None = None
    blended: Tensor | None = None

    def to(self, device: torch.device) -> Mix:
        """The same on a device, without waiting for it."""
        pasted, blended = (p if p is None else p.to(device, non_blocking=True) for p in (self.pasted, self.blended))
        partner, share = (part.to(device, non_blocking=True) for part in (self.partner, self.share))
        return Mix(partner, share, pasted, blended)


def draw_pairs(count: int, p: float, generator: torch.Generator, *alphas: float) -> tuple[Tensor, ...]:
    """Draw a partner for each of ``count`` samples, and for each alpha its shares: 1 but with probability ``p``."""
    partner = draw_partners(count, generator)
    shares = [draw_shares(alpha, count, generator) for alpha in alphas]
    mixed = torch.rand(count, generator=generator) < p
    return partner, *(share.where(mixed, 1.0) for share in shares)


def draw_partners(count: int, generator: torch.Generator) -> Tensor:
    """Draw another sample for each, int64 ``(count,)``: every sample is one's partner, and none its own.

    They follow each other in a circle of random order. (timm takes the batch in reverse, mmpretrain a permutation, in
    which an image may be its own partner.)
    """
    order = torch.randperm(count, generator=generator)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def draw_shares(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """Draw from Beta(alpha, alpha), float32 ``(count,)``.

    By NumPy, from a seed that the generator draws: torch's own Beta knows no generator but the global one.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()


def mix_target(target: Tensor, mix: Mix, spec: TargetSpec) -> Tensor:
    """Return the targets of mixed images.

    Args:
        target: Class ids ``(B,)``, sets of labels ``(B, C)`` of 0, 1 and 255, or class maps ``(B, H, W)``; or what this
            function made of them.
        mix: How the images were mixed.
        spec: What the target is.

    Returns:
        Of class ids, float32 probabilities ``(B, C)``. Of sets, float32 ``(B, C)``, 255 for what is unknown of one of
        the two. Of maps, the map with pixels of the partner, in its own type, where nothing is blended; else float32
        probabilities ``(B, C, H, W)``. Where the class of one of the two is ignored, all probabilities are 0; where one
        of the two has no share, it does not matter.
    """
    mix = mix.to(target.device)
    if spec.kind == "mask":
        return _mixed_maps(target, mix, spec)
    if spec.kind == "labels":
        known = target != UNKNOWN
        mixed, known = _weighted(target.where(known, 0).float(), known, mix.share, mix.partner)
        return mixed.where(known, float(UNKNOWN))
    soft, known = _probabilities(target, spec)
    mixed, known = _weighted(soft, known, mix.share, mix.partner)
    return mixed * known


def largest_share(target: Tensor, spec: TargetSpec) -> Tensor:
    """Return the nearest target that is not mixed: the class of the largest share, or the label of a half or more.

    Args:
        target: What ``mix_target`` returned; any other target is returned as it is.
        spec: What the target is.
    """
    if not target.is_floating_point():
        return target
    if spec.kind == "labels":
        return (target >= 0.5).to(torch.uint8).where(target != UNKNOWN, UNKNOWN)
    share, ids = target.max(1)
    return ids if spec.ignore_index is None else ids.where(share > 0, spec.ignore_index)


def _mixed_maps(target: Tensor, mix: Mix, spec: TargetSpec) -> Tensor:
    own = target
    if mix.pasted is not None:
        pasted = mix.pasted if target.ndim == 3 else mix.pasted[:, None]
        own = torch.where(pasted, target.index_select(0, mix.partner), target)
    if mix.blended is None:
        return own
    soft, known = _probabilities(own, spec)
    other, other_known = (soft, known) if own is target else _probabilities(target, spec)
    mixed, known = _weighted(soft, known, mix.blended, mix.partner, other, other_known)
    return mixed.mul_(known)


def _probabilities(target: Tensor, spec: TargetSpec) -> tuple[Tensor, Tensor]:
    """Probabilities ``(B, C, ...)`` of class ids ``(B, ...)``, 0 where they are ignored; and ``(B, 1, ...)``: known."""
    if target.is_floating_point():
        return target, target.amax(1, keepdim=True) > 0
    ids = target.long()[:, None]
    known = torch.ones_like(ids, dtype=torch.bool) if spec.ignore_index is None else ids != spec.ignore_index
    shape = (len(ids), spec.num_classes, *ids.shape[2:])
    # Not by comparison with every class, which would take an id that is none of them for one that is ignored.
    return torch.zeros(shape, device=ids.device).scatter_(1, ids.where(known, 0), known.float()), known


def _weighted(
    own: Tensor,
    known: Tensor,
    share: Tensor,
    partner: Tensor,
    other: Tensor | None = None,
    other_known: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted mean of values and their partners', and where all that have a share in it are known."""
    share = share.view(-1, *[1] * (own.ndim - 1))
    other = (own if other is None else other).index_select(0, partner)
    other_known = (known if other_known is None else other_known).index_select(0, partner)
    return torch.lerp(other, own, share), (known | (share == 0)) & (other_known | (share == 1))
