"""Tversky loss, and the focal Tversky loss."""

from __future__ import annotations

from typing import Annotated, Literal

from lightning_vision.losses.regions import RegionLoss
from lightning_vision.types import Between


class TverskyLoss(RegionLoss):
    """One minus the Tversky index of every class, and the mean of them (Salehi et al., MLMI 2017).

    With ``p`` the softmax of the logits, ``t`` the truth as 0 and 1, and sums over the pixels that count::

        tp, fp, fn = sum p_c t_c, sum p_c (1 - t_c), sum (1 - p_c) t_c
        loss_c = (1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ** gamma

    ``alpha = beta = 0.5`` is the Dice loss of twice the ``smooth``, ``alpha = beta = 1`` the Jaccard loss; ``beta``
    above ``alpha`` finds more of a class at the price of false alarms. In [0, 1]. Ignored pixels are in none of the
    sums, and the loss is 0 where all are ignored.

    Args:
        num_classes: Number of classes.
        class_names: Name of every class, by id.
        ignore_index: Target value that counts for nothing, or None.
        alpha: Weight of the false positives, from 0 on.
        beta: Weight of the false negatives, from 0 on.
        gamma: Exponent of every class's loss, above 0, the focal Tversky loss (Abraham and Khan, ISBI 2019, who write
            ``1 / gamma`` for it, and find 0.75 best): below 1 classes that are nearly right count more, above 1 those
            that are wrong.
        smooth: Number of pixels added to numerator and denominator, from 0 on. The more, the less a class of few pixels
            pulls.
        weight: Factor of the whole loss.
        classes: Classes of the mean: ``present``, those that occur in the truth of the batch (of the image, with
            ``per_image``), or ``all``; then a class that does not occur costs ``1 - smooth / (alpha * sum p_c +
            smooth)``, to the power of ``gamma``. What is wrongly given to an absent class counts in either case, as
            missing in its own.
        per_image: Take the loss of every image and the mean of them, instead of sums over all pixels of the batch.
            Images of which no class is in the mean are left out.
        include_background: False leaves class 0 out of the mean.

    Raises:
        ConfigError: If there is no class but the background, and it is left out.
    """

    def __init__(
        self,
        num_classes: int,
        class_names: tuple[str, ...] | None = None,
        ignore_index: int | None = None,
        alpha: Annotated[float, Between(0)] = 0.5,
        beta: Annotated[float, Between(0)] = 0.5,
        gamma: Annotated[float, Between(0, low_open=True)] = 1.0,
        smooth: Annotated[float, Between(0)] = 1.0,
        weight: Annotated[float, Between(0)] = 1.0,
        classes: Literal["present", "all"] = "present",
        per_image: bool = False,
        include_background: bool = True,
    ) -> None:
        super().__init__(
            num_classes,
            class_names,
            ignore_index,
            alpha=alpha,
            beta=beta,
            smooth=smooth,
            gamma=gamma,
            weight=weight,
            classes=classes,
            per_image=per_image,
            include_background=include_background,
        )
