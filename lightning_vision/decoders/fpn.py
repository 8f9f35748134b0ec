"""Feature pyramid network with the semantic branch of panoptic FPN."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import class_conv, conv_norm_relu, fc_stack, norm_relu
from lightning_vision.decoders.joined_conv import JoinedConv
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.types import Between, FeatureInfo


class FPNDecoder(Decoder):
    """Feature pyramid network (Lin et al., 2017, https://arxiv.org/abs/1612.03144) for segmentation.

    Top-down: every map of the encoder goes through a 1 x 1 convolution (lateral connection) and the coarser level,
    upsampled, is added. Then the semantic branch of panoptic FPN (Kirillov et al., 2019,
    https://arxiv.org/abs/1901.02446): each level is brought to the finest by convolutions of 3 x 3 with group
    normalisation and ReLU, each followed by bilinear upsampling; the results are added and classified, and the logits
    upsampled once, bilinearly.

    Deviation: the 3 x 3 convolution that Lin et al. put behind each level is the first one of the branch.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        num_channels: Width of the pyramid's levels; the semantic branch has half of it (256 and 128 in the papers).
        num_levels: Number of levels: the coarsest maps of the encoder. Where it has fewer, coarser ones are max-pooled
            from its last.
        upsample_mode: How the top-down way upsamples: ``nearest``, as in the paper (the convolutions behind it smooth
            the result), or ``bilinear``.
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
        num_channels: Annotated[int, Between(4)] = 256,
        num_levels: Annotated[int, Between(1)] = 4,
        upsample_mode: Literal["nearest", "bilinear"] = "nearest",
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
        found = list(levels_of(info).items())[-num_levels:]
        self.taken = [i for _, i in found]
        self.strides = [stride for stride, _ in found]
        channels = [info.channels[i] for i in self.taken]
        while len(self.strides) < num_levels:
            self.strides.append(2 * self.strides[-1])
            channels.append(channels[-1])
        self.upsample_mode = upsample_mode
        self.lateral = nn.ModuleList(nn.Conv2d(c, num_channels, 1) for c in channels)
        width = num_channels // 2
        self.branches = nn.ModuleList(
            _Branch(num_channels, width, self.strides[min(1, i) : i + 1]) for i in range(num_levels)
        )
        self.fc = fc_stack(width, locals())
        self.head = class_conv(self.fc.out_features, num_classes)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        maps = channels_last([features[i] for i in self.taken])
        while len(maps) < len(self.strides):
            maps.append(F.max_pool2d(maps[-1], 2, ceil_mode=True))
        levels = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            above = resample(levels[i], self.strides[i], self.strides[i - 1], size, self.upsample_mode)
            levels[i - 1] = levels[i - 1] + above
        finest, *coarser = [branch(x, size) for branch, x in zip(self.branches, levels, strict=True)]
        if coarser:  # added first, then upsampled once
            finest = finest + resample(sum(coarser[1:], coarser[0]), self.strides[1], self.strides[0], size)
        return resample(self.head(self.fc(finest)), self.strides[0], 1, size)


class _Branch(nn.Module):
    """Convolutions that bring one level to the finest but one; each behind the first is of an upsampled map.

    Args:
        in_channels: Width of the pyramid.
        width: Width of the branch.
        strides: Strides on the way, fine to coarse.
    """

    def __init__(self, in_channels: int, width: int, strides: list[int]) -> None:
        super().__init__()
        self.first = conv_norm_relu(in_channels, width, norm="group")
        down = strides[::-1]
        self.joins = nn.ModuleList(JoinedConv([(width, before)], width, stride) for before, stride in pairwise(down))
        self.rests = nn.ModuleList(nn.Sequential(*norm_relu(width, "group")) for _ in self.joins)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.first(x)
        for join, rest in zip(self.joins, self.rests, strict=True):
            x = rest(join([x], size))
        return x
