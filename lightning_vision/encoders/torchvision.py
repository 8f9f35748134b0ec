"""TorchVision's classification models as encoders, with the default pretrained weights of the library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torchvision import models

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.torchvision_families import find_builder, find_family
from lightning_vision.encoders.weights import (
    adapt_conv_weight,
    adapt_first_conv,
    cannot_load,
    load_strict,
    without_modules,
)
from lightning_vision.types import IMAGENET_STATS, FeatureInfo, OptionsFrom, PixelStats


class TorchvisionEncoder(Encoder):
    """A model of ``torchvision.models`` without its classifier, with a feature map at every stage.

    The embedding is what the model's last linear layer sees. The weights are TorchVision's ``DEFAULT`` ones, and pixels
    are normalised with the statistics that belong to them, with random weights too.

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

    Raises:
        ConfigError: If the family, the variant or the weights do not exist or do not fit.
    """

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
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter, use_pretrained, saved_weights_in_checkpoint, weights)
        self._family = find_family(family)
        builder = find_builder(family, model_variant)
        default = models.get_model_weights(builder)["DEFAULT"]
        if self.skip:
            return
        self.model = models.get_model(builder, weights=None, **self._family.build)
        for name in self._family.head:
            delattr(self.model, name)
        self.pixel_stats = _stats(default).for_channels(self.num_channels)
        self.min_size = (self._family.min_size, self._family.min_size)
        adapt_first_conv(self.model, self._family.first_conv, self.num_channels, pretrained=False)
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
        state = without_modules(state, self._family.head)
        first = f"{self._family.first_conv}.weight"
        if first in state and state[first].ndim == 4:
            state[first] = adapt_conv_weight(state[first], self.num_channels)
        load_strict(self.model, state, origin)

    def embed_features(self, x: Tensor) -> Tensor:
        """Run all stages, pool, and go on to the input of the last linear layer."""
        return self._pool(self.pyramid_features(x)[-1])

    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        """Run all stages and keep the map behind each."""
        maps = []
        for stage in self._family.stages:
            for module in self._modules_of(stage):
                x = module(x)
            maps.append(x)
        return maps

    def _pool(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3), keepdim=True)
        for module in self._modules_of(self._family.embed):
            x = module(x)
        return x.flatten(1)

    def _modules_of(self, names: tuple[str, ...]) -> Iterator[nn.Module]:
        # Looked up on each call: adapters replace modules, and copies of the encoder must use their own.
        for name in names:
            match = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", name)
            if match is None:
                yield self.model.get_submodule(name)
            else:
                sequence = list(self.model.get_submodule(match[1]).children())
                yield from sequence[int(match[2]) : int(match[3])]

    @torch.no_grad()
    def _probe(self) -> FeatureInfo:
        mode = self.training
        self.train(False)
        side = max(self._family.min_size, 32)
        maps = self.pyramid_features(torch.zeros(1, self.num_channels, side, side))
        embed_dim = self._pool(maps[-1]).shape[1]
        self.train(mode)
        return FeatureInfo(tuple(m.shape[1] for m in maps), self._family.strides, embed_dim)


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
