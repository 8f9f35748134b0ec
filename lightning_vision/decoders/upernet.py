"""UPerNet: pyramid pooling on top of a feature pyramid network."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import class_conv, conv_norm_relu, fc_stack, norm_relu
from lightning_vision.decoders.joined_conv import JoinedConv
from lightning_vision.encoders.maps import average_to_grid
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.types import Between, FeatureInfo


class UPerNetDecoder(Decoder):
    """UPerNet (Xiao et al., 2018, https://arxiv.org/abs/1807.10221).

    The coarsest map sees the whole image through pyramid pooling (Zhao et al., 2017, https://arxiv.org/abs/1612.01105):
    its averages over grids are projected, upsampled and joined to it. From there top-down: each finer map goes through
    a 1 x 1 convolution and the coarser level, upsampled, is added; all levels are smoothed, upsampled to the finest,
    joined and fused by a 3 x 3 convolution. Every convolution is followed by BatchNorm and ReLU. Maps of stride 4 and
    coarser are taken, all where there are none; the logits are upsampled once, bilinearly.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        num_channels: Width of all levels.
        pool_sizes: Cells a side of each grid.
        dropout: Rate at which whole channels of the fused map are dropped.
        num_fc_layers: Number of fully connected layers that are applied to every pixel before the class projection.
        fc_output_size: Their width.
        fc_use_bias: Whether they have a bias.
        fc_weights_initializer: Initializer of their weights.
        fc_bias_initializer: Initializer of their biases.
        fc_norm: Their normalisation; ``layer`` is over the channels of each pixel.
        fc_norm_params: Arguments of the normalisation, such as ``{eps: 1e-6}``.
        fc_activation: Their activation function; None for none.
        fc_dropout: Their dropout rate.
        fc_layers: One mapping a layer, for layers that differ (keys as in the classifier). Its length is their number.

    Raises:
        ConfigError: If a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        num_channels: Annotated[int, Between(1)] = 256,
        pool_sizes: tuple[Annotated[int, Between(1)], ...] = (1, 2, 3, 6),
        dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.1,
        num_fc_layers: Annotated[int, Between(0)] = 0,
        fc_output_size: Annotated[int, Between(1)] = 256,
        fc_use_bias: bool = True,
        fc_weights_initializer: Initializer | dict[str, Any] = "xavier_uniform",
        fc_bias_initializer: Initializer | dict[str, Any] = "zeros",
        fc_norm: Norm | None = None,
        fc_norm_params: dict[str, Any] | None = None,
        fc_activation: Activation | None = "relu",
        fc_dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        fc_layers: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(info, num_classes)
        self.levels = levels_of(info, finest=4)
        self.strides = list(self.levels)
        *finer, coarsest = [info.channels[i] for i in self.levels.values()]
        self.pooling = _PyramidPooling(coarsest, num_channels, tuple(pool_sizes))
        self.lateral = nn.ModuleList(conv_norm_relu(c, num_channels, 1) for c in finer)
        self.smooth = nn.ModuleList(conv_norm_relu(num_channels, num_channels) for _ in finer)
        self.join = JoinedConv([(num_channels, stride) for stride in self.strides], num_channels, self.strides[0])
        self.rest = nn.Sequential(*norm_relu(num_channels), nn.Dropout2d(dropout))
        self.fc = fc_stack(num_channels, locals())
        self.head = class_conv(self.fc.out_features, num_classes)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        *finer, coarsest = channels_last([features[i] for i in self.levels.values()])
        levels = [lateral(x) for lateral, x in zip(self.lateral, finer, strict=True)] + [self.pooling(coarsest)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resample(levels[i], self.strides[i], self.strides[i - 1], size)
        smoothed = [smooth(x) for smooth, x in zip(self.smooth, levels, strict=False)] + levels[-1:]
        return resample(self.head(self.fc(self.rest(self.join(smoothed, size)))), self.strides[0], 1, size)


class _PyramidPooling(nn.Module):
    """A map and its averages over grids, each projected and stretched back over it, joined by a 3 x 3 convolution."""

    def __init__(self, in_channels: int, width: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.project = nn.ModuleList(conv_norm_relu(in_channels, width, 1) for _ in sizes)
        self.join = conv_norm_relu(in_channels + len(sizes) * width, width)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [
            F.interpolate(project(average_to_grid(x, (n, n))), x.shape[-2:], mode="bilinear", align_corners=False)
            for project, n in zip(self.project, self.sizes, strict=True)
        ]
        y: Tensor = self.join(torch.cat((x, *pooled), 1))
        return y
