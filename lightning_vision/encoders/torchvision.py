"""TorchVision's classification models as encoders, with the default pretrained weights of the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import StochasticDepth

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.drop_path import no_stochastic_depth
from lightning_vision.encoders.maps import ceil_div, fit_to_centre
from lightning_vision.encoders.torchvision_families import STOCHASTIC, find_model
from lightning_vision.encoders.torchvision_maxvit import MaxVit
from lightning_vision.encoders.torchvision_stages import Stages
from lightning_vision.encoders.torchvision_swin import Swin
from lightning_vision.encoders.torchvision_vit import VisionTransformer
from lightning_vision.encoders.weights import (
    adapt_conv_weight,
    adapt_first_conv,
    cannot_load,
    load_strict,
    without_modules,
)
from lightning_vision.types import IMAGENET_STATS, Between, FeatureInfo, OptionsFrom, PixelStats

# How the modules of a model are run.
TRUNKS: dict[str, type[Stages]] = {"stages": Stages, "maxvit": MaxVit, "swin": Swin, "vit": VisionTransformer}


class TorchvisionEncoder(Encoder):
    """A model of ``torchvision.models`` without its classifier, with a feature map at every stage.

    The embedding is what the model's last linear layer sees (SqueezeNet, whose last layer is a convolution: the average
    of what that sees). Vision transformers return four maps of one stride. The weights are TorchVision's ``DEFAULT``
    ones, and pixels are normalised with the statistics that belong to them, with random weights too.

    Sizes: images are padded to the multiple that the model needs; what is learned for each position is interpolated.
    Maps of models that lose the border (convolutions and poolings without padding) are extended by repeating it, so
    that cells lie where their stride says.

    Args:
        family: Family of models, a key of ``torchvision_families.FAMILIES``.
        model_variant: Variant within the family.
        num_channels: Channels of the images. None: 3. Otherwise the first convolution is adapted: one channel gets the
            sum of its RGB kernels, more channels get them repeated and scaled by 3 / num_channels.
        use_pretrained: Load the pretrained weights of TorchVision (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.pth``) or folder in TorchVision's layout, used in place of a download.
        model_cache_dir: Folder for downloads. None: torch's own, ``$TORCH_HOME/hub/checkpoints``.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
        drop_path: Stochastic depth: share of the images that leave the last block out in training; it rises from 0 at
            the first. None: what the weights' own config says.
        keep_head: Keep the classifier, for ``classify``.

    Raises:
        ConfigError: If the family, the variant or the weights do not exist or do not fit.
    """

    injected: ClassVar[tuple[str, ...]] = ("keep_head",)

    def __init__(
        self,
        family: Annotated[str, OptionsFrom("lightning_vision.encoders.torchvision_families.families")],
        model_variant: Annotated[str, OptionsFrom("lightning_vision.encoders.torchvision_families.variants")],
        num_channels: int | None = None,
        use_pretrained: bool = True,
        weights: str | None = None,
        model_cache_dir: str | None = None,
        saved_weights_in_checkpoint: bool | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
        drop_path: Annotated[float, Between(0, 1, high_open=True)] | None = None,
        keep_head: bool = False,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter, use_pretrained, saved_weights_in_checkpoint, weights)
        self._spec = spec = find_model(family, model_variant)
        if self.skip:
            return
        default = models.get_model_weights(spec.builder)["DEFAULT"]
        model = models.get_model(spec.builder, weights=None, **spec.build)
        if drop_path is not None:
            _set_drop_path(model, drop_path, family)
        self.model = TRUNKS[spec.trunk](model, spec, keep_head)
        if keep_head:
            self.head_classes = tuple(default.meta["categories"])
        self.pixel_stats = (spec.stats or _stats(default)).for_channels(self.num_channels)
        self.multiple = spec.multiple
        self.min_size = (spec.min_size, spec.min_size)
        adapt_first_conv(self.model, spec.first_conv, self.num_channels, pretrained=False)
        if weights is not None:
            self.load_local_weights(weights)
        elif use_pretrained:
            self.load_pretrained_state(_download(default, model_cache_dir), str(default))
            self.weights_origin = f"torchvision {default}"
        self.info = self._probe()
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture without weights."""
        return {"use_pretrained": False, "weights": None, "num_channels": self.num_channels}

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights in TorchVision's layout, with or without the classifier."""
        head = () if self.head_classes else self._spec.head
        state = self.model.convert(without_modules(state, (*self._spec.dropped, *head)))
        first = f"{self._spec.first_conv}.weight"
        if first in state and state[first].ndim == 4:
            state[first] = adapt_conv_weight(state[first], self.num_channels)
        load_strict(self.model, state, origin)

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> tuple[Any, torch.Size]:
        """Return what the model's stages give, and the size of the images."""
        return self.model.levels(x), x.shape[-2:]

    def embed_features(self, found: tuple[Any, torch.Size]) -> Tensor:
        """Return the input of the model's last linear layer."""
        return self.model.embed(found[0])

    def pyramid_features(self, found: tuple[Any, torch.Size]) -> list[Tensor]:
        """Return the map behind each stage."""
        levels, (height, width) = found
        return [
            fit_to_centre(m, (ceil_div(height, s), ceil_div(width, s)))
            for m, s in zip(self.model.pyramid(levels), self._spec.strides, strict=True)
        ]

    def classify_features(self, found: tuple[Any, torch.Size]) -> Tensor:
        """Return the logits of the model's own classifier."""
        return self.model.classify(found[0])

    @torch.no_grad()
    def _probe(self) -> FeatureInfo:
        """Find out the channels, by running the model on a small image."""
        mode = self.training
        self.train(False)
        image = torch.zeros(1, self.num_channels, *(max(side, 32) for side in self.min_size))
        levels = self.model.levels(image)
        maps, embedding = self.model.pyramid(levels), self.model.embed(levels)
        self.train(mode)
        return FeatureInfo(tuple(m.shape[1] for m in maps), self._spec.strides, embedding.shape[1])


def _set_drop_path(model: nn.Module, rate: float, family: str) -> None:
    """Scale the rates of all blocks so that the last one has this: most builders take no rate."""
    blocks = [block for block in model.modules() if isinstance(block, StochasticDepth)]
    if not blocks:
        raise no_stochastic_depth(rate, f"family {family}", STOCHASTIC)
    highest = max(block.p for block in blocks)
    for block in blocks:
        block.p *= rate / highest


def _stats(weights: models.WeightsEnum) -> PixelStats:
    """Read mean and standard deviation from the preprocessing that belongs to the weights."""
    preset = weights.transforms()
    mean, std = getattr(preset, "mean", None), getattr(preset, "std", None)
    return PixelStats(tuple(mean), tuple(std)) if mean and std else IMAGENET_STATS


def _download(weights: models.WeightsEnum, folder: str | None) -> dict[str, Tensor]:
    try:
        return weights.get_state_dict(model_dir=folder, progress=False, check_hash=True, map_location="cpu")
    except (OSError, RuntimeError) as error:  # no network, no such host, interrupted, wrong digest
        raise cannot_load(
            f"torchvision {weights} ({weights.url})",
            error,
            ["encoder.weights=FILE", "encoder.use_pretrained=false"],
        ) from error
