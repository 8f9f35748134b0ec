"""NT-Xent: two views of one image should be alike, and unlike all others."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from torch.nn import functional as F

from lightning_vision.losses.base import Loss
from lightning_vision.losses.contrastive import row_counts, similarities
from lightning_vision.types import Between


class NTXentLoss(Loss):
    """Normalised, temperature-scaled cross-entropy (Chen et al., ICML 2020), the loss of SimCLR; it needs no labels.

    Rows ``2i`` and ``2i + 1`` are two views of an image. With ``s`` the cosine of two rows over the temperature and
    ``j`` the other view of row ``i``::

        loss = weight * mean over rows i of -log(exp(s_ij) / sum over k != i of exp(s_ik))

    All rows but the two are negatives, so large batches make it harder; one pair alone has nothing to be told from, and
    a loss of exactly 0. Batches of accumulated gradients are not put together.

    In training on several processes the negatives are those of all, if they are gathered; the gradient, averaged over
    processes, is then that of one process with all rows. In evaluation each batch is compared within itself.

    Args:
        num_classes: Number of classes; not used.
        class_names: Name of every class, by id; not used.
        ignore_index: Not used: an image counts whatever its label.
        temperature: What the cosines are divided by; small: the most alike negatives count most. The paper's best were
            0.1 to 0.5, by data and batch size.
        gather: Whether the negatives are those of all processes.
        weight: Factor of the whole loss.

    Raises:
        ValueError: The number of rows is odd.
    """

    tasks: ClassVar[tuple[str, ...]] = ("embedding",)
    views: ClassVar[int] = 2

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        temperature: Annotated[float, Between(0, low_open=True)] = 0.07,
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
            logits: Vectors ``(B, D)``, B even, not normalised.
            target: Not used.
        """
        if len(logits) % 2:
            raise ValueError(
                f"rows 2i and 2i + 1 are two views of one image, so their number is even, got {len(logits)}"
            )
        counts = row_counts(logits, self.gather and self.training)
        compared, places = similarities(logits, self.temperature, counts)
        # Every process has whole pairs, so the other view of an even place is the next.
        total = F.cross_entropy(compared, places ^ 1, reduction="sum")
        return self.weight * total * len(counts) / max(1, sum(counts))
