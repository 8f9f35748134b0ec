"""TorchVision's MaxViT at any size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import PartitionAttentionLayer

from lightning_vision.encoders.positions import resample_table
from lightning_vision.encoders.torchvision_families import Model
from lightning_vision.encoders.torchvision_stages import Stages


class MaxVit(Stages):
    """MaxViT whose windows and grids follow the size of the image, as when it is fine-tuned at another size.

    TorchVision's model is tied to the size it is built for. Here the number of windows stays (8 x 8 at the finest
    stage, 1 x 1 at the coarsest), each being 1/32 of the image's height and width in cells: 7 x 7 at 224 pixels. The
    learned biases of relative positions are interpolated to it.
    """

    def __init__(self, model: nn.Module, spec: Model, keep_head: bool) -> None:
        super().__init__(model, spec, keep_head)
        for parent in list(self.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, PartitionAttentionLayer):
                    setattr(parent, name, PartitionAttention(layer))


class PartitionAttention(nn.Module):
    """Attention inside windows, or among the cells that have the same place in every window (Tu et al., 2022).

    https://arxiv.org/abs/2204.01697

    Args:
        layer: The layer whose modules are taken over.
    """

    def __init__(self, layer: PartitionAttentionLayer) -> None:
        super().__init__()
        self.count = layer.n_partitions
        self.grid = layer.partition_type == "grid"
        self.attn_layer: Any = layer.attn_layer
        self.mlp_layer = layer.mlp_layer
        self.stochastic_dropout = layer.stochastic_dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape ``(B, C, H, W)``; the number of windows divides height and width."""
        n = self.count
        window = (x.shape[-2] // n, x.shape[-1] // n)
        # To (B, partitions, cells, C): a window's cells lie side by side, a grid's cells n apart.
        x = x.unflatten(3, (-1, n) if self.grid else (n, -1)).unflatten(2, (-1, n) if self.grid else (n, -1))
        order = (0, 3, 5, 2, 4, 1) if self.grid else (0, 2, 4, 3, 5, 1)
        x = x.permute(order)
        split = x.shape
        x = x.flatten(3, 4).flatten(1, 2)
        norm, attention, dropout = self.attn_layer
        x = x + self.stochastic_dropout(dropout(_attend(attention, norm(x), window)))
        x = x + self.stochastic_dropout(self.mlp_layer(x))
        back = tuple(order.index(i) for i in range(6))
        return x.reshape(split).permute(back).flatten(4).flatten(2, 3)


def _attend(attention: Any, x: Tensor, window: tuple[int, int]) -> Tensor:
    """Apply TorchVision's ``RelativePositionalMultiHeadAttention`` to partitions ``(B, G, P, C)`` of any shape."""
    split = (3, attention.n_heads, attention.head_dim)
    q, k, v = attention.to_qkv(x.flatten(0, 1)).unflatten(-1, split).permute(2, 0, 3, 1, 4)
    side = 2 * attention.size - 1
    table = attention.relative_position_bias_table.mT.unflatten(1, (side, side))
    rows, columns = window
    bias = resample_table(table, (2 * rows - 1, 2 * columns - 1)).flatten(1)[:, _offsets(rows, columns, x.device)]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=attention.scale_factor)
    merged: Tensor = attention.merge(mixed.transpose(1, 2).flatten(2))
    return merged.unflatten(0, x.shape[:2])


def _offsets(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return ``(P, P)``: for each pair of cells of a window the place of their offset in the flattened table."""
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    down = row[:, None] - row + rows - 1
    right = column[:, None] - column + columns - 1
    return (down[:, None, :, None] * (2 * columns - 1) + right[None, :, None, :]).reshape(rows * columns, -1)
