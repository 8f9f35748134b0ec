"""Any model of timm (PyTorch Image Models) as an encoder."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, ClassVar

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import filter_pretrained_cfg, load_model_config_from_hf, model_entrypoint
from torch import Tensor, nn

from lightning_vision.encoders.base import Encoder, pad_to_multiple
from lightning_vision.encoders.conv_block import pair
from lightning_vision.encoders.drop_path import no_stochastic_depth, rates, require_one_rate
from lightning_vision.encoders.fixed_size import pad_to_least, resize_image, resize_maps
from lightning_vision.encoders.hub import offline_if_unreachable
from lightning_vision.encoders.maps import ceil_div, fit_to_centre
from lightning_vision.encoders.timm_families import UNPUBLISHED, check_family
from lightning_vision.encoders.weights import adapt_conv_weight, cannot_load, load_strict
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import IMAGENET_STATS, Between, FeatureInfo, OptionsFrom, PixelStats

# Maps that a one-scale model (ViT) returns, from evenly spread depths.
DEPTHS = 4
# Some of the many models with stochastic depth, for the message.
STOCHASTIC = (
    "resnet50",
    "convnextv2_tiny",
    "efficientnet_b0",
    "vit_small_patch16_224",
    "caformer_s18",
    "poolformer_s12",
)
# How models that are built for one size are told to take any; the first that a model knows is used.
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
# Their final norm belongs to the classifier: timm returns maps without it only.
NORM_IN_HEAD = ("Hiera", "HieraDet")
# They run their final norm for the last map and again for the head, and its statistics would move twice.
NORMED_TWICE = ("DPN", "EfficientFormerV2", "NextViT", "ResNetV2", "StarNet", "SwiftFormer", "Visformer")
# What timm itself says about the weights of a model; in model_kwargs it wins over what timm says.
OVERLAY = "pretrained_cfg_overlay"
# Names that are no model of timm, but a place where one was saved with timm.
HUB, FOLDER = "hf-hub:", "local-dir:"


class TimmEncoder(Encoder):
    """A model of timm without its classifier.

    Hierarchical models return the map of every stage, the last behind the final norm; plain vision transformers return
    four maps of one stride, from evenly spread depths and each behind the final norm. The embedding is what the model
    returns without its classifier: the input of its last linear layer, or of the whole classifier where it has several
    layers (CAFormer, ConvFormer). Pixels are normalised with the statistics of the pretrained weights, with random
    weights too.

    Sizes: models that need a multiple of their stride or patch are padded; position embeddings are interpolated. The
    few models whose layers are tied to one size get the image resized to it, and their maps resized back;
    ``model_kwargs={img_size: 448}`` builds most of them for another size.

    Args:
        family: Family of models, a key of ``timm_families.FAMILIES``, to which ``model_name`` must belong. None: any.
        model_name: Name in timm, with or without the tag of its weights: ``caformer_s18.sail_in22k_ft_in1k``; or
            ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER`` for what was published in timm's format.
        model_kwargs: Further arguments of ``timm.create_model``, such as ``{drop_path_rate: 0.1}``; those that define
            the architecture too, such as ``{depths: [1, 1, 1, 1]}``.
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
        drop_path: Stochastic depth: share of the images that leave the last block out in training; it rises from 0 at
            the first. None: what the weights' own config says.
        keep_head: Keep the classifier, for ``classify``.

    Raises:
        ConfigError: If there is no such model or argument, or if the weights do not exist or do not fit.
    """

    injected: ClassVar[tuple[str, ...]] = ("keep_head",)

    def __init__(
        self,
        family: Annotated[str, OptionsFrom("lightning_vision.encoders.timm_families.families")] | None,
        model_name: Annotated[str, OptionsFrom("lightning_vision.encoders.timm_families.model_names")],
        model_kwargs: dict[str, Any] | None = None,
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
        if self.skip:
            return
        if family is not None:
            check_family(family, model_name)
        if use_pretrained and weights is None and model_name.startswith(FOLDER):
            weights = model_name.removeprefix(FOLDER)
        download = use_pretrained and weights is None
        name, cfg, arguments = _describe(model_name, weights, download, model_cache_dir)
        self._keep_head = keep_head
        self._arguments: dict[str, Any] = {**arguments, **(model_kwargs or {})}
        extra = {"in_chans": self.num_channels} | ({} if keep_head else {"num_classes": 0})
        require_one_rate(drop_path, model_kwargs, "model_kwargs")
        if drop_path is not None:
            self._arguments["drop_path_rate"] = drop_path
        try:
            self.model: Any = _create(name, download, model_cache_dir, {OVERLAY: cfg, **self._arguments, **extra})
        except ConfigError as error:
            if drop_path is None or "drop_path_rate" not in str(error.__cause__):
                raise
            raise no_stochastic_depth(drop_path, model_name, STOCHASTIC) from error
        if drop_path and not any(rates(self.model)):
            raise no_stochastic_depth(drop_path, model_name, STOCHASTIC)
        _forget_biases(self.model)
        # What timm and a hub say about the weights and their images; with it a checkpoint needs neither.
        self._cfg: dict[str, Any] = filter_pretrained_cfg(self.model.pretrained_cfg, remove_source=True)
        if "img_size" in self._arguments:
            self._cfg["input_size"] = (3, *pair(self._arguments["img_size"], "encoder.model_kwargs.img_size"))
        if weights is not None:
            self.load_local_weights(weights)
        elif download:
            tag = self._cfg.get("tag")
            self.weights_origin = f"timm {self._cfg['architecture']}{f'.{tag}' if tag else ''}"
        if keep_head:
            self.head_classes = _class_names(self._cfg, self.model.num_classes, model_name)
        mean, std = self._cfg.get("mean"), self._cfg.get("std")
        stats = PixelStats(tuple(mean), tuple(std)) if mean and std else IMAGENET_STATS
        self.pixel_stats = stats.for_channels(self.num_channels)
        self._indices: list[int] | None = None
        self._fixed_size: tuple[int, int] | None = None
        self._least = 1
        self.info = self._probe(model_name)
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture without weights, whatever a hub or timm says by then."""
        if self.skip:
            return {}
        return {
            "model_name": self._cfg["architecture"],
            "model_kwargs": {**self._arguments, OVERLAY: self._cfg},
            "num_channels": self.num_channels,
            "use_pretrained": False,
            "weights": None,
        }

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights as timm publishes them; their classifier may be missing where it is not kept."""
        state = dict(state)
        classifier = _names(self._cfg.get("classifier"))
        weight = next((state[k] for c in classifier if (k := f"{c}.weight") in state), None)
        if self._keep_head and weight is not None:
            self._cfg["num_classes"] = len(weight)
            if len(weight) != self.model.num_classes:
                self.model.reset_classifier(len(weight))
        for name in _names(self._cfg.get("first_conv")):
            weight = state.get(f"{name}.weight")
            if weight is not None and weight.ndim == 4:
                state[f"{name}.weight"] = adapt_conv_weight(weight, self.num_channels)
        own = {k: v.shape for k, v in self.model.state_dict().items()}
        # A classifier may be more than its last layer.
        heads = () if self._keep_head else tuple(f"{c.partition('.')[0]}." for c in classifier)
        fitting = {k: v for k, v in state.items() if k in own or not k.startswith(heads)}
        if {k: v.shape for k, v in fitting.items()} != own:
            # Older layouts and other image sizes: each of timm's model files has the function that converts them.
            module = sys.modules[type(self.model).__module__]
            convert = getattr(module, "checkpoint_filter_fn", None)
            if convert is not None:
                state = convert(state, self.model)
                fitting = {k: v for k, v in state.items() if k in own or not k.startswith(heads)}
        load_strict(self.model, fitting, origin)

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> tuple[Any, list[Tensor]]:
        """Return what the model's head sees, and its maps, each where it is wanted.

        For the maps an image of one size is padded first, for the head it is not: where that makes a difference, the
        model runs twice.
        """
        if "pyramid" not in wanted:
            return self.model.forward_features(self._sized(x)), []
        padded = x if self._fixed_size is None else pad_to_multiple(x, max(self.info.strides))
        sized = self._sized(padded)
        if len(wanted) == 1:
            final, maps = None, self._intermediates(sized)
        elif padded is x:
            final, maps = self._final_and_intermediates(sized)
        else:
            final, maps = self.model.forward_features(self._sized(x)), self._intermediates(sized)
        if self._fixed_size is not None:
            return final, resize_maps(maps, self.info.strides, (padded.shape[-2], padded.shape[-1]))
        cells = [(ceil_div(sized.shape[-2], s), ceil_div(sized.shape[-1], s)) for s in self.info.strides]
        return final, [fit_to_centre(m, size) for m, size in zip(maps, cells, strict=True)]

    def embed_features(self, found: tuple[Any, list[Tensor]]) -> Tensor:
        """Return the input of the model's last linear layer."""
        features: Tensor = self.model.forward_head(found[0], pre_logits=True)
        return features.flatten(1)

    def pyramid_features(self, found: tuple[Any, list[Tensor]]) -> list[Tensor]:
        """Return the map of each stage, or of four depths."""
        return found[1]

    def classify_features(self, found: tuple[Any, list[Tensor]]) -> Tensor:
        """Return the logits of the model's own classifier."""
        logits: Tensor = self.model.forward_head(found[0])
        return logits

    def _intermediates(self, x: Tensor) -> list[Tensor]:
        norm = type(self.model).__name__ not in NORM_IN_HEAD
        maps: list[Tensor] = self.model.forward_intermediates(
            x, indices=self._indices, norm=norm, stop_early=True, intermediates_only=True
        )
        return maps

    def _final_and_intermediates(self, x: Tensor) -> tuple[Any, list[Tensor]]:
        """Return what the head sees, and the maps."""
        kind = type(self.model).__name__
        norm = kind not in (*NORM_IN_HEAD, *NORMED_TWICE)
        final, maps = self.model.forward_intermediates(x, indices=self._indices, norm=norm)
        return final, [*maps[:-1], final] if kind in NORMED_TWICE else maps

    def _sized(self, x: Tensor) -> Tensor:
        """Resize for a model that is tied to one size, pad for one that has a smallest size."""
        if self._fixed_size is not None:
            return resize_image(x, self._fixed_size)
        return pad_to_least(x, (self._least, self._least))

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
        one_scale = len(set(strides)) == 1
        if one_scale:
            count = len(strides)
            self._indices = sorted({math.ceil((i + 1) * count / DEPTHS) - 1 for i in range(DEPTHS)})
            strides = [strides[i] for i in self._indices]
        side = 2 * coarsest
        maps = self._try(side)
        if maps is None or self._try(side + coarsest) is None:
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
        if self._fixed_size is None:
            odd = None if one_scale else self._try(side + 1)
            takes_any = odd and all(m.shape[-1] == -(-(side + 1) // s) for m, s in zip(odd, strides, strict=True))
            self.multiple = 1 if takes_any else coarsest
        image = torch.zeros(1, self.num_channels, side, side)
        embed_dim = self.embed_features(self.shared_features(image, ("embedding",))).shape[1]
        self.train(mode)
        return FeatureInfo(tuple(m.shape[1] for m in maps), tuple(strides), embed_dim)

    def _try(self, side: int) -> list[Tensor] | None:
        try:
            return self._intermediates(torch.zeros(1, self.num_channels, side, side))
        except (RuntimeError, AssertionError, ValueError):  # what timm's models raise at a size that they cannot take
            return None


def find_model(model_name: str, download: bool) -> str:
    """Return the name under which timm builds a model.

    Args:
        model_name: Name in timm, with or without the tag of its weights.
        download: Whether the weights of that tag are needed.

    Raises:
        ConfigError: timm has no such model, or no weights with this tag; with the nearest names.
    """
    architecture, _, tag = model_name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        raise ConfigError(
            "timm has no such model.",
            given=f"encoder.model_name={model_name}",
            expected=f"a name of timm.list_models(){', such as ' + listed(near) if near else ''}",
            nearest=near[0] if near else None,
        )
    tagged = timm.list_models(f"{architecture}.*", pretrained=True)
    if not tag or model_name in tagged:
        return model_name
    if model_name in UNPUBLISHED and not download:
        return architecture
    near_tag = nearest(model_name, tagged)
    raise ConfigError(
        f"{architecture} has no weights with this tag.",
        given=f"encoder.model_name={model_name}",
        expected=listed(tagged) if tagged else f"{architecture} with encoder.use_pretrained=false",
        nearest=near_tag,
        override=f"encoder.model_name={near_tag}" if near_tag else None,
    )


def _create(model_name: str, download: bool, cache_dir: str | None, kwargs: dict[str, Any]) -> Any:
    for size in ANY_SIZE:
        arguments = {**size, **kwargs}
        try:
            with offline_if_unreachable() if download else nullcontext():
                try:
                    return timm.create_model(model_name, pretrained=download, cache_dir=cache_dir, **arguments)
                except TypeError as error:
                    if "multiple values" not in str(error):
                        raise
                    with _winning(model_name, arguments):
                        return timm.create_model(model_name, pretrained=download, cache_dir=cache_dir)
        except TypeError as error:
            if any(key in str(error) for key in size):
                continue
            own = {k: v for k, v in kwargs.items() if k not in (OVERLAY, "in_chans", "num_classes")}
            raise ConfigError(
                f"The model does not take these arguments: {error}", given=f"encoder.model_kwargs={own}"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            if not download:
                raise
            raise cannot_load(
                f"timm {model_name}", error, ["encoder.weights=FILE", "encoder.use_pretrained=false"]
            ) from error
    raise AssertionError("the last of ANY_SIZE adds no argument")


@contextmanager
def _winning(model_name: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Let arguments win over those that timm's function for a model fixes itself, such as the depths of a caformer."""
    module: Any = sys.modules[model_entrypoint(model_name.partition(".")[0]).__module__]
    build = module.build_model_with_cfg

    def build_with(model_cls: Any, variant: str, pretrained: bool, **fixed: Any) -> Any:
        return build(model_cls, variant, pretrained, **{**fixed, **arguments})

    module.build_model_with_cfg = build_with
    try:
        yield
    finally:
        module.build_model_with_cfg = build


def _forget_biases(model: nn.Module) -> None:
    """Let no attention keep its gathered biases from one call to the next.

    In eval mode some models (LeViT, EfficientFormer, TinyViT) would use them after other weights were loaded, and could
    not be copied because of the graph that hangs on them.
    """

    def forget(module: nn.Module, inputs: Any, output: Any) -> None:
        module.attention_bias_cache = {}  # type: ignore[assignment]

    for module in model.modules():
        if hasattr(module, "attention_bias_cache"):
            module.register_forward_hook(forget)


def _class_names(cfg: Mapping[str, Any], count: int, model_name: str) -> tuple[str, ...]:
    """Name the classes of a classifier: as its config does, as ImageNet does, or by number."""
    if count < 1:
        raise ConfigError(
            "These weights have no classifier.",
            given=f"encoder.model_name={model_name}",
            override="decoder=classifier",
        )
    subset = infer_imagenet_subset({"num_classes": count})
    if cfg.get("label_names"):
        labels = list(cfg["label_names"])
        described = cfg.get("label_descriptions") or {}
        names = [described.get(label, label) for label in labels]
    elif subset is not None:
        info = ImageNetInfo(subset)
        labels, names = list(info.label_names()), list(info.label_descriptions())
    else:
        labels = names = [str(i) for i in range(count)]
    # Both the bird and the machine are called crane.
    return tuple(
        f"{name} ({label})" if names.count(name) > 1 else name for name, label in zip(names, labels, strict=True)
    )


def _names(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if value is None else (value,) if isinstance(value, str) else tuple(value)


def _describe(
    model_name: str, weights: str | None, download: bool, cache_dir: str | None
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the name under which timm builds a model, what is said about its weights, and its own arguments."""
    if model_name.startswith(HUB):
        architecture, cfg, arguments = _hub_config(model_name.removeprefix(HUB), cache_dir)
    elif model_name.startswith(FOLDER):
        architecture, cfg, arguments = _folder_config(model_name.removeprefix(FOLDER), None)
    else:
        return _folder_config(weights, find_model(model_name, download))
    return find_model(architecture, False), cfg, arguments


def _hub_config(name: str, cache_dir: str | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read what a repository says: the architecture, its weights, and the arguments that it was built with."""
    try:
        with offline_if_unreachable():
            cfg, architecture, arguments = load_model_config_from_hf(name, cache_dir=cache_dir)
    except (OSError, ValueError) as error:  # no network, no such repository, no config.json
        raise cannot_load(f"timm hf-hub:{name}", error, ["encoder.model_name=local-dir:FOLDER"]) from error
    # Not those of timm's own weights of this architecture.
    return architecture, {"hf_hub_filename": None, "custom_load": False, **cfg}, dict(arguments or {})


def _folder_config(folder: str | None, model_name: str | None) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read the same from a copy of a repository; a plain file of weights says nothing.

    Args:
        folder: Folder or file.
        model_name: What the weights must be of. None: whatever the folder says.
    """
    file = None if folder is None else Path(folder).expanduser() / "config.json"
    if file is None or not file.is_file():
        if model_name is None:
            raise ConfigError(
                "The folder says not what model it holds.",
                given=f"encoder.model_name=local-dir:{folder}",
                expected="a folder with config.json, as timm saves it",
                override=f"encoder.model_name=NAME encoder.weights={folder}",
            )
        return model_name, {}, {}
    config = json.loads(file.read_text(encoding="utf-8"))
    architecture = config.get("architecture", "")
    if model_name is not None and architecture not in ("", model_name.partition(".")[0]):
        raise ConfigError(
            "The folder holds the weights of another model.",
            given=f"{file.parent}: {architecture}",
            expected=model_name,
            override=f"encoder.model_name={architecture}",
        )
    beside = {k: config[k] for k in ("num_classes", "label_names", "label_descriptions") if k in config}
    cfg = filter_pretrained_cfg({**config.get("pretrained_cfg", {}), **beside}, remove_source=True)
    return model_name or architecture, cfg, dict(config.get("model_args", {}))
