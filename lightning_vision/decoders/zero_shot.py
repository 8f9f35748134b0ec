"""Classification by the names of the classes, with the text tower that the encoder was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.decoders.base import Decoder
from lightning_vision.errors import ConfigError
from lightning_vision.types import FeatureInfo

if TYPE_CHECKING:
    from lightning_vision.encoders.base import Encoder

PLACE = "{}"


class ZeroShotDecoder(Decoder):
    """Compares the embedding of an image with those of texts, one or more a class (Radford et al., 2021).

    The logits are the scaled cosine similarities of image and text, as the encoder's own library computes them
    (https://arxiv.org/abs/2103.00020; SigLIP adds a bias, https://arxiv.org/abs/2303.15343). With several templates
    the normalised text embeddings of a class are averaged. The text tower runs once, when the model is built; the
    checkpoint holds its embeddings.

    Args:
        info: What the encoder tells about its features.
        num_classes: Number of classes.
        template: Text or texts about an image, ``{}`` is the name of the class; underscores in names become spaces.
        class_names: Classes to choose from, names or a file with one a line. None: those of the data.

    Raises:
        ConfigError: A template has no place for the name, or the encoder has no text tower.
    """

    consumes: ClassVar[str] = "embedding"
    output: ClassVar[str] = "label"
    ready: ClassVar[bool] = True

    projection: Tensor
    projection_bias: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        info: FeatureInfo,
        num_classes: int,
        template: str | list[str] = "a photo of a {}.",
        class_names: list[str] | str | None = None,
    ) -> None:
        super().__init__(info, num_classes)
        self.templates = [template] if isinstance(template, str) else list(template)
        for text in self.templates or [""]:
            if PLACE not in text:
                raise ConfigError(
                    "A template has no place for the name of the class.",
                    given=f"decoder.template={text!r}",
                    expected="a text with {} in it",
                    override="decoder.template='a photo of a {}.'",
                )
        dim = info.embed_dim
        self.register_buffer("projection", torch.eye(dim))
        self.register_buffer("projection_bias", torch.zeros(dim))
        self.register_buffer("text", torch.zeros(num_classes, dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    def start(self, encoder: Encoder, class_names: Sequence[str]) -> None:
        """Embed the texts of all classes."""
        names = [name.replace("_", " ") for name in class_names]
        found = encoder.text_classifier([[t.replace(PLACE, name) for t in self.templates] for name in names])
        if found.projection is not None:
            self.projection = found.projection
        self.projection_bias = self.projection.new_zeros(self.projection.shape[0])
        if found.projection_bias is not None:
            self.projection_bias = found.projection_bias
        self.text = found.text
        self.scale, self.bias = torch.tensor(found.scale), torch.tensor(found.bias)

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes)`` of embeddings ``(B, info.embed_dim)``; the size is not used."""
        if not isinstance(features, Tensor):
            raise ConfigError("Zero-shot classification takes the encoder's embedding, not its pyramid.")
        image = F.normalize(F.linear(features, self.projection, self.projection_bias), dim=-1)
        return self.scale * (image @ self.text.mT) + self.bias

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The length of the shared space is known from the weights only.
        for name in ("projection", "projection_bias", "text"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)
