"""The contract of an encoder: what it tells before it runs, and what it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision.encoders.adapters import AdapterSpec, attach_adapter
from lightning_vision.encoders.maps import ceil_div, cut
from lightning_vision.encoders.weights import read_state_dict
from lightning_vision.errors import ConfigError
from lightning_vision.types import HALF_STATS, FeatureInfo, PixelStats

if TYPE_CHECKING:
    from lightning_vision.encoders.text import TextClassifier


class Encoder(nn.Module):
    """Turns images into an embedding or into a pyramid of feature maps.

    A subclass builds its network in ``__init__`` (unless ``self.skip``), sets ``info`` and ``pixel_stats``, and ends
    with ``self.finish()``; it implements ``embed_features`` and ``pyramid_features`` and never sees an input that is
    smaller than ``min_size`` or that ``multiple`` does not divide. What both begin with belongs into
    ``shared_features``: it runs once where both are wanted, and without it the network runs once for each.

    Args:
        num_channels: Channels of the input; None means 3 (RGB).
        trainable: False freezes the encoder: no gradients, no optimizer state, and always in eval mode, so that
            BatchNorm statistics and dropout stand still as well.
        skip: Leave the encoder out. The pyramid is the image itself (stride 1), the embedding the mean of each channel.
        adapter: None, ``"lora"`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``: the weights stay fixed and small
            additions are trained. Needs the extra ``peft``.
        use_pretrained: Whether the weights come from pretraining.
        saved_weights_in_checkpoint: None or True: a checkpoint holds the weights. False: only their digest and origin.
        weights: Local file or folder of weights, which the subclass loads.

    Attributes:
        info: Channels and strides of the pyramid, fine to coarse, and the length of the embedding.
        pixel_stats: Mean and standard deviation that the input must be normalised with, one value a channel.
        weights_origin: Where the weights came from, for messages and checkpoints.
        multiple: The input is padded at the right and bottom to a multiple of this (with zeros: the mean colour).
        min_size: Smallest height and width, in pixels.
        head_classes: Names of the classes of the classifier that ``classify`` applies; empty if it was not kept.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    info: FeatureInfo
    pixel_stats: PixelStats

    def __init__(
        self,
        num_channels: int | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
        use_pretrained: bool = False,
        saved_weights_in_checkpoint: bool | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.num_channels = 3 if num_channels is None else num_channels
        if self.num_channels < 1:
            raise ConfigError("An image has at least one channel.", given=f"num_channels={num_channels}")
        self.trainable = trainable
        self.skip = skip
        self.use_pretrained = use_pretrained and not skip
        self.saved_weights_in_checkpoint = saved_weights_in_checkpoint
        self.weights_origin = "random"
        self.multiple = 1
        self.min_size = (1, 1)
        self.head_classes: tuple[str, ...] = ()
        self.adapter = None if skip else AdapterSpec.parse(adapter)
        if weights is not None and not use_pretrained:
            raise ConfigError(
                "Weights are named, but not to be used.",
                given=f"encoder.weights={weights} and encoder.use_pretrained=false",
                override=["encoder.use_pretrained=true", "encoder.weights=null"],
            )
        if self.adapter is not None and not trainable:
            raise ConfigError(
                "An adapter is trained, a frozen encoder is not.",
                given="encoder.trainable=false and encoder.adapter",
                override=["encoder.trainable=true", "encoder.adapter=null"],
            )
        if skip:
            self.info = FeatureInfo((self.num_channels,), (1,), self.num_channels)
            self.pixel_stats = HALF_STATS.for_channels(self.num_channels)

    # ---- what callers use

    def embed(self, x: Tensor) -> Tensor:
        """Return one vector an image.

        Args:
            x: Normalised float images ``(B, num_channels, H, W)`` of any size from ``min_size`` on.

        Returns:
            ``(B, info.embed_dim)``.

        Raises:
            ConfigError: If the image is smaller than the encoder can take, or has other channels.
        """
        return cast(Tensor, self.features(x, ("embedding",))["embedding"])

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return feature maps, fine to coarse.

        Args:
            x: Normalised float images ``(B, num_channels, H, W)`` of any size from ``min_size`` on.

        Returns:
            Map ``i`` is ``(B, info.channels[i], ceil(H / s), ceil(W / s))`` with ``s = info.strides[i]``; its cell
            ``(r, c)`` stands for the pixels ``[s * r, s * (r + 1)) x [s * c, s * (c + 1))``.

        Raises:
            ConfigError: If the image is smaller than the encoder can take, or has other channels.
        """
        return cast("list[Tensor]", self.features(x, ("pyramid",))["pyramid"])

    def classify(self, x: Tensor) -> Tensor:
        """Return the logits of the classifier that came with the pretrained weights.

        Args:
            x: Normalised float images ``(B, num_channels, H, W)`` of any size from ``min_size`` on.

        Returns:
            ``(B, len(head_classes))``.

        Raises:
            ConfigError: If the encoder was built without its classifier, or the image does not fit.
        """
        return cast(Tensor, self.features(x, ("logits",))["logits"])

    def features(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor | list[Tensor]]:
        """Return several kinds of features of the same images, from one pass of the network where that can be.

        Args:
            x: Normalised float images ``(B, num_channels, H, W)`` of any size from ``min_size`` on.
            wanted: ``embedding``, ``pyramid``, ``logits``: what ``embed``, ``pyramid`` and ``classify`` return.

        Returns:
            Each of ``wanted`` by its name.

        Raises:
            ConfigError: As ``embed``, ``pyramid`` and ``classify`` do.
        """
        self._check_input(x)
        if "logits" in wanted and not self.head_classes:
            raise ConfigError("The encoder was built without the classifier of its pretrained weights.")
        if self.skip:
            return {kind: [x] if kind == "pyramid" else x.mean((2, 3)) for kind in wanted}
        ways: dict[str, Callable[[Any], Tensor | list[Tensor]]] = {
            "embedding": self.embed_features,
            "pyramid": self.pyramid_features,
            "logits": self.classify_features,
        }
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trainable):
            shared = self.shared_features(pad_to_multiple(x, self.multiple), wanted)
            found = {kind: ways[kind](shared) for kind in wanted}
        if "pyramid" in found:
            height, width = x.shape[-2:]
            levels = zip(found["pyramid"], self.info.strides, strict=True)
            found["pyramid"] = [cut(m, (ceil_div(height, s), ceil_div(width, s))) for m, s in levels]
        return found

    def text_classifier(self, prompts: Sequence[Sequence[str]]) -> TextClassifier:
        """Embed texts with the tower that this encoder was trained with.

        Args:
            prompts: One or more texts for each class.

        Raises:
            ConfigError: The encoder was not trained with texts, or its text tower cannot be loaded.
        """
        raise ConfigError(
            "The encoder has no text tower, so it knows nothing about the names of classes.",
            given=f"decoder=zero_shot with {type(self).__name__}",
            expected="an encoder that was trained with texts: clip, siglip, siglip2",
            override=["encoder=clip", "decoder=classifier"],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same as ``embed``."""
        return self.embed(x)

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return constructor arguments that, over the original ones, build this architecture without any weights.

        They are plain data and need neither a network nor a file: what a checkpoint stores.
        """
        return {}

    def load_local_weights(self, weights: str | Path) -> None:
        """Load a file (``.safetensors``, ``.pth``) or a folder that holds one; a classification head in it is dropped.

        Raises:
            ConfigError: If there is no such file, or if its keys or shapes are not those of this encoder.
        """
        self.load_pretrained_state(read_state_dict(weights), str(weights))
        self.weights_origin = str(weights)

    def weights_digest(self) -> str:
        """Return the SHA-256 of all weights and buffers: names, types, shapes and bytes."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def freeze(self) -> None:
        """Freeze from now on: no gradients, eval mode."""
        self.trainable = False
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen encoder and the fixed part under an adapter stay in eval mode."""
        super().train(mode and self.trainable and self.adapter is None)
        if self.adapter is not None:
            self.training = mode
            for name, module in self.named_modules():
                if "lora_dropout" in name:
                    module.train(mode)
        return self

    # ---- what subclasses implement and use

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> Any:
        """Compute what the three methods below begin with, for a padded, checked input; here nothing: the input.

        Args:
            x: Images ``(B, num_channels, H, W)``.
            wanted: Those that follow, for what only some of them need: ``embedding``, ``pyramid``, ``logits``.
        """
        return x

    def embed_features(self, x: Any) -> Tensor:
        """Compute ``embed`` from what ``shared_features`` returned."""
        raise NotImplementedError

    def pyramid_features(self, x: Any) -> list[Tensor]:
        """Compute ``pyramid`` from what ``shared_features`` returned; maps may be larger at the right and bottom."""
        raise NotImplementedError

    def classify_features(self, x: Any) -> Tensor:
        """Compute ``classify`` from what ``shared_features`` returned, where the constructor took ``keep_head``."""
        raise NotImplementedError

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights in the layout in which they are published."""
        raise ConfigError(f"{type(self).__name__} takes no pretrained weights.", given=origin)

    def finish(self) -> None:
        """Attach the adapter and freeze, once the weights are in place. The last line of every constructor."""
        if self.adapter is not None:
            attach_adapter(self, self.adapter)
        if not self.trainable:
            self.freeze()

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise ConfigError(
                "The encoder was built for other images.",
                given=f"a tensor of shape {tuple(x.shape)}",
                expected=f"(B, {self.num_channels}, H, W)",
                override=f"encoder.num_channels={x.shape[1]}" if x.ndim == 4 else None,
            )
        height, width = self.min_size
        if x.shape[-2] < height or x.shape[-1] < width:
            raise ConfigError(
                "The image is smaller than the encoder can take.",
                given=f"{x.shape[-2]} x {x.shape[-1]} pixels",
                expected=f"at least {height} x {width} pixels",
                override=f"image_size=[{max(height, x.shape[-2])},{max(width, x.shape[-1])}]",
            )


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad the right and bottom with zeros until ``multiple`` divides height and width.

    In normalised images zero is the mean colour of the pretraining data.
    """
    # The padded size is written as a multiple, which is what an export of any size can reason about.
    bottom, right = (ceil_div(n, multiple) * multiple - n for n in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom)) if torch.compiler.is_exporting() or right or bottom else x
