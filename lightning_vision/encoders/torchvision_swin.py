"""TorchVision's Swin transformers, so that one exported graph serves all sizes of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import (
    PatchMerging,
    PatchMergingV2,
    ShiftedWindowAttention,
    ShiftedWindowAttentionV2,
)

from lightning_vision.encoders.maps import ceil_div
from lightning_vision.encoders.torchvision_families import Model
from lightning_vision.encoders.torchvision_stages import Stages


class Swin(Stages):
    """Swin whose attention and halving ask nothing about the size of the map, and give what TorchVision's give."""

    def __init__(self, model: nn.Module, spec: Model, keep_head: bool) -> None:
        super().__init__(model, spec, keep_head)
        for parent in list(self.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, ShiftedWindowAttention):
                    setattr(parent, name, WindowAttention(layer))
                elif isinstance(layer, PatchMerging | PatchMergingV2):
                    setattr(parent, name, Merging(layer))


class WindowAttention(nn.Module):
    """Attention inside windows, every second time shifted by half a window (Liu et al., 2021 and 2022).

    https://arxiv.org/abs/2103.14030, https://arxiv.org/abs/2111.09883

    TorchVision fills the mask of the shifted windows slice by slice and decides by the size whether to shift at all:
    torch.export cannot follow the one for all sizes, and ONNX makes other numbers of the other.

    Args:
        layer: The layer whose modules, parameters and buffers are taken over.
    """

    relative_position_index: Tensor

    def __init__(self, layer: ShiftedWindowAttention) -> None:
        super().__init__()
        self.window = (layer.window_size[0], layer.window_size[1])
        self.shift = (layer.shift_size[0], layer.shift_size[1])
        self.num_heads = layer.num_heads
        self.attention_dropout, self.dropout = layer.attention_dropout, layer.dropout
        self.cosine = isinstance(layer, ShiftedWindowAttentionV2)
        self.qkv, self.proj = layer.qkv, layer.proj
        if self.cosine:
            self.cpb_mlp, self.logit_scale = layer.cpb_mlp, layer.logit_scale
            self.register_buffer("relative_coords_table", layer.relative_coords_table)
        else:
            self.relative_position_bias_table = layer.relative_position_bias_table
        self.register_buffer("relative_position_index", layer.relative_position_index)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape ``(B, H, W, C)``."""
        height, width = x.shape[1:3]
        rows, columns = ceil_div(height, self.window[0]), ceil_div(width, self.window[1])
        padded = (rows * self.window[0], columns * self.window[1])
        x = F.pad(x, (0, 0, 0, padded[1] - width, 0, padded[0] - height))
        # A window that covers the map is not shifted. Written without a question, for graphs of any size.
        down, right = (torch.sym_min(n - 1, 1) * s for n, s in zip((rows, columns), self.shift, strict=True))
        shifted = any(self.shift) if torch.compiler.is_exporting() else down + right > 0
        if shifted:
            x = _roll(x, (down, right))
        windows = self._split(x, rows, columns)
        q, k, v = self._queries(windows)
        weights = q @ k.mT
        if self.cosine:
            weights = weights * self.logit_scale.clamp(max=math.log(100.0)).exp()
        weights = weights + self._position_bias()
        if shifted:
            mask = self._mask(x, padded, (down, right), rows, columns)
            weights = (weights.unflatten(0, (-1, rows * columns)) + mask[:, None]).flatten(0, 1)
        weights = F.dropout(weights.softmax(-1), self.attention_dropout, self.training)
        x = _copied((weights @ v).transpose(1, 2)).flatten(2)
        x = F.dropout(F.linear(x, self.proj.weight, self.proj.bias), self.dropout, self.training)
        x = _copied(x.unflatten(1, self.window).unflatten(0, (-1, rows, columns)).transpose(2, 3))
        x = x.flatten(3, 4).flatten(1, 2)
        if shifted:
            x = _roll(x, (padded[0] - down, padded[1] - right))
        return _copied(x.narrow(1, 0, height).narrow(2, 0, width))

    def _split(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Return the cells of each window, ``(B * rows * columns, P, C)``."""
        x = x.unflatten(2, (columns, self.window[1])).unflatten(1, (rows, self.window[0]))
        return _copied(x.transpose(2, 3)).flatten(3, 4).flatten(0, 2)

    def _queries(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values ``(N, heads, P, C / heads)`` of windows ``(N, P, C)``."""
        bias = self.qkv.bias
        if self.cosine and bias is not None:  # keys have none
            first, second, third = bias.chunk(3)
            bias = torch.cat([first, torch.zeros_like(second), third])
        # The weights are read, as TorchVision does.
        split = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.num_heads, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4)
        if self.cosine:
            return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v
        return q * q.shape[-1] ** -0.5, k, v

    def _position_bias(self) -> Tensor:
        """Return ``(1, heads, P, P)``."""
        if self.cosine:
            table = self.cpb_mlp(self.relative_coords_table).view(-1, self.num_heads)
        else:
            table = self.relative_position_bias_table
        cells = self.window[0] * self.window[1]
        bias = table[self.relative_position_index].view(cells, cells, -1).permute(2, 0, 1).contiguous()[None]
        return 16 * bias.sigmoid() if self.cosine else bias

    def _mask(self, x: Tensor, size: tuple[int, int], shift: tuple[int, int], rows: int, columns: int) -> Tensor:
        """Return ``(rows * columns, P, P)``: -100 where two cells of a window were no neighbours before the shift."""
        down, right = (
            (at >= n - w).long() + (at >= n - s).long()
            for n, w, s in zip(size, self.window, shift, strict=True)
            for at in [torch.arange(n, device=x.device)]
        )
        regions = self._split((3 * down[:, None] + right)[None, ..., None], rows, columns)
        apart = regions != regions.mT
        return torch.zeros_like(apart, dtype=x.dtype).masked_fill(apart, -100.0)


class Merging(nn.Module):
    """Halve a map: four neighbours become one cell of twice the channels.

    Args:
        layer: The layer whose modules are taken over.
    """

    def __init__(self, layer: PatchMerging | PatchMergingV2) -> None:
        super().__init__()
        self.reduction, self.norm = layer.reduction, layer.norm
        self.norm_first = isinstance(layer, PatchMerging)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, ceil(H / 2), ceil(W / 2), 2 C)`` of a map ``(B, H, W, C)``."""
        height, width = x.shape[1:3]
        rows, columns = ceil_div(height, 2), ceil_div(width, 2)
        x = F.pad(x, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))
        # The neighbours follow each other down first, then to the right.
        x = _copied(x.unflatten(2, (columns, 2)).unflatten(1, (rows, 2)).permute(0, 1, 3, 4, 2, 5)).flatten(3)
        found: Tensor = self.reduction(self.norm(x)) if self.norm_first else self.norm(self.reduction(x))
        return found


def _roll(x: Tensor, starts: Sequence[int]) -> Tensor:
    """Begin maps ``(B, H, W, C)`` at these rows and columns; those before them follow at the end."""
    if not torch.compiler.is_exporting():
        return x.roll([-start for start in starts], (1, 2))
    for dim, start in enumerate(starts, start=1):
        ends = torch.arange(start, x.shape[dim], device=x.device), torch.arange(start, device=x.device)
        x = x.index_select(dim, torch.cat(ends))
    return x


def _copied(x: Tensor) -> Tensor:
    """Lay a tensor out in its order; whether it is so already depends on the size, which a graph may not ask."""
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_exporting() else x.contiguous()
