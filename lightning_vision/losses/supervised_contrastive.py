"""Supervised contrastive loss: images of one class should be alike, and unlike those of other classes."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import Loss
from lightning_vision.losses.contrastive import gathered, row_counts, similarities
from lightning_vision.types import Between


class SupervisedContrastiveLoss(Loss):
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020), their ``L_out``: NT-Xent with labels.

    With ``s`` the cosine of two rows over the temperature, ``A`` all rows but ``i`` and ``P`` those of its class, the
    other view of its image among them::

        loss = weight * mean over rows i of -1 / |P| * sum over p in P of log(exp(s_ip) / sum over a in A of exp(s_ia))

    A row that is alone in its class counts for no mean, and rows without a class count for nothing at all. The paper
    adds up over rows; its published code takes the mean, and multiplies by the temperature over 0.07, which is left out
    here. In training on several processes all rows are those of all, if they are gathered; the gradient, averaged over
    processes, is then that of one process with all rows. In evaluation each batch is compared within itself.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Class id of rows that count for nothing, or None.
        temperature: What the cosines are divided by; 0.1 is the paper's.
        gather: Whether rows are compared with those of all processes.
        weight: Factor of the whole loss.

    Raises:
        ConfigError: There are no labels.
    """

    tasks: ClassVar[tuple[str, ...]] = ("embedding",)
    views: ClassVar[int] = 2
    needs_target: ClassVar[bool] = True

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        temperature: Annotated[float, Between(0, low_open=True)] = 0.1,
        gather: bool = True,
        weight: Annotated[float, Between(0)] = 1.0,
    ) -> None:
        super().__init__(num_classes, class_names, ignore_index)
        self.temperature = temperature
        self.gather = gather
        self.weight = weight

    def forward(self, logits: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            logits: Vectors ``(B, D)``, not normalised.
            target: Class ids ``(B,)``, one for each row.

        Raises:
            ConfigError: There are no labels.
        """
        if target is None:
            raise ConfigError(
                "The supervised contrastive loss compares images by their labels, and there are none.",
                given="images without labels",
                expected="labels, or a loss that needs none: nt_xent_loss",
                override="loss=nt_xent_loss",
            )
        target = target.long()
        counted = (
            torch.ones_like(target, dtype=torch.bool) if self.ignore_index is None else target != self.ignore_index
        )
        counts = row_counts(logits, self.gather and self.training)
        # Rows that do not count are nothing before they are compared, so that not even NaN in them leaves a trace.
        compared, places = similarities(logits.where(counted[:, None], 0.0), self.temperature, counts)
        classes = gathered(target.where(counted, -1), counts)
        log_probabilities = compared.masked_fill(classes < 0, torch.finfo(compared.dtype).min).log_softmax(1)

        others = torch.ones_like(compared, dtype=torch.bool).scatter(1, places[:, None], False)
        positive = others & (classes[places, None] == classes) & counted[:, None]
        rows = -log_probabilities.where(positive, 0.0).sum(1) / positive.sum(1).clamp(min=1)
        # The rows of all processes that have a positive: those whose class is there twice.
        sizes = classes.new_zeros(self.num_classes + 1).scatter_add(0, classes + 1, torch.ones_like(classes))
        anchors = ((sizes[classes + 1] > 1) & (classes >= 0)).sum().clamp(min=1)
        return self.weight * rows.sum() * len(counts) / anchors
