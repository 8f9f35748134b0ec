"""U-Net's expanding path, on the pyramid of any encoder."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import class_conv, conv_norm_relu, fc_stack, norm_relu
from lightning_vision.decoders.joined_conv import JoinedConv
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.overrides import override
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
        ConfigError: If ``channels`` does not name as many widths as there are stages, or a layer has an unknown key or
            value.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        conv_norm: Literal["batch"] | None = "batch",
        num_stages: Annotated[int, Between(1)] = 4,
        channels: list[Annotated[int, Between(1)]] | None = None,
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
        self.levels = levels_of(info)
        self.strides = stage_strides(tuple(self.levels), num_stages)
        widths = [min(CHANNELS_PER_STRIDE * stride, MAX_CHANNELS) for stride in self.strides[1:]]
        if channels is not None and len(channels) != len(widths):
            raise ConfigError(
                "The U-Net decoder needs one width for every stage.",
                given=f"decoder.channels={channels}",
                expected=f"{len(widths)} numbers, for strides {self.strides[1:]}",
                override=["decoder.channels=null", override("decoder.channels", widths)],
            )
        self.stages = nn.ModuleList()
        width = info.channels[-1]
        for before, stride, out in zip(self.strides, self.strides[1:], channels or widths, strict=False):
            beside = [(info.channels[self.levels[stride]], stride)] if stride in self.levels else []
            join = JoinedConv([(width, before), *beside], out, stride, upsample_mode, bias=conv_norm is None)
            self.stages.append(_Stage(join, conv_norm))
            width = out
        self.fc = fc_stack(width, locals())
        self.head = class_conv(self.fc.out_features, num_classes, kernel_size=3)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        features = channels_last(features)
        x = features[-1]
        for stage, stride in zip(self.stages, self.strides[1:], strict=True):
            beside = [features[self.levels[stride]]] if stride in self.levels else []
            x = stage([x, *beside], size)
        return resample(self.head(self.fc(x)), self.strides[-1], 1, size)


class _Stage(nn.Module):
    """Two 3 x 3 convolutions, the first of what comes from below and of the encoder's map beside it."""

    def __init__(self, join: JoinedConv, norm: str | None) -> None:
        super().__init__()
        width = join.out_channels
        self.join = join
        self.rest = nn.Sequential(*norm_relu(width, norm), *conv_norm_relu(width, width, norm=norm))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        y: Tensor = self.rest(self.join(maps, size))
        return y


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
