"""Test-time augmentation: an image is predicted as it is, mirrored and at other scales, and the results averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_vision.head import Head, HeadOutput
from lightning_vision.inference.choices import FLIPS


@dataclass(frozen=True)
class TestTimeAugmentation:
    """What else is made of each image, beside the image as it is.

    Args:
        views: Names of ``FLIPS``, and factors of both sides: one view each, not their combinations.
    """

    __test__ = False  # no class of tests, whatever pytest thinks of its name

    views: tuple[str | float, ...]

    def averaged(
        self,
        heads: Iterable[tuple[str, Head]],
        outputs_of: Callable[[Tensor], Mapping[str, HeadOutput]],
        pixels: Tensor,
        plain: Mapping[str, HeadOutput],
    ) -> dict[str, HeadOutput]:
        """Predict the other views too, and average all.

        Args:
            heads: Name and head of every output.
            outputs_of: What the heads make of normalised images.
            pixels: Such images ``(B, C, H, W)``.
            plain: What the heads make of them.

        Returns:
            An output for each head, whose probabilities are the mean of those of all views; see ``Task.averaged``.
        """
        found = [dict(plain)]
        for view in self.views:
            outputs = outputs_of(self.shown(pixels, view))
            found.append({name: self.back(output, view, pixels) for name, output in outputs.items()})
        return {name: head.task.averaged(head, [each[name] for each in found]) for name, head in heads}

    @staticmethod
    def shown(pixels: Tensor, view: str | float) -> Tensor:
        """Mirror or scale images ``(B, C, H, W)``."""
        if isinstance(view, str):
            return pixels.flip(FLIPS[view])
        return F.interpolate(pixels, scaled(pixels, view), mode="bilinear", antialias=True)

    @staticmethod
    def back(output: HeadOutput, view: str | float, pixels: Tensor) -> HeadOutput:
        """Bring the logits of a view to where the pixels of the image as it is are; those of no place stay."""
        if output.logits.ndim < 4:
            return output
        if isinstance(view, str):
            return output._replace(logits=output.logits.flip(FLIPS[view]))
        size = (pixels.shape[-2], pixels.shape[-1])
        return output._replace(logits=F.interpolate(output.logits.float(), size, mode="bilinear"))


def scaled(pixels: Tensor, factor: float) -> tuple[int, int]:
    """Height and width of images at another scale."""
    height, width = (max(1, round(side * factor)) for side in pixels.shape[-2:])
    return height, width
