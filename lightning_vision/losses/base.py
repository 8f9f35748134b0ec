"""The contract of a loss, and the one place where ignored pixels are left out."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_vision.errors import ConfigError


class Loss(nn.Module):
    """Turns logits and targets into one number, the smaller the better.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class; the position is the class id. None: ``0``, ``1``, ...
        ignore_index: Target value that counts for nothing, or None.

    Attributes:
        tasks: The tasks that the loss serves: ``classification`` (logits ``(B, C)``, target ``(B,)``), ``multilabel``
            (logits ``(B, C)``, target ``(B, C)`` of 0, 1 and 255 for unknown), ``segmentation`` (logits
            ``(B, C, H, W)``, target ``(B, H, W)``), ``embedding`` (vectors ``(B, D)``, target ``(B,)`` or None) and
            ``anomaly`` (scores ``(B,)``, target ``(B,)``).
        needs: What ``forward`` takes beside logits and target, by name: ``features`` ``(B, D)``, the input of the
            decoder's last layer; ``inputs`` and ``score``, the model's own input ``(B, ...)`` and the function from
            there to the scores ``(B,)``.
        counts_unknown: Whether its mean is over the rows of no class too, whose target is ``ignore_index``.
        needs_target: Whether it cannot do without targets where its task can (``embedding``).
        trains_on_anomalies: Whether anomalous images count for it too (``anomaly``).
        views: Augmented views of each image in a training batch; those of one image lie behind each other.
        soft_targets: Whether it takes the float targets of mixed images too: of labels and masks the probability of
            every class, in the shape of the logits, all 0 for ignored pixels; of sets of labels numbers in [0, 1], 255
            for unknown.
    """

    injected: ClassVar[tuple[str, ...]] = ("num_classes", "class_names", "ignore_index")
    tasks: ClassVar[tuple[str, ...]]
    needs: ClassVar[tuple[str, ...]] = ()
    counts_unknown: ClassVar[bool] = False
    needs_target: ClassVar[bool] = False
    trains_on_anomalies: ClassVar[bool] = True
    views: ClassVar[int] = 1
    soft_targets: ClassVar[bool] = False

    def __init__(
        self, num_classes: int, class_names: tuple[str, ...] | None = None, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise ConfigError(
                "There must be one name for every class.", given=self.class_names, expected=f"{num_classes} names"
            )
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar.

        Args:
            logits: What the decoder returns, ``(B, C)`` or ``(B, C, H, W)``.
            target: Class ids ``(B,)`` or ``(B, H, W)``, int64 or uint8, or what ``tasks`` and ``soft_targets`` say.

        Returns:
            A scalar of at least 32 bits. If every target is ignored: 0, with a graph, so that ``backward`` works.
        """
        raise NotImplementedError

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return what predictions and scores show of logits ``(B, C, ...)``: by default their softmax."""
        return logits.softmax(1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return logits ``(B, C, ...)`` for which ``probabilities`` gives these, up to a common factor of a sample.

        Raises:
            ConfigError: The loss has probabilities of its own and does not say how they become logits.
        """
        if type(self).probabilities is not Loss.probabilities and type(self).logits is Loss.logits:
            raise ConfigError(
                f"{type(self).__name__} does not say which logits have given probabilities, so none can be averaged.",
                expected="a method logits(probabilities) beside its probabilities(logits)",
                override="tta=null",
            )
        return log_of(probabilities)


def log_of(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities, float32, finite where they are 0."""
    return probabilities.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def logit_of(probabilities: Tensor) -> Tensor:
    """The logit of each probability, float32, finite where it is 0 or 1."""
    p = probabilities.float().clamp(torch.finfo(torch.float32).tiny, 1 - torch.finfo(torch.float32).eps)
    return p.log() - torch.log1p(-p)


def at_least_float32(x: Tensor) -> Tensor:
    """Widen half precision, in which sums over pixels lose their last digits; keep float32 and float64."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def valid_rows(logits: Tensor, target: Tensor, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Return the samples or pixels that count.

    Args:
        logits: ``(B, C)`` or ``(B, C, H, W)``.
        target: Class ids ``(B,)`` or ``(B, H, W)``, int64 or uint8.
        ignore_index: Target value to leave out, or None.

    Returns:
        Logits ``(N, C)`` of at least 32 bits and targets ``(N,)`` int64. N may be 0; a sum over the empty rows is 0 and
        still has a graph.
    """
    rows = at_least_float32(logits).movedim(1, -1).reshape(-1, logits.shape[1])
    flat = target.reshape(-1).long()
    if ignore_index is None:
        return rows, flat
    keep = flat != ignore_index
    return rows[keep], flat[keep]
