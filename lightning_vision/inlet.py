"""What a head takes beside the features, or in their place: maps made into a vector, values of other outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_vision.outputs import Reduce
from lightning_vision.types import FeatureInfo

Features = Tensor | list[Tensor]


def reduce_cells(maps: Tensor, how: Reduce) -> Tensor:
    """Make a vector of each image's map: over its cells, row by row.

    Args:
        maps: ``(B, C, H, W)``; a vector ``(B, C)`` is returned as it is.
        how: ``sum``, ``mean`` (or ``avg``), ``max``, ``last`` (the cell at the lower right), or ``concat`` (one cell
            behind the other).

    Returns:
        ``(B, C)``; with ``concat`` ``(B, H * W * C)``.
    """
    if maps.ndim == 2:
        return maps
    cells = maps.flatten(2)
    if how == "sum":
        return cells.sum(2)
    if how == "max":
        return cells.amax(2)
    if how == "last":
        return cells[..., -1]
    if how == "concat":
        return cells.transpose(1, 2).flatten(1)
    return cells.mean(2)


class Inlet(nn.Module):
    """Prepares the features of one of several heads.

    Args:
        info: What the encoder tells about its features.
        consumes: What the decoder takes: ``embedding`` or ``pyramid``.
        reduce_input: For an embedding: how the deepest map becomes one; None: the encoder's own embedding.
        widths: Length of the vector of each dependency, by the name of its output.
        reduce_dependencies: How values that are maps become such vectors.
        cells: Height and width of the deepest map, for ``reduce_input=concat``.

    Attributes:
        info: What the decoder is told about its features.
    """

    def __init__(
        self,
        info: FeatureInfo,
        consumes: str,
        reduce_input: Reduce | None,
        widths: Mapping[str, int],
        reduce_dependencies: Reduce,
        cells: tuple[int, int],
    ) -> None:
        super().__init__()
        self.reduce_input = reduce_input if consumes == "embedding" else None
        self.widths = dict(widths)
        self.reduce_dependencies = reduce_dependencies
        embed_dim = info.embed_dim
        if self.reduce_input is not None:
            embed_dim = info.channels[-1] * (cells[0] * cells[1] if reduce_input == "concat" else 1)
        more = sum(widths.values())
        self.info = replace(info, channels=tuple(c + more for c in info.channels), embed_dim=embed_dim + more)

    def forward(self, features: Features, others: Mapping[str, Tensor]) -> Features:
        """Return the features that the decoder takes.

        Args:
            features: The embedding, or the pyramid; the pyramid with ``reduce_input``.
            others: The values of the outputs so far.

        Raises:
            ValueError: With ``concat``, images of another size than the model was built for.
        """
        if self.reduce_input is not None:
            features = reduce_cells(features[-1], self.reduce_input)
        seen = [reduce_cells(others[name], self.reduce_dependencies) for name in self.widths]
        if isinstance(features, Tensor):
            joined = torch.cat([features, *(value.to(features.dtype) for value in seen)], 1)
            if joined.shape[1] != self.info.embed_dim:
                raise ValueError(
                    f"concat makes {joined.shape[1]} values of these images, and the decoder takes "
                    f"{self.info.embed_dim}: it needs images of the size that the model was trained with"
                )
            return joined
        spread = torch.cat(seen, 1)[..., None, None] if seen else None
        if spread is None:
            return features
        return [torch.cat([m, spread.to(m.dtype).expand(-1, -1, *m.shape[2:])], 1) for m in features]
