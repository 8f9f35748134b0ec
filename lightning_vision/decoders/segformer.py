"""SegFormer's all-MLP head."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.base import Decoder, channels_last, levels_of, resample
from lightning_vision.decoders.blocks import class_conv, conv, fc_stack, norm_relu
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo

HIDDEN_SIZE = 256


class SegFormerDecoder(Decoder):
    """SegFormer's head (Xie et al., 2021, https://arxiv.org/abs/2105.15203): linear layers at every pixel.

    Every map is projected to one width and upsampled to the finest; all are fused by a linear layer, BatchNorm and
    ReLU, and classified. Maps of stride 4 and coarser are taken, all where there are none; the logits are upsampled
    once, bilinearly.

    The paper projects, upsamples, joins and fuses. Here each map goes through its part of the fusing layer before it is
    upsampled, and the results are added: the same function, at a third of the cost. The projection and the fusing
    layer, which could be one matrix, stay two: a product of two learns faster.

    Args:
        info: What the encoder (or the neck) tells about its features.
        num_classes: Number of classes.
        hidden_size: Width of the projection.
        hidden_dim: Another name of ``hidden_size``, for its value where it is given.
        dropout: Rate at which whole channels of the fused map are dropped, as in the paper's code.
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
        ConfigError: If both names of the width are given, or a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "pyramid"
    output: ClassVar[str] = "mask"

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        hidden_size: Annotated[int, Between(1)] = HIDDEN_SIZE,
        hidden_dim: Annotated[int, Between(1)] | None = None,
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
        if hidden_dim is not None and hidden_size not in (HIDDEN_SIZE, hidden_dim):
            raise ConfigError(
                "hidden_dim is another name of hidden_size; they differ.",
                given=f"decoder.hidden_size={hidden_size} and decoder.hidden_dim={hidden_dim}",
                override=f"decoder.hidden_size={hidden_size}",
            )
        width = hidden_size if hidden_dim is None else hidden_dim
        self.levels = levels_of(info, finest=4)
        self.project = nn.ModuleList(conv(info.channels[i], width, 1, bias=True) for i in self.levels.values())
        self.join = conv(len(self.levels) * width, width, 1)
        self.fuse = nn.Sequential(*norm_relu(width), nn.Dropout2d(dropout))
        self.fc = fc_stack(width, locals())
        self.head = class_conv(self.fc.out_features, num_classes)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` at ``size``.

        Args:
            features: Maps ``(B, info.channels[i], ceil(H / info.strides[i]), ceil(W / info.strides[i]))``.
            size: Height and width of the images, in pixels.
        """
        finest = min(self.levels)
        maps = channels_last([features[i] for i in self.levels.values()])
        parts = self.join.weight.chunk(len(maps), 1)
        levels = [
            resample(F.conv2d(project(x), part), stride, finest, size)
            for project, part, x, stride in zip(self.project, parts, maps, self.levels, strict=True)
        ]
        fused = self.fuse(sum(levels[1:], levels[0]))
        return resample(self.head(self.fc(fused)), finest, 1, size)
