"""DPT's fusion of a pyramid by residual units."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import BatchNorm, class_conv, conv, fc_stack, norm_relu
from lightning_vision.decoders.joined_conv import JoinedConv
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.types import Between, FeatureInfo


class DPTDecoder(Decoder):
    """Dense prediction transformer (Ranftl et al., 2021, https://arxiv.org/abs/2103.13413): its fusion and its head.

    The paper's first half, which reassembles the tokens of a ViT into a pyramid, is the neck ``reassemble``. Every
    level goes through a 3 x 3 convolution; from the coarsest on, a level is added to what comes from below, refined by
    residual units of two convolutions (RefineNet, Lin et al., 2017, https://arxiv.org/abs/1611.06612), projected and
    upsampled to the next finer one. The head works at twice the resolution of the finest level. Maps of stride 4 and
    coarser are taken, all where there are none.

    Deviations: upsampling keeps the cells over their pixels (no aligned corners), and the projections come before it,
    which is the same function for a quarter of the cost.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        num_channels: Width of all levels.
        dropout: Rate at which whole channels are dropped in the head.
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
    one_scale_neck: ClassVar[str | None] = "reassemble"

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        num_channels: Annotated[int, Between(1)] = 256,
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
        self.enter = nn.ModuleList(conv(info.channels[i], num_channels) for i in self.levels.values())
        self.beside = nn.ModuleList(_ResidualUnit(num_channels) for _ in self.strides[:-1])
        self.fused = nn.ModuleList(_ResidualUnit(num_channels) for _ in self.strides)
        self.project = nn.ModuleList(nn.Conv2d(num_channels, num_channels, 1) for _ in self.strides)
        self.stride = max(1, self.strides[0] // 2)
        self.join = JoinedConv([(num_channels, self.strides[0])], num_channels, self.stride)
        self.rest = nn.Sequential(*norm_relu(num_channels), nn.Dropout2d(dropout))
        self.fc = fc_stack(num_channels, locals())
        self.head = class_conv(self.fc.out_features, num_classes)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        maps = channels_last([features[i] for i in self.levels.values()])
        levels = [enter(x) for enter, x in zip(self.enter, maps, strict=True)]
        x = levels[-1]
        for i in reversed(range(len(levels))):
            if x is not levels[i]:
                x = resample(x, self.strides[i + 1], self.strides[i], size) + self.beside[i](levels[i])
            x = self.project[i](self.fused[i](x))
        return resample(self.head(self.fc(self.rest(self.join([x], size)))), self.stride, 1, size)


class _ResidualUnit(nn.Sequential):
    """ReLU, 3 x 3 convolution and BatchNorm, twice, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ReLU(),
            conv(width, width),
            *norm_relu(width),
            conv(width, width),
            BatchNorm(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)
