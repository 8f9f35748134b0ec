"""Any model of timm (PyTorch Image Models) as an encoder."""

from __future__ import annotations

import difflib
import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.conv_block import pair
from lightning_vision.encoders.hub import offline_if_unreachable
from lightning_vision.encoders.maps import fit_to_centre
from lightning_vision.encoders.weights import adapt_conv_weight, cannot_load, load_strict, without_modules
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import IMAGENET_STATS, FeatureInfo, PixelStats

# Maps that a one-scale model (ViT) returns, from evenly spread depths.
DEPTHS = 4
# How models that are built for one size are told to take any; the first that a model knows is used.
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


class TimmEncoder(Encoder):
    """A model of timm without its classifier.

    Hierarchical models return the map of every stage; plain vision transformers return four maps of one stride, from
    evenly spread depths and behind the final norm. The embedding is what the model's last linear layer sees. Pixels are
    normalised with the statistics of the pretrained weights, with random weights too.

    Sizes: models that need a multiple of their stride or patch are padded; position embeddings are interpolated. The
    few models whose layers are tied to one size get the image resized to it, and their maps resized back.

    Args:
        model_name: Name in timm, with or without the tag of its weights: ``caformer_s18.sail_in22k_ft_in1k``.
        model_kwargs: Further arguments of ``timm.create_model``, such as ``{drop_path_rate: 0.1}``.
        num_channels: Channels of the images. None: 3. Otherwise the first convolution is adapted: one channel gets the
            sum of its RGB kernels, more channels get them repeated and scaled by 3 / num_channels.
        use_pretrained: Load the pretrained weights (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.pth``) or folder (a copy of the hub's: ``model.safetensors`` and
            ``config.json``) used in place of a download.
        model_cache_dir: Folder for downloads. None: the hub's own.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.

    Raises:
        ConfigError: If there is no such model or argument, or if the weights do not exist or do not fit.
    """

    def __init__(
        self,
        model_name: str,
        model_kwargs: dict[str, Any] | None = None,
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
        if self.skip:
            return
        check_name(model_name)
        download = use_pretrained and weights is None
        kwargs = {**(model_kwargs or {}), "in_chans": self.num_channels, "num_classes": 0}
        self.model: Any = _create(model_name, download, model_cache_dir, kwargs)
        self._cfg: dict[str, Any] = dict(self.model.pretrained_cfg)
        if model_kwargs and "img_size" in model_kwargs:
            self._cfg["input_size"] = (3, *pair(model_kwargs["img_size"], "encoder.model_kwargs.img_size"))
        if weights is not None:
            self._cfg |= _folder_config(Path(weights).expanduser(), model_name)
            self.load_local_weights(weights)
        elif download:
            self.weights_origin = f"timm {self._cfg.get('architecture', model_name)}.{self._cfg.get('tag', '')}".rstrip(
                "."
            )
        mean, std = self._cfg.get("mean"), self._cfg.get("std")
        stats = PixelStats(tuple(mean), tuple(std)) if mean and std else IMAGENET_STATS
        self.pixel_stats = stats.for_channels(self.num_channels)
        self._indices: list[int] | None = None
        self._one_scale = False
        self._fixed_size: tuple[int, int] | None = None
        self._least = 1
        self.info = self._probe(model_name)
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture without weights."""
        return {"use_pretrained": False, "weights": None, "num_channels": self.num_channels}

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights as timm publishes them, with or without the classifier."""
        state = without_modules(state, _names(self._cfg.get("classifier")))
        for name in _names(self._cfg.get("first_conv")):
            weight = state.get(f"{name}.weight")
            if weight is not None and weight.ndim == 4:
                state[f"{name}.weight"] = adapt_conv_weight(weight, self.num_channels)
        own = {k: v.shape for k, v in self.model.state_dict().items()}
        if {k: v.shape for k, v in state.items()} != own:
            # Older layouts and other image sizes: each of timm's model files has the function that converts them.
            module = sys.modules[type(self.model).__module__]
            convert = getattr(module, "checkpoint_filter_fn", None)
            if convert is not None:
                state = convert(state, self.model)
        load_strict(self.model, state, origin)

    def embed_features(self, x: Tensor) -> Tensor:
        """Return the input of the model's last linear layer."""
        features: Tensor = self.model.forward_head(self.model.forward_features(self._sized(x)), pre_logits=True)
        return features.flatten(1)

    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        """Return the map of each stage, or of four depths."""
        sized = self._sized(x)
        maps = self._intermediates(sized)
        height, width = x.shape[-2:]
        if self._fixed_size is None:
            cells = [(-(-sized.shape[-2] // s), -(-sized.shape[-1] // s)) for s in self.info.strides]
            return [fit_to_centre(m, size) for m, size in zip(maps, cells, strict=True)]
        return [
            F.interpolate(m, (-(-height // s), -(-width // s)), mode="bilinear", align_corners=False)
            for m, s in zip(maps, self.info.strides, strict=True)
        ]

    def _intermediates(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(
            x, indices=self._indices, norm=self._one_scale, stop_early=True, intermediates_only=True
        )
        return maps

    def _sized(self, x: Tensor) -> Tensor:
        """Resize for a model that is tied to one size, pad for one that has a smallest size."""
        if self._fixed_size is not None:
            if self._fixed_size == x.shape[-2:]:
                return x
            return F.interpolate(x, self._fixed_size, mode="bilinear", align_corners=False, antialias=True)
        bottom, right = max(0, self._least - x.shape[-2]), max(0, self._least - x.shape[-1])
        return F.pad(x, (0, right, 0, bottom)) if bottom or right else x

    @torch.no_grad()
    def _probe(self, model_name: str) -> FeatureInfo:
        """Find out strides, channels and sizes, by running the model on a few small images."""
        if not hasattr(self.model, "forward_intermediates"):
            raise ConfigError("timm gives no feature maps of this model.", given=f"encoder.model_name={model_name}")
        mode = self.training
        self.train(False)
        stages = self.model.feature_info
        strides = [f["reduction"] for f in (stages if isinstance(stages, list) else stages.info)]
        coarsest = max(strides)
        self._one_scale = len(set(strides)) == 1
        if self._one_scale:
            count = len(strides)
            self._indices = sorted({math.ceil((i + 1) * count / DEPTHS) - 1 for i in range(DEPTHS)})
            strides = [strides[i] for i in self._indices]
        side = 2 * coarsest
        maps = self._try(side)
        if maps is None:
            # Too small for its valid convolutions, or tied to one size by its windows or token mixing.
            native = tuple(self._cfg.get("input_size", (3, 224, 224))[-2:])
            side = -(-max(native) // coarsest) * coarsest + coarsest
            maps = self._try(side)
            if maps is not None:
                side = next(s for s in range(3 * coarsest, side + 1, coarsest) if self._try(s) is not None)
                self._least = side
            else:
                self._fixed_size = native
                maps = self._intermediates(torch.zeros(1, self.num_channels, *native))
        self.multiple = coarsest
        if self._fixed_size is None and not self._one_scale:
            odd = self._try(side + 1)
            if odd and all(m.shape[-1] == -(-(side + 1) // s) for m, s in zip(odd, strides, strict=True)):
                self.multiple = 1
        embed_dim = self.embed_features(torch.zeros(1, self.num_channels, side, side)).shape[1]
        self.train(mode)
        return FeatureInfo(tuple(m.shape[1] for m in maps), tuple(strides), embed_dim)

    def _try(self, side: int) -> list[Tensor] | None:
        try:
            return self._intermediates(torch.zeros(1, self.num_channels, side, side))
        except (RuntimeError, AssertionError, ValueError):  # what timm's models raise at a size that they cannot take
            return None


def check_name(model_name: str) -> None:
    """Check that timm has a model of this name, with this tag of weights if one is named.

    Names of repositories (``hf-hub:...``) and folders (``local-dir:...``) are left to timm.

    Raises:
        ConfigError: With the nearest names.
    """
    if ":" in model_name:
        return
    architecture, _, tag = model_name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        raise ConfigError(
            "timm has no such model.",
            given=f"encoder.model_name={model_name}",
            expected=f"a name of timm.list_models(){', such as ' + listed(near) if near else ''}",
            nearest=near[0] if near else None,
        )
    tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ConfigError(
            f"{architecture} has no weights with this tag.",
            given=f"encoder.model_name={model_name}",
            expected=listed(f"{architecture}.{t}" for t in tags) if tags else f"{architecture}",
            nearest=nearest(model_name, [f"{architecture}.{t}" for t in tags]),
        )


def _create(model_name: str, download: bool, cache_dir: str | None, kwargs: dict[str, Any]) -> Any:
    for size in ANY_SIZE:
        try:
            with offline_if_unreachable() if download else nullcontext():
                model = timm.create_model(model_name, pretrained=download, cache_dir=cache_dir, **{**size, **kwargs})
        except TypeError as error:
            if any(key in str(error) for key in size):
                continue
            raise ConfigError(
                f"The model does not take these arguments: {error}", given=f"encoder.model_kwargs={kwargs}"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            if not download:
                raise
            raise cannot_load(
                f"timm {model_name}", error, ["encoder.weights=FILE", "encoder.use_pretrained=false"]
            ) from error
        return model
    raise AssertionError("the last of ANY_SIZE adds no argument")


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _folder_config(folder: Path, model_name: str) -> dict[str, Any]:
    """Read what a copy of a hub folder says about its weights; a plain file says nothing."""
    file = folder / "config.json"
    if not file.is_file():
        return {}
    config = json.loads(file.read_text(encoding="utf-8"))
    architecture = config.get("architecture", "")
    if architecture and architecture != model_name.partition(".")[0] and ":" not in model_name:
        raise ConfigError(
            "The folder holds the weights of another model.",
            given=f"{folder}: {architecture}",
            expected=model_name,
            override=f"encoder.model_name={architecture}",
        )
    return {**config.get("pretrained_cfg", {})}
