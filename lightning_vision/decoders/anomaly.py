"""How unusual an image is: the distance of its embedding from what is normal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from lightning_vision.decoders.base import Decoder
from lightning_vision.decoders.blocks import fc_stack
from lightning_vision.encoders.options import Activation, Initializer, Norm
from lightning_vision.errors import ConfigError
from lightning_vision.losses.base import at_least_float32
from lightning_vision.types import Between, FeatureInfo

# No component of the centre is nearer to zero: a network of zeros would be at once at such a centre.
CENTER_MARGIN = 0.1


class AnomalyDecoder(Decoder):
    """Map embeddings to vectors around a fixed centre; the score is the squared distance from it.

    Deep SVDD (Ruff et al., ICML 2018): ``score = ||z - c||^2``, where the centre ``c`` is the mean of the training
    images' vectors before the first step. No layer has a bias here unless ``fc_use_bias`` says so, since a bias can
    move every image to the centre whatever it shows; for the same reason the paper advises against bounded activations
    (tanh, sigmoid), which saturate. An encoder that is trained along may have both (pretrained ones do): with many
    epochs watch whether the scores of all images shrink together.

    Args:
        info: What the encoder tells about its features.
        num_classes: Number of classes, which is 2.
        output_size: Length of the vectors; null: the last linear layer is left out.
        num_fc_layers: Number of fully connected layers in front of the last one.
        fc_output_size: Their width.
        fc_use_bias: Whether they have a bias.
        fc_weights_initializer: Initializer of their weights.
        fc_bias_initializer: Initializer of their biases.
        fc_norm: Their normalisation; its shift is a bias too.
        fc_norm_params: Arguments of the normalisation, such as ``{eps: 1e-6}``.
        fc_activation: Their activation function; None for none.
        fc_dropout: Their dropout rate.
        fc_layers: One mapping a layer, for layers that differ: ``output_size``, ``use_bias``, ``weights_initializer``,
            ``bias_initializer``, ``norm``, ``norm_params``, ``activation``, ``dropout``; what is missing is taken from
            the values above. Its length is the number of layers.
        normal_class: Name of the class that is normal, of data with any number of classes; ``auto``: a usual name such
            as ``normal`` or ``good``, or the one class of the training rows.
        threshold_quantile: Share of normal validation images that shall be called normal. It gives the threshold where
            no validation image is anomalous; it is the one with the best F1 otherwise.

    Attributes:
        center: ``(D,)``, ``c``.
        threshold: Scores from here on are called anomalous; NaN until it was learned on a validation split.

    Raises:
        ConfigError: If a layer has an unknown key or value.
    """

    consumes: ClassVar[str] = "embedding"
    output: ClassVar[str] = "score"
    starts_from_data: ClassVar[bool] = True
    center: Tensor
    threshold: Tensor

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        output_size: Annotated[int, Between(1)] | None = 32,
        num_fc_layers: Annotated[int, Between(0)] = 0,
        fc_output_size: Annotated[int, Between(1)] = 256,
        fc_use_bias: bool = False,
        fc_weights_initializer: Initializer | dict[str, Any] = "xavier_uniform",
        fc_bias_initializer: Initializer | dict[str, Any] = "zeros",
        fc_norm: Norm | None = None,
        fc_norm_params: dict[str, Any] | None = None,
        fc_activation: Activation | None = "relu",
        fc_dropout: Annotated[float, Between(0, 1, high_open=True)] = 0.0,
        fc_layers: list[dict[str, Any]] | None = None,
        normal_class: str = "auto",
        threshold_quantile: Annotated[float, Between(0, 1)] = 0.95,
    ) -> None:
        super().__init__(info, num_classes)
        self.normal_class = normal_class
        self.threshold_quantile = threshold_quantile
        self.fc = fc_stack(info.embed_dim, locals(), per_pixel=False)
        size = self.fc.out_features if output_size is None else output_size
        self.last_layer = nn.Identity() if output_size is None else nn.Linear(self.fc.out_features, size, bias=False)
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("threshold", torch.tensor(torch.nan))

    def vectors(self, features: Tensor | list[Tensor]) -> Tensor:
        """Return the vectors ``(B, D)`` of embeddings ``(B, info.embed_dim)``, of at least 32 bits."""
        if not isinstance(features, Tensor):
            raise ConfigError("This decoder takes the encoder's embedding, not its pyramid.")
        return at_least_float32(self.last_layer(self.fc(features)))

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return scores ``(B,)``, from 0 on, of embeddings ``(B, info.embed_dim)``; the size is not used."""
        return (self.vectors(features) - self.center).square().sum(1)

    @torch.no_grad()
    def start_from(self, features: Iterable[Tensor | list[Tensor]], size: tuple[int, int]) -> None:
        """Put the centre at the mean of the vectors, each component at least 0.1 away from 0, as the authors do."""
        total = self.center.new_zeros(len(self.center), dtype=torch.float64)
        count = self.center.new_zeros(1, dtype=torch.float64)
        for batch in features:
            vectors = self.vectors(batch)
            total += vectors.sum(0, dtype=torch.float64)
            count += len(vectors)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
            distributed.all_reduce(count)
        mean = total / count.clamp(min=1)
        # On its side of 0; exactly 0, as where no image excites a unit, is moved up.
        margin = torch.where(mean < 0, -CENTER_MARGIN, CENTER_MARGIN)
        self.center.copy_(torch.where(mean.abs() < CENTER_MARGIN, margin, mean))
