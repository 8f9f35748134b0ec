"""U-Net's expanding path, on the pyramid of any encoder."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, resample
from lightning_vision.encoders.layers import FCStack, merge_layers
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo

# Channels per pixel of stride: 256 at stride 16 down to 16 at stride 1, segmentation_models.pytorch's widths for an
# encoder of strides 2 to 32; an encoder that ends at stride 4 does not pay for 256 channels at full resolution.
CHANNELS_PER_STRIDE, MAX_CHANNELS = 16, 256


class UNetDecoder(Decoder):
    """U-Net's expanding path (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597).

    It starts at the coarsest map. Each stage doubles the resolution, joins the encoder's map of that stride where there
    is one, and runs two 3 x 3 convolutions. Stages end at stride 1; where the last one is coarser, the logits are
    upsampled once, bilinearly. Any image size works: maps are cut, not stretched.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        conv_norm: Normalisation behind each convolution: ``batch`` or None.
        num_stages: Number of stages, at most as many as lead to stride 1.
        channels: Width of each stage, coarse to fine. None: 16 times the stage's stride, at most 256.
        upsample_mode: How a stage doubles the resolution: ``bilinear`` or ``nearest``.
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
        ConfigError: If ``channels`` names fewer widths than there are stages, or a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        conv_norm: Literal["batch"] | None = "batch",
        num_stages: Annotated[int, Between(1)] = 4,
        channels: list[int] | None = None,
        upsample_mode: Literal["bilinear", "nearest"] = "bilinear",
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
        # Where several maps share a stride the deepest of them speaks for it.
        self.level_of = {stride: i for i, stride in enumerate(info.strides)}
        self.strides = stage_strides(tuple(self.level_of), num_stages)
        widths = channels or [min(CHANNELS_PER_STRIDE * stride, MAX_CHANNELS) for stride in self.strides[1:]]
        if len(widths) < len(self.strides) - 1:
            raise ConfigError(
                "The U-Net decoder needs a width for every stage.",
                given=f"decoder.channels={widths}",
                expected=f"{len(self.strides) - 1} numbers, for strides {self.strides[1:]}",
                override="decoder.channels=null",
            )
        self.upsample_mode = upsample_mode
        self.stages = nn.ModuleList()
        width = info.channels[-1]
        for stride, out in zip(self.strides[1:], widths, strict=False):
            skip = info.channels[self.level_of[stride]] if stride in self.level_of else 0
            self.stages.append(nn.Sequential(*_conv(width + skip, out, conv_norm), *_conv(out, out, conv_norm)))
            width = out
        layers = merge_layers(
            "decoder.fc_layers",
            fc_layers,
            num_fc_layers,
            {
                "output_size": fc_output_size,
                "use_bias": fc_use_bias,
                "weights_initializer": fc_weights_initializer,
                "bias_initializer": fc_bias_initializer,
                "norm": fc_norm,
                "norm_params": fc_norm_params,
                "activation": fc_activation,
                "dropout": fc_dropout,
            },
        )
        self.fc = FCStack(width, layers, per_pixel=True)
        self.head = nn.Conv2d(self.fc.out_features, num_classes, 3, padding=1)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        x = features[-1]
        for stage, before, stride in zip(self.stages, self.strides, self.strides[1:], strict=False):
            x = resample(x, before, stride, size, mode=self.upsample_mode)
            if stride in self.level_of:
                x = torch.cat((x, features[self.level_of[stride]]), 1)
            x = stage(x)
        return resample(self.head(self.fc(x)), self.strides[-1], 1, size)


def stage_strides(levels: tuple[int, ...], num_stages: int) -> tuple[int, ...]:
    """Return the stride that the decoder starts with and the one behind each stage.

    A stage halves the stride. Where that would miss the encoder's next finer map (its stride is no power of two below),
    the stage goes to that map at once.

    Args:
        levels: Different strides of the encoder, fine to coarse.
        num_stages: Largest number of stages; fewer if stride 1 is reached.
    """
    strides = [levels[-1]]
    while strides[-1] > 1 and len(strides) <= num_stages:
        now = strides[-1]
        finer = [s for s in levels if s < now]
        half = max(1, now // 2)
        if finer:
            ratio = now / finer[-1]
            on_the_way = now % 2 == 0 and ratio.is_integer() and int(ratio) & (int(ratio) - 1) == 0
            strides.append(half if on_the_way else finer[-1])
        else:
            strides.append(half)
    return tuple(strides)


def _conv(in_channels: int, out_channels: int, norm: str | None) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm is None)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return [conv, *([nn.BatchNorm2d(out_channels)] if norm == "batch" else []), nn.ReLU(inplace=True)]
