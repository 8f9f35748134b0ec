"""A convolution of maps of several strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.base import cells, resample
from lightning_vision.decoders.blocks import start_conv


class JoinedConv(nn.Conv2d):
    """A 3 x 3 convolution of joined maps, brought to one stride: ``conv(cat([resample(m) for m in maps]))``.

    The same function at less cost: a convolution is linear, so each map meets its share of the kernel by itself
    (nothing is joined), and where it pays at its own, coarser stride (nothing is upsampled).

    Args:
        maps: Channels and stride of each map.
        out_channels: Channels that go out.
        to_stride: Stride of the result.
        mode: How maps are resampled: ``bilinear`` or ``nearest``.
        bias: Whether there is a bias.
    """

    def __init__(
        self,
        maps: Sequence[tuple[int, int]],
        out_channels: int,
        to_stride: int,
        mode: str = "bilinear",
        bias: bool = False,
    ) -> None:
        super().__init__(sum(channels for channels, _ in maps), out_channels, 3, padding=1, bias=bias)
        self.channels = [channels for channels, _ in maps]
        self.strides = [stride for _, stride in maps]
        self.to_stride = to_stride
        self.mode = mode
        start_conv(self)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """Return a map ``(B, out_channels, ceil(H / to_stride), ceil(W / to_stride))``.

        Args:
            maps: Those that were announced, ``(B, C, ceil(H / stride), ceil(W / stride))``.
            size: Height and width of the image, in pixels.
        """
        parts = [
            conv_resampled(x, kernel, stride, self.to_stride, size, self.mode)
            for x, kernel, stride in zip(maps, self.weight.split(self.channels, 1), self.strides, strict=True)
        ]
        joined = sum(parts[1:], parts[0])
        return joined if self.bias is None else joined + self.bias[:, None, None]


def conv_resampled(
    x: Tensor, kernel: Tensor, from_stride: int, to_stride: int, size: tuple[int, int], mode: str
) -> Tensor:
    """Return ``conv2d(resample(x, ...), kernel, padding=1)`` for a kernel of 3 x 3, the cheapest way.

    Args:
        x: Map ``(B, C, ceil(H / from_stride), ceil(W / from_stride))``.
        kernel: ``(D, C, 3, 3)``.
        from_stride: Pixels per cell of ``x``.
        to_stride: Pixels per cell of the result.
        size: Height and width of the image, in pixels.
        mode: ``bilinear`` or ``nearest``.

    Returns:
        Map ``(B, D, ceil(H / to_stride), ceil(W / to_stride))``.
    """
    (h, w), (height, width) = x.shape[-2:], cells(size, to_stride)
    if from_stride == to_stride:
        return F.conv2d(x, kernel, padding=1)
    if torch.compiler.is_exporting():  # one way for all sizes
        return F.conv2d(resample(x, from_stride, to_stride, size, mode), kernel, padding=1)
    # Multiplications for each channel that goes out; they rank the ways as CPU time does.
    upsampled = 9 * x.shape[1] * height * width
    doubled = 4 * x.shape[1] * height * width
    by_matrices = 9 * h * w * (x.shape[1] + width) + 3 * h * height * width
    can_double = mode == "nearest" and from_stride == 2 * to_stride and (height, width) == (2 * h, 2 * w)
    if can_double and doubled < by_matrices:
        return _conv_doubled(x, kernel)
    if by_matrices < upsampled:
        return _conv_by_matrices(x, kernel, from_stride, to_stride, size, mode)
    return F.conv2d(resample(x, from_stride, to_stride, size, mode), kernel, padding=1)


def _conv_doubled(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve a map of which each cell is repeated 2 x 2 times.

    Upsampling by repetition is a transposed convolution with ones, so both in one are a transposed convolution of
    stride 2 whose 4 x 4 kernel is the mirrored 3 x 3 one, added up at its four places: 4 multiplications for 9.
    """
    mirrored = F.pad(kernel.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
    return F.conv_transpose2d(x, 4 * F.avg_pool2d(mirrored, 2, 1), stride=2, padding=1)


def _conv_by_matrices(
    x: Tensor, kernel: Tensor, from_stride: int, to_stride: int, size: tuple[int, int], mode: str
) -> Tensor:
    """Convolve first, with each of the 9 taps by itself at the coarse stride; then resample, shift and add at once.

    The resampling is a matrix for the rows and one for the columns, and so is the shift of a tap.
    """
    taps = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=3)  # (B, D, 3 h, 3 w)
    rows, columns = (
        _resampled_taps(n, pixels, from_stride, to_stride, mode, x)
        for n, pixels in zip(x.shape[-2:], size, strict=True)
    )
    y = rows @ taps.permute(0, 2, 3, 1).flatten(2)  # (B, H, 3 w D)
    y = columns @ y.unflatten(2, (columns.shape[1], -1))  # (B, H, W, D)
    return y.permute(0, 3, 1, 2)


def _resampled_taps(n: int, pixels: int, from_stride: int, to_stride: int, mode: str, like: Tensor) -> Tensor:
    """Return the matrix ``(N, 3 n)`` that resamples n cells to N and adds up three taps: itself and its neighbours."""
    unit = torch.eye(n, device=like.device, dtype=like.dtype).view(1, n, n, 1)
    matrix = resample(unit, from_stride, to_stride, (pixels, 1), mode)[0, :, :, 0].mT
    padded = F.pad(matrix, (0, 0, 1, 1))
    return torch.stack([padded[k : k + len(matrix)] for k in range(3)], 2).flatten(1)
