"""Any torch module of the user's as an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from torch import Tensor, nn

from lightning_vision.config import instantiate, refuse_untrusted
from lightning_vision.encoders.base import Encoder, pad_to_multiple
from lightning_vision.encoders.conv_block import pair
from lightning_vision.encoders.fixed_size import resize_image, resize_maps
from lightning_vision.encoders.maps import ceil_div, fit_to_centre
from lightning_vision.encoders.probing import SIDES, Prober
from lightning_vision.encoders.weights import adapt_conv_weight, adapt_first_conv, load_strict
from lightning_vision.errors import ConfigError
from lightning_vision.types import IMAGENET_STATS, Between, FeatureInfo, PixelStats


class CustomEncoder(Encoder):
    """A torch module that turns images ``(B, C, H, W)`` into features.

    Its ``forward`` returns one map ``(B, C_i, H_i, W_i)``, or several of them in a list, tuple or dict, or one vector
    an image ``(B, D)``. Channels, strides and the smallest image are found out by running it on black images. The
    embedding is the average of the coarsest map, or the vector; of a vector there are no maps, so that it goes with
    decoders of embeddings only.

    A module that derives from ``Encoder`` needs no wrapping: ``encoder._target_=my_package.MyEncoder``.

    Args:
        module: Class, ``my_package.MyBackbone``, or a mapping with its arguments too, ``{_target_:
            my_package.MyBackbone, width: 32}``; in Python also a module. Of packages other than torch.nn and this one,
            only installed plugins (entry points ``lightning_vision.plugins``) are built.
        mean: Mean of each channel that images are normalised with, for pixels in [0, 1]. None: ImageNet's.
        std: Standard deviation of each channel. None: ImageNet's.
        image_size: The one size that the module takes, in pixels, one number or (height, width): images are resized to
            it, and maps are resized back. None: it takes any size, or any that padding makes a multiple of its stride.
        num_channels: Channels of the images. None: 3. Where the module takes another number, its first convolution is
            adapted: one channel gets the sum of its kernels, more channels get them repeated and scaled.
        use_pretrained: Whether the module's own constructor, or ``weights``, gives it pretrained weights. It then
            learns slowly by default, and its weights may be left out of checkpoints.
        weights: Local file (``.safetensors``, ``.pth``) or folder with the module's state dict.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.

    Raises:
        ConfigError: If the module cannot be built, or run on images, or returns something else.
    """

    def __init__(
        self,
        module: str | dict[str, Any] | nn.Module,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        image_size: Annotated[int, Between(1)] | tuple[int, int] | None = None,
        num_channels: int | None = None,
        use_pretrained: bool = False,
        weights: str | None = None,
        saved_weights_in_checkpoint: bool | None = None,
        trainable: bool = True,
        skip: bool = False,
        adapter: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_channels, trainable, skip, adapter, use_pretrained, saved_weights_in_checkpoint, weights)
        if self.skip:
            return
        self.module = _build(module)
        self.pixel_stats = _stats(mean, std, self.num_channels)
        self._size = None if image_size is None else pair(image_size, "encoder.image_size")
        self._name = type(self.module).__qualname__
        self.module.eval()
        prober = Prober(self._run, self.num_channels, self._name)
        self._first_conv = self._adapt_channels(prober)
        found = prober.any_size() if self._size is None else prober.one_size(*self._size)
        self.module.train()
        self.info = FeatureInfo(found.channels, found.strides or (1,), found.channels[-1])
        self.multiple, self.min_size = found.multiple, (found.least, found.least)
        if weights is not None:
            self.load_local_weights(weights)
        elif use_pretrained:
            self.weights_origin = f"the constructor of {self._name}"
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build the module again; its class must be at hand."""
        return {"num_channels": self.num_channels, "use_pretrained": False, "weights": None}

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict of the module."""
        if self._first_conv is not None:
            key = f"{self._first_conv}.weight".removeprefix("module.")
            if key in state:
                state = {**state, key: adapt_conv_weight(state[key], self.num_channels)}
        load_strict(self.module, state, origin)

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> dict[str, tuple[Tensor, list[Tensor]]]:
        """Return for each of ``wanted`` the images and the features of the module.

        For the maps an image of one size is padded first, for the embedding it is not: where that makes a difference,
        the module runs twice.
        """
        padded = x if self._size is None else pad_to_multiple(x, self.info.strides[-1])
        if padded is x:
            return dict.fromkeys(wanted, (x, self._run_sized(x)))
        images = {kind: padded if kind == "pyramid" else x for kind in wanted}
        return {kind: (image, self._run_sized(image)) for kind, image in images.items()}

    def embed_features(self, found: dict[str, tuple[Tensor, list[Tensor]]]) -> Tensor:
        """Return the vector, or the average of the coarsest map."""
        features = found["embedding"][1][-1]
        return features if features.ndim == 2 else features.mean((2, 3))

    def pyramid_features(self, found: dict[str, tuple[Tensor, list[Tensor]]]) -> list[Tensor]:
        """Return the maps, fine to coarse."""
        strides = self.info.strides
        x, features = found["pyramid"]
        if features[0].ndim == 2:
            raise ConfigError(
                f"{self._name} returns one vector an image, and the decoder needs maps.",
                expected="a module that returns maps (B, C, H, W), or a decoder of embeddings",
                override="decoder=classifier",
            )
        size = (x.shape[-2], x.shape[-1])
        if self._size is not None:
            return resize_maps(features, strides, size)
        cells = [(ceil_div(size[0], s), ceil_div(size[1], s)) for s in strides]
        return [fit_to_centre(m, c) for m, c in zip(features, cells, strict=True)]

    def _run_sized(self, x: Tensor) -> list[Tensor]:
        return self._run(x if self._size is None else resize_image(x, self._size))

    def _run(self, x: Tensor) -> list[Tensor]:
        """Return the maps from fine to coarse, or the vector."""
        output = self.module(x)
        values = output.values() if isinstance(output, Mapping) else output
        features = [values] if isinstance(values, Tensor) else list(values)
        dimensions = {f.ndim if isinstance(f, Tensor) else 0 for f in features}
        if dimensions != {4} and (dimensions != {2} or len(features) > 1):
            found = [f"{tuple(f.shape)}" if isinstance(f, Tensor) else type(f).__name__ for f in features]
            raise ConfigError(
                f"{self._name} returns something else than features of images.",
                given=f"{', '.join(found) or 'nothing'} for {tuple(x.shape)}",
                expected="maps (B, C, H, W), one or several, or one vector (B, D)",
            )
        return sorted(features, key=lambda f: f.shape[-1], reverse=True)

    def _adapt_channels(self, prober: Prober) -> str | None:
        """Fit the first convolution to the channels of the images, if that is what the module fails at."""
        called: list[str] = []
        hooks = [
            m.register_forward_pre_hook(lambda module, inputs, name=name: called.append(name))
            for name, m in self.named_modules()
            if isinstance(m, nn.Conv2d)
        ]
        failed = prober.at(*(self._size or (SIDES[0], SIDES[0]))) is None
        for hook in hooks:
            hook.remove()
        if not failed or len(called) != 1:
            return None
        conv = cast(nn.Conv2d, self.get_submodule(called[0]))
        if conv.groups != 1 or conv.in_channels == self.num_channels:
            return None
        adapt_first_conv(self, called[0], self.num_channels, pretrained=True)
        return called[0]


def _build(module: str | dict[str, Any] | nn.Module) -> nn.Module:
    if isinstance(module, nn.Module):
        built = module
    else:
        node = {"_target_": module} if isinstance(module, str) else module
        if "_target_" not in node:
            raise ConfigError(
                "The module has no class.",
                given=f"encoder.module={node}",
                expected="{_target_: my_package.MyBackbone, and its arguments}",
            )
        refuse_untrusted(str(node["_target_"]), "encoder.module")
        built = cast(nn.Module, instantiate(node, nn.Module))
    if isinstance(built, Encoder):
        name = f"{type(built).__module__}.{type(built).__qualname__}"
        raise ConfigError(
            "The module is an encoder already.", given=f"encoder.module={name}", override=f"encoder._target_={name}"
        )
    return built


def _stats(mean: list[float] | None, std: list[float] | None, num_channels: int) -> PixelStats:
    """Return the statistics of the images; given ones have a number for each channel."""
    default = IMAGENET_STATS.for_channels(num_channels)
    stats = PixelStats(tuple(mean or default.mean), tuple(std or default.std))
    if len(stats.mean) != num_channels or len(stats.std) != num_channels or min(stats.std) <= 0:
        raise ConfigError(
            "The pixels cannot be normalised like this.",
            given=f"encoder.mean={mean}, encoder.std={std}, images of {num_channels} channels",
            expected="a number for each channel, those of std above 0",
            override="encoder.mean=null encoder.std=null",
        )
    return stats
