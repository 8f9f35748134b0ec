"""DeepLabV3+: atrous spatial pyramid pooling and one fine map."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import class_conv, conv, conv_norm_relu, fc_stack, norm_relu, separable_conv
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.types import Between, FeatureInfo

# Pixels between the taps of the atrous convolutions: the paper's rates 6, 12 and 18 at stride 16.
REACH = (96, 192, 288)


class DeepLabV3PlusDecoder(Decoder):
    """DeepLabV3+ (Chen et al., 2018, https://arxiv.org/abs/1802.02611).

    The coarsest map goes through atrous spatial pyramid pooling: a 1 x 1 convolution, 3 x 3 convolutions with holes,
    and the map's average, joined by a 1 x 1 convolution. It is refined by a 3 x 3 convolution, upsampled, joined to the
    finest map of stride 4 or more (where there is none, to the next finer one) and refined once more. Convolutions of
    3 x 3 are separable; BatchNorm and ReLU follow each. The logits are upsampled once, bilinearly.

    Deviations: the first of the paper's two refining convolutions works at the coarse stride, as in
    segmentation_models.pytorch, where it costs a fraction. The encoder keeps its strides; the holes follow them.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        num_channels: Width.
        skip_channels: Channels that the fine map is projected to.
        atrous_rates: Cells between the taps of each atrous convolution. None: 96, 192 and 288 pixels over the coarsest
            stride, which is the paper's 6, 12 and 18 at stride 16.
        dropout: Rate at which whole channels are dropped behind the pooling.
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
        skip_channels: Annotated[int, Between(1)] = 48,
        atrous_rates: list[Annotated[int, Between(1)]] | None = None,
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
        self.levels = levels_of(info)
        *finer, self.coarse = self.levels
        self.fine = next((stride for stride in finer if stride >= 4), max(finer, default=self.coarse))
        rates = [max(1, round(pixels / self.coarse)) for pixels in REACH] if atrous_rates is None else atrous_rates
        self.pooling = _AtrousPooling(info.channels[self.levels[self.coarse]], num_channels, rates, dropout)
        self.refine = nn.Sequential(separable_conv(num_channels, num_channels), *norm_relu(num_channels))
        self.beside = conv_norm_relu(info.channels[self.levels[self.fine]], skip_channels, 1) if finer else None
        # A separable convolution of both maps joined: each by itself, and added.
        self.joins = nn.ModuleList(
            separable_conv(c, num_channels) for c in (num_channels, skip_channels)[: 1 + bool(finer)]
        )
        self.rest = nn.Sequential(*norm_relu(num_channels))
        self.fc = fc_stack(num_channels, locals())
        self.head = class_conv(self.fc.out_features, num_classes)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        coarse, fine = channels_last([features[self.levels[stride]] for stride in (self.coarse, self.fine)])
        x = self.joins[0](resample(self.refine(self.pooling(coarse)), self.coarse, self.fine, size))
        if self.beside is not None:
            x = x + self.joins[1](self.beside(fine))
        return resample(self.head(self.fc(self.rest(x))), self.fine, 1, size)


class _AtrousPooling(nn.Module):
    """Parallel convolutions of different reach and the map's average; joined: each projected by itself, and added."""

    def __init__(self, in_channels: int, width: int, rates: list[int], dropout: float) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm_relu(in_channels, width, 1),
                *(nn.Sequential(separable_conv(in_channels, width, rate), *norm_relu(width)) for rate in rates),
                conv_norm_relu(in_channels, width, 1),  # of the average
            ]
        )
        self.project = nn.ModuleList(conv(width, width, 1) for _ in self.branches)
        self.rest = nn.Sequential(*norm_relu(width), nn.Dropout2d(dropout))

    def forward(self, x: Tensor) -> Tensor:
        inputs = [x] * (len(self.branches) - 1) + [x.mean((2, 3), keepdim=True)]
        joined, *others = [
            project(branch(z)) for branch, project, z in zip(self.branches, self.project, inputs, strict=True)
        ]
        y: Tensor = self.rest(sum(others, joined))
        return y
