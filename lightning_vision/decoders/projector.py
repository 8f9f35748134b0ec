"""A vector an image, to compare images by: the projection head of contrastive learning."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.blocks import fc_stack
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo


class ProjectorDecoder(Decoder):
    """SimCLR's projection head (Chen et al., ICML 2020): a hidden layer with ReLU, then a linear layer.

    The loss compares projections; what is kept is the encoder's embedding in front of them, which serves other tasks
    better: what two views do not have in common, such as colour, is lost in the head. Projections are not normalised;
    the losses do that. The formula is the paper's; its published code has batch normalisation too (``fc_norm=batch``).

    Args:
        info: What the encoder tells about its features.
        num_classes: Not used: there are as many vectors as images, whatever their classes.
        output_size: Length of a projection.
        num_fc_layers: Number of hidden layers.
        fc_output_size: Their width; None: that of the embedding.
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
        predicts: The vector that a prediction holds: the encoder's ``embedding``, or the ``projection``.

    Raises:
        ConfigError: If a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "embedding"
    output: ClassVar[str] = "embedding"
    splits: ClassVar[bool] = True

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        output_size: Annotated[int, Between(1)] = 128,
        num_fc_layers: Annotated[int, Between(0)] = 1,
        fc_output_size: Annotated[int, Between(1)] | None = None,
        fc_use_bias: bool = True,
        fc_weights_initializer: Initializer | dict[str, Any] = "xavier_uniform",
        fc_bias_initializer: Initializer | dict[str, Any] = "zeros",
        fc_norm: Norm | None = None,
        fc_norm_params: dict[str, Any] | None = None,
        fc_activation: Activation | None = "relu",
        fc_dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        fc_layers: list[dict[str, Any]] | None = None,
        predicts: Literal["embedding", "projection"] = "embedding",
    ) -> None:
        super().__init__(info, num_classes)
        fc_output_size = info.embed_dim if fc_output_size is None else fc_output_size
        self.fc = fc_stack(info.embed_dim, locals(), per_pixel=False)
        self.head = nn.Linear(self.fc.out_features, output_size)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.predicts = predicts

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return projections ``(B, output_size)`` of embeddings ``(B, info.embed_dim)``; the size is not used."""
        return self.last(self.hidden(features, size))

    def hidden(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the embeddings as they are, ``(B, info.embed_dim)``."""
        if not isinstance(features, Tensor):
            raise ConfigError("A projector takes the encoder's embedding, not its pyramid.")
        return features

    def last(self, hidden: Tensor) -> Tensor:
        """Return projections ``(B, output_size)``."""
        projections: Tensor = self.head(self.fc(hidden))
        return projections
