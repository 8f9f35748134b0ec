"""A stack of convolutions, trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.conv_block import ConvBlock
from lightning_vision.encoders.layers import FCStack, merge_layers
from lightning_vision.encoders.maps import average_to_grid, ceil_div, fit_to_centre
from lightning_vision.encoders.options import Activation, Initializer, Norm, PaddingMode, PoolFunction
from lightning_vision.errors import ConfigError
from lightning_vision.types import HALF_STATS, Between, FeatureInfo

# What the documents build when neither conv_layers nor num_conv_layers is given, and the width of each layer otherwise.
DEFAULT_CHANNELS = (32, 64)
OUT_CHANNELS = 32
GRID = 4

Size = Annotated[int, Between(1)] | tuple[int, int]
Amount = Annotated[int, Between(0)] | tuple[int, int]


class StackedCNN(Encoder):
    """Convolutional layers with optional norm, dropout and pooling, then fully connected layers.

    ``embed`` averages the last map over a grid of 4 x 4 cells, flattens it and runs the fully connected layers. The
    grid makes them independent of the image size (the documents flatten the whole map, which fixes the size and makes
    most of the parameters) and still tells them roughly where something is, which one global average would not.

    ``pyramid`` returns the map behind each layer. Layers without padding lose cells at the border: their maps get them
    back by repeating the border, evenly on both sides, so that a map lies over the image within half a cell. A layer
    whose stride differs between height and width contributes its map averaged to the larger of both.

    Pixels are scaled to [-1, 1].

    Args:
        conv_layers: One mapping a convolutional layer, for layers that differ: ``out_channels``, ``kernel_size``,
            ``stride``, ``padding``, ``padding_mode``, ``dilation``, ``groups``, ``bias``, ``norm``, ``norm_params``,
            ``activation``, ``dropout``, ``pool_function``, ``pool_kernel_size``, ``pool_stride``, ``pool_padding``,
            ``pool_dilation``. What is missing is taken from the arguments below; the length of the list is the number
            of layers.
        num_conv_layers: Number of convolutional layers without a list. None: two.
        out_channels: Output channels of each convolution. None: 32 and 64 for the two layers without a number, else 32.
        kernel_size: Kernel, one number or (height, width).
        stride: Stride, one number or (height, width).
        padding: ``valid`` (none), ``same`` (size divided by the stride, rounded up), or cells, one number or (height,
            width).
        padding_mode: What the padding holds.
        dilation: Dilation, one number or (height, width).
        groups: Groups of the convolution; must divide the channels on both sides.
        conv_use_bias: Whether convolutions have a bias.
        conv_norm: Norm behind each convolution; ``layer`` is over channels, height and width.
        conv_norm_params: Arguments of the norm, such as ``{eps: 1e-6}``.
        conv_activation: Activation; ``swiglu``, ``geglu`` and ``reglu`` double the channels of the convolution in
            front.
        conv_dropout: Dropout rate behind the activation.
        pool_function: ``max``, or an average by any of its three names.
        pool_kernel_size: Pooling size, one number or (height, width). None: no pooling.
        pool_stride: Stride of the pooling. None: its size.
        pool_padding: Padding of the pooling.
        pool_dilation: Dilation of the pooling.
        fc_layers: One mapping a fully connected layer: ``output_size``, ``use_bias``, ``weights_initializer``,
            ``bias_initializer``, ``norm``, ``norm_params``, ``activation``, ``dropout``. Its length is the number of
            layers.
        num_fc_layers: Number of fully connected layers without a list.
        output_size: Width of the fully connected layers.
        fc_use_bias: Whether they have a bias.
        fc_weights_initializer: Initializer of their weights.
        fc_bias_initializer: Initializer of their biases.
        fc_norm: Their norm.
        fc_norm_params: Arguments of the norm.
        fc_activation: Their activation.
        fc_dropout: Their dropout rate.
        num_channels: Channels of the images. None: 3.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.

    Raises:
        ConfigError: If a layer has an unknown key, or values that do not go together.
    """

    def __init__(
        self,
        conv_layers: list[dict[str, Any]] | None = None,
        num_conv_layers: Annotated[int, Between(1)] | None = None,
        out_channels: Annotated[int, Between(1)] | None = None,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Literal["valid", "same"] | Amount = "valid",
        padding_mode: PaddingMode = "zeros",
        dilation: Size = 1,
        groups: Annotated[int, Between(1)] = 1,
        conv_use_bias: bool = True,
        conv_norm: Norm | None = None,
        conv_norm_params: dict[str, Any] | None = None,
        conv_activation: Activation | None = "relu",
        conv_dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        pool_function: PoolFunction = "max",
        pool_kernel_size: Size | None = 2,
        pool_stride: Size | None = None,
        pool_padding: Amount = 0,
        pool_dilation: Size = 1,
        fc_layers: list[dict[str, Any]] | None = None,
        num_fc_layers: Annotated[int, Between(0)] = 1,
        output_size: Annotated[int, Between(1)] = 128,
        fc_use_bias: bool = True,
        fc_weights_initializer: Initializer | dict[str, Any] = "xavier_uniform",
        fc_bias_initializer: Initializer | dict[str, Any] = "zeros",
        fc_norm: Norm | None = None,
        fc_norm_params: dict[str, Any] | None = None,
        fc_activation: Activation | None = "relu",
        fc_dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter)
        if self.skip:
            return
        if conv_layers is None and num_conv_layers is None:
            conv_layers = [{"out_channels": out_channels or width} for width in DEFAULT_CHANNELS]
        layers = merge_layers(
            "encoder.conv_layers",
            conv_layers,
            num_conv_layers or 0,
            {
                "out_channels": out_channels or OUT_CHANNELS,
                "kernel_size": kernel_size,
                "stride": stride,
                "padding": padding,
                "padding_mode": padding_mode,
                "dilation": dilation,
                "groups": groups,
                "bias": conv_use_bias,
                "norm": conv_norm,
                "norm_params": conv_norm_params,
                "activation": conv_activation,
                "dropout": conv_dropout,
                "pool_function": pool_function,
                "pool_kernel_size": pool_kernel_size,
                "pool_stride": pool_stride,
                "pool_padding": pool_padding,
                "pool_dilation": pool_dilation,
            },
        )
        if not layers:
            raise ConfigError(
                "stacked_cnn needs at least one convolutional layer.",
                given="encoder.conv_layers=[]",
                override="encoder.conv_layers=null",
            )
        width = self.num_channels
        self.blocks = torch.nn.ModuleList()
        strides = [(1, 1)]
        for layer in layers:
            block = ConvBlock(width, layer)
            self.blocks.append(block)
            strides.append((strides[-1][0] * block.stride[0], strides[-1][1] * block.stride[1]))
            width = block.out_channels
        self.fc = FCStack(
            width * GRID * GRID,
            merge_layers(
                "encoder.fc_layers",
                fc_layers,
                num_fc_layers,
                {
                    "output_size": output_size,
                    "use_bias": fc_use_bias,
                    "weights_initializer": fc_weights_initializer,
                    "bias_initializer": fc_bias_initializer,
                    "norm": fc_norm,
                    "norm_params": fc_norm_params,
                    "activation": fc_activation,
                    "dropout": fc_dropout,
                },
            ),
        )
        self.map_strides = strides[1:]
        self.min_size = self._smallest()
        self.pixel_stats = HALF_STATS.for_channels(self.num_channels)
        self.info = FeatureInfo(
            tuple(b.out_channels for b in self.blocks if isinstance(b, ConvBlock)),
            tuple(max(s) for s in self.map_strides),
            self.fc.out_features,
        )
        self.finish()

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> tuple[Tensor, ...]:
        """Return the images and the map behind each layer; of these only the last where no pyramid is wanted."""
        found: tuple[Tensor, ...] = (x,)
        for block in self.blocks:
            x = block(x)
            found = (*found, x) if "pyramid" in wanted else (x,)
        return found

    def embed_features(self, found: tuple[Tensor, ...]) -> Tensor:
        """Return ``(B, output_size)``."""
        return self.fc(average_to_grid(found[-1], (GRID, GRID)).flatten(1))

    def pyramid_features(self, found: tuple[Tensor, ...]) -> list[Tensor]:
        """Return the map behind each layer, brought to its stride's exact size."""
        height, width = found[0].shape[-2:]
        maps = []
        for x, (down, across), stride in zip(found[1:], self.map_strides, self.info.strides, strict=True):
            level = fit_to_centre(x, (ceil_div(height, down), ceil_div(width, across)))
            if down != across:
                level = average_to_grid(level, (ceil_div(height, stride), ceil_div(width, stride)))
            maps.append(level)
        return maps

    def _smallest(self) -> tuple[int, int]:
        size = (1, 1)
        for block in reversed(self.blocks):
            assert isinstance(block, ConvBlock)
            size = block.smallest(size)
        return size
