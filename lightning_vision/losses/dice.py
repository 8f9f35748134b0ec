"""Dice loss."""

from __future__ import annotations

from typing import Annotated, Literal

from lightning_vision.losses.regions import RegionLoss
from lightning_vision.types import Between


class DiceLoss(RegionLoss):
    """One minus the Dice coefficient of every class, and the mean of them (Milletari et al., 3DV 2016).

    With ``p`` the softmax of the logits, ``t`` the truth as 0 and 1, and sums over the pixels that count::

        loss_c = 1 - (2 sum p_c t_c + smooth) / (sum p_c + sum t_c + smooth)

    Milletari's own form, with ``p_c^2`` in the denominator, is ``square_denominator``; it has neither ``smooth`` nor
    more than two classes. In [0, 1]. Ignored pixels are in none of the sums, and the loss is 0 where all are ignored.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        smooth: Number of pixels added to numerator and denominator, from 0 on. The more, the less a class of few pixels
            pulls.
        weight: Factor of the whole loss.
        classes: Classes of the mean: ``present``, those that occur in the truth of the batch (of the image, with
            ``per_image``), or ``all``; then a class that does not occur costs ``1 - smooth / (sum p_c + smooth)``. What
            is wrongly given to an absent class counts in either case, as missing in its own.
        per_image: Take the loss of every image and the mean of them, instead of sums over all pixels of the batch.
            Images of which no class is in the mean are left out.
        include_background: False leaves class 0 out of the mean.
        square_denominator: Take the squares of the probabilities in the denominator.

    Raises:
        ConfigError: If there is no class but the background, and it is left out.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        smooth: Annotated[float, Between(0)] = 1.0,
        weight: Annotated[float, Between(0)] = 1.0,
        classes: Literal["present", "all"] = "present",
        per_image: bool = False,
        include_background: bool = True,
        square_denominator: bool = False,
    ) -> None:
        super().__init__(
            num_classes,
            class_names,
            ignore_index,
            alpha=0.5,
            beta=0.5,
            smooth=smooth / 2,
            gamma=1.0,
            weight=weight,
            classes=classes,
            per_image=per_image,
            include_background=include_background,
            square_denominator=square_denominator,
        )
