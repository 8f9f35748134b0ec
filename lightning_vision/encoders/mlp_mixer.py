"""MLP-Mixer, trained from scratch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.conv_block import pair
from lightning_vision.encoders.maps import average_to_grid
from lightning_vision.types import HALF_STATS, Between, FeatureInfo

# Maps come from this many evenly spread depths.
DEPTHS = 4
# That of the paper's implementation.
EPS = 1e-6
# Height and width in pixels that the token mixing is built for, where none are given.
IMAGE_SIZE = 224


class MLPMixer(Encoder):
    """MLP-Mixer (Tolstikhin et al., 2021, https://arxiv.org/abs/2105.01601); the defaults are Mixer-S/16.

    Each block mixes the patches by one MLP, which every channel goes through, then the channels by another, which every
    patch goes through. The embedding is the average over the patches, behind the final norm. The pyramid holds four
    maps of one stride, from the last block of each quarter of the depth, each behind the final norm. Pixels are scaled
    to [-1, 1].

    Sizes: images are padded to a multiple of the patch. The MLP over the patches has one input for each of them, so it
    is tied to the grid of ``image_size``. At other sizes what it sees is averaged to that grid, and what it adds is
    averaged back; the patches themselves keep their own grid, so that maps have full resolution at any size. At
    ``image_size`` this is the paper's network.

    The documents call the widths of the two MLPs by names of their own; their numbers are those of Mixer-S/16 if
    ``token_size`` is the MLP of each patch (token) and ``channel_dim`` that of each channel.

    Args:
        patch_size: Height and width of a patch, in pixels.
        embed_size: Channels of each patch.
        token_size: Hidden width of the MLP that mixes the channels of each patch.
        channel_dim: Hidden width of the MLP that mixes the patches of each channel.
        num_layers: Number of blocks.
        dropout: Dropout rate behind both layers of each MLP.
        avg_pool: Whether the embedding is the average over the patches, ``(embed_size,)``. False: all patches of the
            grid of ``image_size``, row by row, ``(rows * columns * embed_size,)``.
        image_size: Height and width of the images that the token mixing is built for, in pixels, one number or (height,
            width). ``auto``: those that the images are brought to; 224 where that is not known.
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
    """

    def __init__(
        self,
        patch_size: Annotated[int, Between(1)] = 16,
        embed_size: Annotated[int, Between(1)] = 512,
        token_size: Annotated[int, Between(1)] = 2048,
        channel_dim: Annotated[int, Between(1)] = 256,
        num_layers: Annotated[int, Between(1)] = 8,
        dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        avg_pool: bool = True,
        image_size: Annotated[int, Between(1)] | tuple[int, int] | Literal["auto"] = "auto",
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return
        height, width = pair(IMAGE_SIZE if image_size == "auto" else image_size, "encoder.image_size")
        self.grid = (-(-height // patch_size), -(-width // patch_size))
        patches = self.grid[0] * self.grid[1]
        self.avg_pool = avg_pool
        self.patches = nn.Conv2d(self.num_channels, embed_size, patch_size, stride=patch_size)
        self.blocks = nn.ModuleList(
            MixerBlock(embed_size, self.grid, token_size, channel_dim, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_size, EPS)
        self.depths = sorted({math.ceil((i + 1) * num_layers / DEPTHS) for i in range(DEPTHS)})
        self.multiple = patch_size
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        levels = len(self.depths)
        self.info = FeatureInfo(
            (embed_size,) * levels, (patch_size,) * levels, embed_size if avg_pool else embed_size * patches
        )
        self.finish()

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> list[Tensor]:
        """Return the patches ``(B, rows, columns, embed_size)`` behind each quarter of the depth."""
        x = self.patches(x).movedim(1, -1)
        levels = []
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x)
            if depth in self.depths:
                levels.append(x)
        return levels

    def embed_features(self, levels: list[Tensor]) -> Tensor:
        """Return the average over the patches, or all of them."""
        x = self.norm(levels[-1])
        if self.avg_pool:
            return x.mean((1, 2))
        return _to_grid(x, self.grid).flatten(1)

    def pyramid_features(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the patches of each quarter of the depth as maps."""
        return [self.norm(level).movedim(-1, 1) for level in levels]


class MixerBlock(nn.Module):
    """Mixes the patches, then the channels; each time a norm, an MLP, and a path around both.

    Args:
        channels: Channels of each patch.
        grid: Rows and columns of patches that the first MLP is built for.
        token_size: Hidden width of the MLP of each patch.
        channel_dim: Hidden width of the MLP of each channel.
        dropout: Dropout rate behind both layers of each MLP.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], token_size: int, channel_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch_norm = nn.LayerNorm(channels, EPS)
        self.patch_mlp = _mlp(grid[0] * grid[1], channel_dim, dropout)
        self.channel_norm = nn.LayerNorm(channels, EPS)
        self.channel_mlp = _mlp(channels, token_size, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return patches ``(B, rows, columns, channels)`` of the same shape, on any grid."""
        tokens = _to_grid(self.patch_norm(x), self.grid).flatten(1, 2)
        mixed = self.patch_mlp(tokens.mT).mT.unflatten(1, self.grid)
        x = x + _to_grid(mixed, (x.shape[1], x.shape[2]))
        mixed = self.channel_mlp(self.channel_norm(x))
        return x + mixed


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )


def _to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average patches ``(B, rows, columns, channels)`` to another grid."""
    if not torch.compiler.is_exporting() and x.shape[1:3] == torch.Size(grid):
        return x
    return average_to_grid(x.movedim(-1, 1), grid).movedim(1, -1)
