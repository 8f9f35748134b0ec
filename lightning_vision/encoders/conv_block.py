"""One layer of ``stacked_cnn``: convolution, norm, activation, dropout, pooling; and the arithmetic of its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.activations import make_activation, width_factor
from lightning_vision.encoders.layers import make_norm
from lightning_vision.errors import ConfigError

Pair = tuple[int, int]


def pair(value: int | tuple[int, int] | list[int], name: str) -> Pair:
    """Return ``(height, width)`` of an integer or a pair.

    Raises:
        ConfigError: If it is neither.
    """
    if isinstance(value, int):
        return (value, value)
    if len(value) != 2:
        raise ConfigError(f"{name} is an integer or a pair (height, width).", given=value)
    return (int(value[0]), int(value[1]))


class ConvBlock(nn.Module):
    """Convolution, norm, activation, dropout and pooling, in this order.

    Args:
        in_channels: Channels that come in.
        settings: ``out_channels``, ``kernel_size``, ``stride``, ``padding``, ``padding_mode``, ``dilation``,
            ``groups``, ``bias``, ``norm``, ``norm_params``, ``activation``, ``dropout``, ``pool_function``,
            ``pool_kernel_size`` (None: no pooling), ``pool_stride``, ``pool_padding``, ``pool_dilation``.

    Attributes:
        stride: Height and width of the input per cell of the output, in cells of the input.

    Raises:
        ConfigError: If a value is out of range or two do not go together.
    """

    def __init__(self, in_channels: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.out_channels: int = settings["out_channels"]
        self.kernel = pair(settings["kernel_size"], "kernel_size")
        self.conv_stride = pair(settings["stride"], "stride")
        self.dilation = pair(settings["dilation"], "dilation")
        # Both ends of each axis, so that "same" works with strides and even kernels, which torch's own does not.
        self.pad = _padding(settings["padding"], self.kernel, self.dilation)
        self.padding_mode = "constant" if settings["padding_mode"] == "zeros" else settings["padding_mode"]
        width = self.out_channels * width_factor(settings["activation"])
        groups = settings["groups"]
        if in_channels % groups or width % groups:
            raise ConfigError(
                "groups must divide the channels that come in and those that go out.",
                given=f"groups={groups}, channels {in_channels} and {width}",
            )
        try:
            self.conv = nn.Conv2d(
                in_channels,
                width,
                self.kernel,
                self.conv_stride,
                dilation=self.dilation,
                groups=groups,
                bias=settings["bias"],
            )
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"The convolution cannot be built: {error}", given=dict(settings)) from error
        self.norm = make_norm(settings["norm"], width, settings["norm_params"], "map")
        self.activation = make_activation(settings["activation"])
        self.dropout = nn.Dropout(settings["dropout"])
        self.pool = _Pool(settings) if settings["pool_kernel_size"] is not None else nn.Identity()
        pool_stride = self.pool.stride if isinstance(self.pool, _Pool) else (1, 1)
        self.stride = (self.conv_stride[0] * pool_stride[0], self.conv_stride[1] * pool_stride[1])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H', W')``."""
        (top, bottom), (left, right) = self.pad
        if top or bottom or left or right:
            x = F.pad(x, (left, right, top, bottom), mode=self.padding_mode)
        return self.pool(self.dropout(self.activation(self.norm(self.conv(x)))))

    def smallest(self, out: Pair) -> Pair:
        """Return the smallest input of which the output has at least ``out`` cells."""
        found = []
        for i in range(2):
            need = out[i]
            if isinstance(self.pool, _Pool):
                need = (need - 1) * self.pool.stride[i] + _span(self.pool.kernel[i], self.pool.dilation[i])
                need -= 2 * self.pool.padding[i]
            need = (max(need, 1) - 1) * self.conv_stride[i] + _span(self.kernel[i], self.dilation[i]) - sum(self.pad[i])
            if self.padding_mode == "reflect":
                need = max(need, max(self.pad[i]) + 1)
            elif self.padding_mode == "circular":
                need = max(need, *self.pad[i])
            found.append(max(need, 1))
        return found[0], found[1]


class _Pool(nn.Module):
    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.largest = settings["pool_function"] == "max"
        if settings["pool_function"] not in ("max", "average", "avg", "mean"):
            raise ConfigError(
                "There is no such pooling.", given=settings["pool_function"], expected="max, average, avg, mean"
            )
        self.kernel = pair(settings["pool_kernel_size"], "pool_kernel_size")
        stride = settings["pool_stride"]
        self.stride = self.kernel if stride is None else pair(stride, "pool_stride")
        self.padding = pair(settings["pool_padding"], "pool_padding")
        self.dilation = pair(settings["pool_dilation"], "pool_dilation")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ConfigError(
                "pool_padding is at most half of pool_kernel_size.",
                given=f"pool_padding={self.padding}, pool_kernel_size={self.kernel}",
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.largest:
            return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation)
        if self.dilation == (1, 1):
            return F.avg_pool2d(x, self.kernel, self.stride, self.padding)
        # torch's average pooling has no dilation: the same mean as a convolution of each channel by itself.
        weight = torch.full((x.shape[1], 1, *self.kernel), 1 / (self.kernel[0] * self.kernel[1]), device=x.device)
        return F.conv2d(x, weight.to(x.dtype), None, self.stride, self.padding, self.dilation, groups=x.shape[1])


def _span(kernel: int, dilation: int) -> int:
    return dilation * (kernel - 1) + 1


def _padding(padding: str | int | tuple[int, int] | list[int], kernel: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        totals = [_span(k, d) - 1 for k, d in zip(kernel, dilation, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    if isinstance(padding, str):
        raise ConfigError("There is no such padding.", given=padding, expected="valid, same, an integer or a pair")
    height, width = pair(padding, "padding")
    if height < 0 or width < 0:
        raise ConfigError("Padding cannot be negative.", given=padding)
    return (height, height), (width, width)
