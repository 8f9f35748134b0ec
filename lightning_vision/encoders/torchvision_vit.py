"""TorchVision's vision transformers at any size, with maps of several depths."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.positions import resample_table
from lightning_vision.encoders.torchvision_families import Model
from lightning_vision.encoders.torchvision_stages import Stages

Levels = tuple[list[Tensor], tuple[int, int]]


class VisionTransformer(Stages):
    """Maps of one stride from evenly spread depths, each behind the final norm; the embedding is the class token.

    The position embeddings are interpolated to the grid of patches.
    """

    encoder: Any
    conv_proj: nn.Module
    class_token: Tensor

    def __init__(self, model: nn.Module, spec: Model, keep_head: bool) -> None:
        super().__init__(model, spec, keep_head)
        for block in self.encoder.layers:
            block.self_attention = Attention(block.self_attention)
        count, levels = len(self.encoder.layers), len(spec.strides)
        self._depths = [math.ceil((i + 1) * count / levels) for i in range(levels)]

    def levels(self, x: Tensor) -> Levels:
        """Return the tokens ``(B, 1 + N, D)`` of four depths, and rows and columns of the patches among them."""
        tokens, grid = self._tokens(x)
        levels = []
        for depth, block in enumerate(self.encoder.layers, 1):
            tokens = block(tokens)
            if depth in self._depths:
                levels.append(tokens)
        return levels, grid

    def pyramid(self, levels: Levels) -> list[Tensor]:
        """Return the patches of four depths as maps."""
        return [self.encoder.ln(tokens)[:, 1:].mT.unflatten(2, levels[1]) for tokens in levels[0]]

    def embed(self, levels: Levels) -> Tensor:
        """Return the class token behind the final norm."""
        class_token: Tensor = self.encoder.ln(levels[0][-1][:, 0])
        return class_token

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename, and bring position embeddings that were trained at another size to this model's grid."""
        state = super().convert(state)
        name = "encoder.pos_embedding"
        table = state.get(name)
        if table is not None and table.ndim == 3 and _side(table) ** 2 == table.shape[1] - 1:
            side = _side(self.encoder.pos_embedding)
            state[name] = positions_at(table, (side, side))
        return state

    def _tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        patches = self.conv_proj(x)
        grid = (patches.shape[-2], patches.shape[-1])
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches.flatten(2).mT], 1)
        return self.encoder.dropout(tokens + positions_at(self.encoder.pos_embedding, grid)), grid


class Attention(nn.Module):
    """Self-attention with the weights of ``nn.MultiheadAttention``, all in linear layers that are called.

    torch's own reads the weights past the layers, so that an adapter on them would have no effect.
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        self.in_proj = nn.Linear(source.embed_dim, 3 * source.embed_dim, device="meta")
        self.in_proj.weight, self.in_proj.bias = source.in_proj_weight, source.in_proj_bias
        self.out_proj = source.out_proj

    def forward(self, x: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        """Attend, called as ``nn.MultiheadAttention`` is: with keys and values that are the queries."""
        q, k, v = self.in_proj(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), None


def positions_at(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return position embeddings ``(1, 1 + N, D)``, the class token's first, for a grid of patches."""
    patches = resample_table(table[:, 1:].mT.unflatten(2, (_side(table), _side(table))), grid)
    return torch.cat([table[:, :1], patches.flatten(2).mT], 1)


def _side(table: Tensor) -> int:
    return math.isqrt(table.shape[1] - 1)
