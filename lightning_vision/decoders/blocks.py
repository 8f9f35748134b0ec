"""What dense decoders are made of: convolution with norm and ReLU, and the layers that end in class logits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.layers import FC_KEYS, FCStack, merge_layers


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that takes the running statistics where a batch has one value a channel.

    One image and a map of one cell (pooled, or of a small image): one value has no variance, and torch refuses it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def conv(
    in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """Return a convolution that keeps the size of the map, for an odd kernel; initialised for ReLU behind it."""
    padding = dilation * (kernel_size // 2)
    made = nn.Conv2d(
        in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    return start_conv(made)


def start_conv(conv: nn.Conv2d) -> nn.Conv2d:
    """Initialise a convolution that ReLU follows (He et al., 2015), and return it."""
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def separable_conv(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution of each channel by itself and one of 1 x 1 behind it."""
    return nn.Sequential(
        conv(in_channels, in_channels, dilation=dilation, groups=in_channels), conv(in_channels, out_channels, 1)
    )


def norm_relu(channels: int, norm: str | None = "batch") -> list[nn.Module]:
    """Return the norm (``batch``, ``group`` or None) and ReLU that follow a convolution.

    Groups are at most 32 (Wu and He, 2018, https://arxiv.org/abs/1803.08494), of at least 4 channels where there are.
    """
    norms: list[nn.Module] = []
    if norm == "batch":
        norms = [BatchNorm(channels)]
    elif norm == "group":
        norms = [nn.GroupNorm(math.gcd(32, channels, max(1, channels // 4)), channels)]
    return [*norms, nn.ReLU(inplace=True)]


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int = 3, norm: str | None = "batch"
) -> nn.Sequential:
    """Return a convolution, its norm and ReLU; without a norm the convolution has a bias."""
    return nn.Sequential(
        conv(in_channels, out_channels, kernel_size, bias=norm is None), *norm_relu(out_channels, norm)
    )


def fc_stack(in_channels: int, arguments: Mapping[str, Any], per_pixel: bool = True) -> FCStack:
    """Return the fully connected layers of a decoder.

    Args:
        in_channels: Channels that come in.
        arguments: All arguments of the decoder's constructor (its ``locals()``). The layers' settings are written out
            there, where the config's checks read them; here is the one place that takes them.
        per_pixel: Whether they are applied to every pixel of a map, or to a vector.
    """
    defaults = {key: arguments[f"fc_{key}"] for key in FC_KEYS}
    layers = merge_layers("decoder.fc_layers", arguments["fc_layers"], arguments["num_fc_layers"], defaults)
    return FCStack(in_channels, layers, per_pixel=per_pixel)


def class_conv(in_channels: int, num_classes: int, kernel_size: int = 1) -> nn.Conv2d:
    """Return the convolution that gives the logits; they start without bias."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size, padding=kernel_size // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
