"""Vision models of the Hugging Face transformers library as encoders."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, ClassVar

from torch import Tensor

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.drop_path import no_stochastic_depth, rates, require_one_rate
from lightning_vision.encoders.huggingface_families import find_family
from lightning_vision.encoders.huggingface_load import (
    Pixels,
    auto_class,
    base_name,
    explained,
    fetch_config,
    has_classifier,
    load_model,
    new_model,
    plain_config,
    quiet,
    read_config,
    read_pixels,
    vision_config,
    weights_folder,
)
from lightning_vision.encoders.huggingface_maps import Seen, embedding, find_layout, first_conv, logits, pyramid, see
from lightning_vision.encoders.huggingface_text import embed_texts
from lightning_vision.encoders.text import TextClassifier
from lightning_vision.encoders.weights import adapt_conv_weight
from lightning_vision.errors import ConfigError
from lightning_vision.types import Between, FeatureInfo, OptionsFrom

# Types of models with stochastic depth, for the message.
STOCHASTIC = ("convnext", "convnextv2", "swin", "dinov2", "dinov3_vit", "segformer", "poolformer", "beit")


class HuggingFaceEncoder(Encoder):
    """A vision model of the transformers library without its classifier.

    Plain vision transformers return four maps of one stride, from the last block of each quarter of the depth, each
    behind the final norm. Hierarchical models return the deepest map of each stride. The embedding is the model's
    pooled output (DINOv2, DINOv3, CLIP: the class token behind the final norm; SigLIP: its attention pooling); without
    one it is the class token behind the final norm (ViT), without that the mean of the last map (Mix-Transformer).

    Sizes: images are padded to a multiple of the patch or stride where the model needs it, position embeddings are
    interpolated. The few models whose layers are tied to one size get the image resized to it, and their maps resized
    back.

    Args:
        family: Family of models, a key of ``huggingface_families.FAMILIES``; ``auto``: any vision model.
        pretrained_model_name_or_path: Name on the hub, or local folder with ``config.json`` and the weights.
        model_config: Arguments of the config class that define the architecture when no weights are downloaded, such as
            ``{hidden_size: 384}``; ``model_type`` chooses the class. None: those of the name or the folder.
        num_channels: Channels of the images. None: 3. Otherwise the first convolution is adapted: one channel gets the
            sum of its RGB kernels, more channels get them repeated and scaled by 3 / num_channels.
        use_pretrained: Load the pretrained weights (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.bin``) or folder, used in place of those of the name.
        model_cache_dir: Folder for downloads. None: the hub's own.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.
        drop_path: Stochastic depth: share of the images that leave the last block out in training; it rises from 0 at
            the first. None: what the weights' own config says.
        keep_head: Keep the classifier of the pretrained weights.

    Raises:
        ConfigError: If the architecture or the weights do not exist or do not fit, or the model gives no maps.
    """

    injected: ClassVar[tuple[str, ...]] = ("keep_head",)
    # What to type when weights cannot be had.
    ways_out: ClassVar[tuple[str, ...]] = (
        "encoder.pretrained_model_name_or_path=FOLDER",
        "encoder.weights=FILE",
        "encoder.use_pretrained=false",
    )

    def __init__(
        self,
        family: Annotated[str, OptionsFrom("lightning_vision.encoders.huggingface_families.families")],
        pretrained_model_name_or_path: Annotated[
            str, OptionsFrom("lightning_vision.encoders.huggingface_families.names")
        ],
        model_config: dict[str, Any] | None = None,
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
        found = find_family(family)
        if self.skip:
            return
        if model_config is not None and use_pretrained and weights is None:
            raise ConfigError(
                "The pretrained weights bring their architecture with them, so model_config would be ignored.",
                given=f"encoder.model_config={model_config} and encoder.use_pretrained=true",
                override=["encoder.model_config=null", "encoder.use_pretrained=false"],
            )
        folder = Path(pretrained_model_name_or_path).expanduser()
        name = str(folder) if folder.is_dir() else pretrained_model_name_or_path
        beside = weights_folder(weights)
        download = use_pretrained and weights is None
        self._cache_dir = model_cache_dir
        self._sources = (name,) if beside is None else (str(beside), name)
        self.weights_origin = f"transformers {name}" if download else "random"
        with quiet(), explained(self.weights_origin, self.ways_out) if download else nullcontext():
            if download:
                self._config = fetch_config(found, name, model_cache_dir)
            else:
                self._config = read_config(found, name, beside, model_config, model_cache_dir)
            own = vision_config(self._config)
            if drop_path is not None:
                require_one_rate(drop_path, model_config, "model_config")
                if not hasattr(own, "drop_path_rate"):
                    raise no_stochastic_depth(drop_path, own.model_type, STOCHASTIC)
                own.drop_path_rate = drop_path
            self._keep_head = keep_head and self._has_classifier()
            known = download or Path(self._sources[0]).is_dir()
            self._pixels = read_pixels(self._sources[0], model_cache_dir) if known else Pixels()
            if download:
                loader = auto_class(self._keep_head)
                self.model = self._load(loader, name, self.weights_origin, cache_dir=model_cache_dir)
            else:
                self.model = new_model(self._adapted_config(), self._keep_head)
        if drop_path and not any(rates(self.model)):
            raise no_stochastic_depth(drop_path, own.model_type, STOCHASTIC)
        if weights is not None:
            self.load_local_weights(weights)
        self.pixel_stats = (self._pixels.stats or found.stats).for_channels(self.num_channels)
        if self._keep_head:
            self.head_classes = tuple(str(label) for _, label in sorted(self.model.config.id2label.items()))
        mode = self.training
        self.train(False)
        self._layout = find_layout(self._base, self.num_channels)
        self.train(mode)
        self.multiple = self._layout.multiple
        self.info = FeatureInfo(self._layout.channels, self._layout.strides, self._layout.embed_dim)
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture, whatever its variant, without weights."""
        if self.skip:
            return {}
        return {
            "use_pretrained": False,
            "weights": None,
            "num_channels": self.num_channels,
            "model_config": plain_config(self.model.config, labels=self._keep_head),
        }

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights as the library saves them, with or without what else stands around the encoder."""
        # Through the library, because the names in its files are not those of its modules.
        with quiet(), explained(origin, self.ways_out):
            loaded = self._load(type(self.model), None, origin, state_dict=state)
        self.model.load_state_dict(loaded.state_dict())

    def shared_features(self, x: Tensor, wanted: Sequence[str]) -> Seen:
        """Return the output of the model that embedding and maps are made of."""
        return see(self._base, self._layout, x, wanted)

    def embed_features(self, seen: Seen) -> Tensor:
        """Return the pooled output."""
        return embedding(self._layout, seen)

    def pyramid_features(self, seen: Seen) -> list[Tensor]:
        """Return the map of each stage, or the patch tokens of each quarter of the depth as maps."""
        return pyramid(self._base, self._layout, seen)

    def classify_features(self, seen: Seen) -> Tensor:
        """Return the logits of the library's own classifier."""
        return logits(self.model, self._layout, seen)

    def text_classifier(self, prompts: Sequence[Sequence[str]]) -> TextClassifier:
        """Embed texts with the tower that this encoder was trained with; it is loaded from where they came from.

        Args:
            prompts: One or more texts for each class.

        Raises:
            ConfigError: The encoder was not trained with texts, or its text tower cannot be loaded.
        """
        for source in () if self.skip else self._sources:
            found = embed_texts(source, self._cache_dir, prompts)
            if found is not None:
                return found
        return super().text_classifier(prompts)

    @property
    def _base(self) -> Any:
        """The part that gives features: all of the model, unless it has its classifier."""
        return self.model.get_submodule(base_name(self.model, self._keep_head))

    def _has_classifier(self) -> bool:
        """Whether the library has a classifier for this model; with pretrained weights there must be one."""
        if self.use_pretrained and not has_classifier(self._config):
            raise ConfigError(
                "The model has no classifier of its own.",
                given=f"decoder=pretrained with {self._config.model_type}",
                override="decoder=classifier",
            )
        return has_classifier(self._config)

    def _adapted_config(self) -> Any:
        """Return the config for the channels of the images."""
        config = copy.deepcopy(self._config)
        own = vision_config(config)
        if getattr(own, "num_channels", 3) != self.num_channels:
            if not hasattr(own, "num_channels"):
                raise ConfigError(
                    "The model takes three channels only.",
                    given=f"encoder.num_channels={self.num_channels} with {own.model_type}",
                    override="encoder.num_channels=3",
                )
            own.num_channels = self.num_channels
        return config

    def _load(self, loader: Any, name: str | None, origin: str, **options: Any) -> Any:
        """Return a model with published weights whose first convolution fits the channels of the images."""
        published = load_model(loader, name, copy.deepcopy(self._config), self._keep_head, origin, **options)
        if self._pixels.bgr:
            stem = first_conv(published)
            if stem is not None:
                stem.weight.data = stem.weight.data.flip(1)
        if getattr(vision_config(published.config), "num_channels", 3) == self.num_channels:
            return published
        model = new_model(self._adapted_config(), self._keep_head)
        own, state = model.state_dict(), published.state_dict()
        changed = {k: adapt_conv_weight(v, self.num_channels) for k, v in state.items() if v.shape != own[k].shape}
        model.load_state_dict({**state, **changed})
        return model
