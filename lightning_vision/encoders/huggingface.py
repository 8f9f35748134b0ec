"""Vision transformers of the Hugging Face transformers library as encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from torch import Tensor
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.hub import offline_if_unreachable
from lightning_vision.encoders.huggingface_families import Family, find_family
from lightning_vision.encoders.weights import (
    adapt_conv_weight,
    adapt_first_conv,
    cannot_load,
    without_modules,
)
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import FeatureInfo, OptionsFrom, PixelStats

# Maps come from this many evenly spread depths.
DEPTHS = 4
# Notes in a config about where it came from; no part of the architecture.
NOT_ARCHITECTURE = ("architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype")


class HuggingFaceEncoder(Encoder):
    """A vision transformer of the transformers library.

    The embedding is the model's pooled output (DINOv2: the class token behind the final norm). The pyramid holds four
    maps of one stride, from the last block of each quarter of the depth, each behind the final norm. Images are padded
    to a multiple of the patch, position embeddings are interpolated to any size.

    Args:
        family: Family of models, a key of ``huggingface_families.FAMILIES``.
        pretrained_model_name_or_path: Name on the hub, or local folder with ``config.json`` and the weights.
        model_config: Arguments of the family's config class that define the architecture when no weights are
            downloaded. None: those of the name or the folder.
        num_channels: Channels of the images. None: 3. Otherwise the patch embedding is adapted: one channel gets the
            sum of its RGB kernels, more channels get them repeated and scaled by 3 / num_channels.
        use_pretrained: Load the pretrained weights (or those of ``weights``); false: random weights.
        weights: Local file (``.safetensors``, ``.bin``) or folder, used in place of those of the name.
        model_cache_dir: Folder for downloads. None: the hub's own.
        saved_weights_in_checkpoint: None or true: a checkpoint holds the weights. False (frozen and pretrained only):
            it holds their digest and origin.
        trainable: False freezes the encoder.
        skip: Leave the encoder out: the image itself is the only map.
        adapter: None, ``lora`` or ``{type: lora, r: 8, alpha: 16, dropout: 0.0}``.

    Raises:
        ConfigError: If the architecture or the weights do not exist or do not fit.
    """

    def __init__(
        self,
        family: Annotated[str, OptionsFrom("lightning_vision.encoders.huggingface_families.families")],
        pretrained_model_name_or_path: str,
        model_config: dict[str, Any] | None = None,
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
        if self.skip:
            return
        if model_config is not None and use_pretrained and weights is None:
            raise ConfigError(
                "The pretrained weights bring their architecture with them, so model_config would be ignored.",
                given=f"encoder.model_config={model_config} and encoder.use_pretrained=true",
                override=["encoder.model_config=null", "encoder.use_pretrained=false"],
            )
        name = pretrained_model_name_or_path
        folder = Path(name).expanduser()
        with _quiet():
            if use_pretrained and weights is None:
                origin = f"transformers {name}"
                self.model = _pretrained(
                    self._family, str(folder) if folder.is_dir() else name, origin, cache_dir=model_cache_dir
                )
                self.weights_origin = origin
            else:
                source = _weights_folder(weights) if use_pretrained else None
                config = _architecture(self._family, name, source or folder, model_config, model_cache_dir)
                self.model = getattr(transformers, self._family.model)(config)
        adapt_first_conv(
            self.model, self._family.patch_embedding, self.num_channels, use_pretrained and weights is None
        )
        # The model compares the input with the number that it was built for.
        self.model.get_submodule(self._family.patch_embedding.rpartition(".")[0]).num_channels = self.num_channels
        self.model.config.num_channels = self.num_channels
        if weights is not None:
            self.load_local_weights(weights)
        stats = _stats(_weights_folder(weights) or folder) or self._family.stats
        self.pixel_stats = stats.for_channels(self.num_channels)
        config = self.model.config
        self.multiple = config.patch_size
        count = config.num_hidden_layers
        self._depths = sorted({math.ceil((i + 1) * count / DEPTHS) for i in range(DEPTHS)})
        levels = len(self._depths)
        self.info = FeatureInfo((config.hidden_size,) * levels, (config.patch_size,) * levels, config.hidden_size)
        self.finish()

    def rebuild_kwargs(self) -> dict[str, Any]:
        """Return the overrides that build this architecture, whatever its variant, without weights."""
        if self.skip:
            return {}
        config = json.loads(self.model.config.to_json_string(use_diff=True))
        return {
            "use_pretrained": False,
            "weights": None,
            "num_channels": self.num_channels,
            "model_config": {k: v for k, v in config.items() if k not in (*NOT_ARCHITECTURE, "model_type")},
        }

    def load_pretrained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Load weights as the library saves them, with or without a classifier around the encoder."""
        state = without_modules(state, self._family.head)
        for key, value in state.items():
            if key.endswith(f"{self._family.patch_embedding}.weight") and value.ndim == 4:
                state[key] = adapt_conv_weight(value, self.num_channels)
        # Through the library, because the names in its files are not those of its modules.
        with _quiet():
            loaded = _pretrained(self._family, None, origin, config=self.model.config, state_dict=state)
        self.model.load_state_dict(loaded.state_dict())

    def embed_features(self, x: Tensor) -> Tensor:
        """Return the pooled output ``(B, hidden_size)``."""
        embedding: Tensor = self.model(pixel_values=x, **self._family.forward).pooler_output
        return embedding

    def pyramid_features(self, x: Tensor) -> list[Tensor]:
        """Return the patch tokens of each quarter of the depth as maps."""
        output = self.model(pixel_values=x, output_hidden_states=True, **self._family.forward)
        norm = self.model.get_submodule(self._family.final_norm)
        last = self.model.config.num_hidden_layers
        tokens = [
            output.last_hidden_state if depth == last else norm(output.hidden_states[depth]) for depth in self._depths
        ]
        rows, columns = x.shape[-2] // self.multiple, x.shape[-1] // self.multiple
        return [t[:, self._family.prefix_tokens :].mT.unflatten(2, (rows, columns)) for t in tokens]


