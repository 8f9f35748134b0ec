"""One label an image, from the embedding."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.blocks import fc_stack
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo


class ClassifierDecoder(Decoder):
    """Optional fully connected layers, then a linear layer with one output a class.

    The last layer starts with small weights (standard deviation 0.01) and no bias: all classes are equally likely, and
    a pretrained encoder is not thrown off by the first gradients.

    Args:
        info: What the encoder tells about its features.
        num_classes: Number of classes.
        num_fc_layers: Number of fully connected layers in front of the last one.
        fc_output_size: Their width.
        fc_use_bias: Whether they have a bias.
        fc_weights_initializer: Initializer of their weights.
        fc_bias_initializer: Initializer of their biases.
        fc_norm: Their normalisation.
        fc_norm_params: Arguments of the normalisation, such as ``{eps: 1e-6}``.
        fc_activation: Their activation function; None for none.
        fc_dropout: Their dropout rate.
        fc_layers: One mapping a layer, for layers that differ: ``output_size``, ``use_bias``, ``weights_initializer``,
            ``bias_initializer``, ``norm``, ``norm_params``, ``activation``, ``dropout``; what is missing is taken from
            the values above. Its length is the number of layers.
        normalize: Bring what the last layer gets to unit length (L2) times the square root of its width. Embeddings of
            unit length alone keep the logits so small that cross-entropy cannot fall (Wang et al. 2017, NormFace,
            https://arxiv.org/abs/1704.06369, who multiply by a scale); with this one an entry is about 1 in size, as
            behind a normalisation layer, so that the learning rates of any other embedding hold.

    Raises:
        ConfigError: If a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "embedding"
    output: ClassVar[str] = "label"
    splits: ClassVar[bool] = True

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
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
        normalize: bool = False,
    ) -> None:
        super().__init__(info, num_classes)
        self.fc = fc_stack(info.embed_dim, locals(), per_pixel=False)
        self.normalize = normalize
        self.head = nn.Linear(self.fc.out_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes)`` of embeddings ``(B, info.embed_dim)``; the size is not used."""
        return self.last(self.hidden(features, size))

    def hidden(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return what the last layer gets, ``(B, D)``: what the fully connected layers make of the embeddings."""
        if not isinstance(features, Tensor):
            raise ConfigError("A classifier takes the encoder's embedding, not its pyramid.")
        hidden: Tensor = self.fc(features)
        return F.normalize(hidden, dim=1) * math.sqrt(hidden.shape[1]) if self.normalize else hidden

    def last(self, hidden: Tensor) -> Tensor:
        """Return logits ``(B, num_classes)``."""
        logits: Tensor = self.head(hidden)
        return logits