def _pretrained(family: Family, name: str | None, origin: str, **kwargs: Any) -> Any:
    overrides = [
        "encoder.pretrained_model_name_or_path=FOLDER",
        "encoder.weights=FILE",
        "encoder.use_pretrained=false",
    ]
    local = name is None or Path(name).is_dir()
    try:
        with nullcontext() if local else offline_if_unreachable():
            model, report = getattr(transformers, family.model).from_pretrained(
                name, output_loading_info=True, dtype=torch.float32, **kwargs
            )
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such name, wrong sizes, unreadable file
        raise cannot_load(origin, error, overrides) from error
    missing = sorted(map(str, report["missing_keys"]))
    # A classifier around the encoder is none of ours; anything else that finds no place means other weights.
    unexpected = sorted(k for k in map(str, report["unexpected_keys"]) if not k.startswith(family.head))
    if missing or unexpected:
        raise ConfigError(
            f"The weights are not those of this {family.model}.",
            given=f"{origin}; missing: {listed(missing, 8) or 'none'}; unexpected: {listed(unexpected, 8) or 'none'}",
            override=overrides,
        )
    return model


def _architecture(
    family: Family, name: str, folder: Path, model_config: dict[str, Any] | None, cache_dir: str | None
) -> Any:
    config_class = getattr(transformers, family.config)
    if model_config is not None:
        known = config_class().to_dict()
        unknown = [k for k in model_config if k not in known]
        if unknown:
            raise ConfigError(
                f"{family.config} has no such argument.",
                given=f"encoder.model_config.{unknown[0]}",
                nearest=nearest(unknown[0], known),
            )
        return config_class(**model_config)
    if (folder / "config.json").is_file():
        return config_class.from_pretrained(str(folder))
    if name in family.architectures:
        return config_class(**family.architectures[name])
    try:
        with offline_if_unreachable():
            return config_class.from_pretrained(name, cache_dir=cache_dir)
    except OSError as error:
        raise ConfigError(
            "The architecture of this model is not known without its config.json.",
            given=f"encoder.pretrained_model_name_or_path={name}",
            expected=f"a folder with config.json, or one of {', '.join(family.architectures)}",
            override=[
                "encoder.pretrained_model_name_or_path=FOLDER",
                f"encoder.pretrained_model_name_or_path={next(iter(family.architectures))}",
            ],
        ) from error


def _weights_folder(weights: str | None) -> Path | None:
    if weights is None:
        return None
    path = Path(weights).expanduser()
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "config.json").is_file() else None


def _stats(folder: Path) -> PixelStats | None:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None
    settings = json.loads(file.read_text(encoding="utf-8"))
    mean, std = settings.get("image_mean"), settings.get("image_std")
    return PixelStats(tuple(mean), tuple(std)) if mean and std else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's load reports and progress bars off the screen: what matters is raised as an error."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()
