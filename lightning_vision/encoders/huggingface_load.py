"""Configs, weights and pixel statistics of the transformers library: from the hub, a folder, or plain arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.hub import offline_if_unreachable
from lightning_vision.encoders.huggingface_families import Family
from lightning_vision.encoders.weights import cannot_load
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import PixelStats

# Notes in a config about where it came from; no part of the architecture.
NOT_ARCHITECTURE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
LABELS = ("id2label", "label2id")
# No network, no such name, a gated one, no config.json, an unknown type, wrong sizes, an unreadable file.
CANNOT_BE_HAD = (OSError, RuntimeError, ValueError, KeyError)
# Where the library writes how images are prepared: for an image model, and for one of images and texts.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Pixels:
    """How the images of pretrained weights were prepared.

    Args:
        stats: Mean and standard deviation, or None if nothing is known.
        bgr: Whether blue comes first.
    """

    stats: PixelStats | None = None
    bgr: bool = False


def read_config(
    family: Family, name: str, folder: Path | None, model_config: dict[str, Any] | None, cache_dir: str | None
) -> Any:
    """Return the config of a model that is built without a download of its weights.

    Args:
        family: The family that it must belong to.
        name: Name on the hub, or folder; well-known names are answered without a network.
        folder: Folder with ``config.json`` that goes before the name.
        model_config: Arguments of the config class, which go before everything else.
        cache_dir: Folder for downloads.

    Raises:
        ConfigError: There is no such architecture, or it is of another family.
    """
    if model_config is None and folder is None and not Path(name).is_dir():
        model_config = dict(family.architectures[name]) if name in family.architectures else None
    if model_config is not None:
        return _from_arguments(family, model_config)
    try:
        return fetch_config(family, str(folder or name), cache_dir)
    except CANNOT_BE_HAD as error:
        default = next(iter(family.architectures))
        raise ConfigError(
            f"The architecture of the model cannot be read: {_first_line(error)}",
            given=f"encoder.pretrained_model_name_or_path={name}",
            expected=f"a folder with config.json, a name on the hub, or one of {listed(family.architectures)}",
            nearest=nearest(name, family.architectures),
            override=[
                "encoder.pretrained_model_name_or_path=FOLDER",
                f"encoder.pretrained_model_name_or_path={default}",
            ],
        ) from error


def fetch_config(family: Family, source: str, cache_dir: str | None) -> Any:
    """Return the config of a name on the hub or of a folder.

    Raises:
        ConfigError: It is of another family.
    """
    with nullcontext() if Path(source).is_dir() else offline_if_unreachable():
        config = AutoConfig.from_pretrained(source, cache_dir=cache_dir, trust_remote_code=False)
    own = vision_config(config).model_type
    if family.model_types and own not in family.model_types:
        raise ConfigError(
            "The model is of another family.",
            given=f"{source}: {own}",
            expected=f"{listed(family.model_types)}, such as {listed(family.architectures, 3)}",
            override="encoder=huggingface",
        )
    return config


def _from_arguments(family: Family, model_config: dict[str, Any]) -> Any:
    arguments = {"model_type": next(iter(family.model_types), None), **model_config}
    kind = arguments.pop("model_type")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(
            "transformers has no such type of model.",
            given=f"encoder.model_config.model_type={kind}",
            expected="the model_type of a config.json, such as resnet, convnext, vit",
            nearest=nearest(str(kind), CONFIG_MAPPING.keys()),
        )
    config_class = CONFIG_MAPPING[kind]
    known = {**config_class().to_dict(), "num_labels": 2}
    unknown = [k for k in arguments if k not in known]
    if unknown:
        raise ConfigError(
            f"{config_class.__name__} has no such argument.",
            given=f"encoder.model_config.{unknown[0]}",
            nearest=nearest(unknown[0], known),
        )
    try:
        return config_class(**arguments)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{config_class.__name__} does not take these arguments: {_first_line(error)}",
            given=f"encoder.model_config={model_config}",
        ) from error


def vision_config(config: Any) -> Any:
    """Return the part of a config that describes the model of images; for most models that is all of it."""
    return getattr(config, "vision_config", config)


def plain_config(config: Any, labels: bool) -> dict[str, Any]:
    """Return a config as plain data that ``read_config`` takes as ``model_config``, with or without class names."""
    known = type(config)().to_dict()
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    left_out = NOT_ARCHITECTURE if labels else NOT_ARCHITECTURE + LABELS
    kept = {k: v for k, v in data.items() if k in known and k not in left_out}
    return {"model_type": config.model_type, **kept}


def has_classifier(config: Any) -> bool:
    """Return whether the library has a classifier of images for a config."""
    return type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def auto_class(keep_head: bool) -> Any:
    """Return the library's class that finds the model of a config, with or without its classifier."""
    return AutoModelForImageClassification if keep_head else AutoModel


def new_model(config: Any, keep_head: bool) -> Any:
    """Build a model with random weights, with or without its classifier.

    Raises:
        ConfigError: The library has no such model, or the config contradicts itself.
    """
    try:
        model = auto_class(keep_head).from_config(
            config if keep_head else vision_config(config), dtype=torch.float32, trust_remote_code=False
        )
    except (ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The model cannot be built: {_first_line(error)}", given=f"{type(config).__name__}"
        ) from error
    return without_dense_pooler(model)


def load_model(loader: Any, name: str | None, config: Any, keep_head: bool, origin: str, **options: Any) -> Any:
    """Build a model with its published weights.

    Args:
        loader: The class that builds it, of the library or one of its Auto classes.
        name: Name on the hub, or folder; None for weights among the options.
        config: Its config.
        keep_head: Whether the classifier is kept, and must be among the weights.
        origin: Where the weights come from, for messages.
        options: Further arguments of ``from_pretrained``: ``cache_dir``, or ``state_dict`` in the layout in which the
            library saves weights, whose names are not those of its modules.

    Raises:
        ConfigError: The weights are those of another model, or have no classifier.
    """
    with nullcontext() if name is None or Path(name).is_dir() else offline_if_unreachable():
        model, report = loader.from_pretrained(
            name,
            config=config if keep_head else vision_config(config),
            output_loading_info=True,
            dtype=torch.float32,
            **options,
        )
    model = without_dense_pooler(model)
    base = base_name(model, keep_head)
    missing = sorted(set(map(str, report["missing_keys"])) & set(model.state_dict()))
    found = [str(key) for key in report["unexpected_keys"]]
    unexpected = sorted(found if missing else _strangers(model, base, found))
    if keep_head and missing and not any(k.startswith(f"{base}.") for k in missing):
        raise ConfigError(
            "The weights have no classifier.",
            given=f"{origin}; missing: {listed(missing, 8)}",
            expected=f"weights of a {type(model).__name__}",
            override="decoder=classifier",
        )
    if missing or unexpected:
        raise ConfigError(
            f"The weights are not those of this {type(model).__name__}.",
            given=f"{origin}; missing: {listed(missing, 8) or 'none'}; unexpected: {listed(unexpected, 8) or 'none'}",
            override=["encoder.weights=FILE", "encoder.use_pretrained=false"],
        )
    return model


def base_name(model: Any, keep_head: bool) -> str:
    """Return the name of the part of a classifier that gives features; empty for a model without a classifier."""
    if not keep_head:
        return ""
    return str(model.base_model_prefix) if hasattr(model, model.base_model_prefix) else "vision_model"


def without_dense_pooler(model: Any) -> Any:
    """Remove a pooler with weights of its own, as ViT has one, from a model without a classifier.

    Weights that were fine-tuned have none, and their classifier reads the class token.
    """
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None
    return model


def weights_folder(weights: str | None) -> Path | None:
    """Return the folder of local weights if it says what model they belong to."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "config.json").is_file() else None


def read_pixels(source: str, cache_dir: str | None) -> Pixels:
    """Read how images are prepared for a model on the hub or in a folder."""
    with nullcontext() if Path(source).is_dir() else offline_if_unreachable():
        for name in PROCESSOR_FILES:
            file = cached_file(
                source,
                name,
                cache_dir=cache_dir,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
            if file is not None:
                settings = json.loads(Path(file).read_text(encoding="utf-8"))
                return _pixels(settings.get("image_processor", settings))
    return Pixels()


def _pixels(settings: dict[str, Any]) -> Pixels:
    mean, std = settings.get("image_mean"), settings.get("image_std")
    bgr = bool(settings.get("do_flip_channel_order", False))
    if settings.get("do_normalize") is False or (bgr and not mean):
        return Pixels(PixelStats((0.0,) * 3, (1.0,) * 3), bgr)
    if not mean or not std:
        return Pixels(None, bgr)
    if settings.get("include_top"):  # EfficientNet's images are divided by the standard deviation twice
        std = [s * s for s in std]
    return Pixels(PixelStats(tuple(mean), tuple(std)), bgr)


@contextmanager
def explained(origin: str, overrides: Sequence[str]) -> Iterator[None]:
    """Say where weights came from, and what can be done, when they cannot be had."""
    try:
        yield
    except CANNOT_BE_HAD as error:
        raise cannot_load(origin, error, overrides) from error


@contextmanager
def quiet() -> Iterator[None]:
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


def _strangers(model: Any, base: str, unexpected: Iterable[str]) -> Iterator[str]:
    """Yield tensors that belong to a part of the encoder, but find no place in it: layers of a deeper model.

    A classifier, a text tower or a decoder beside the encoder is none of ours.
    """
    encoder = model.get_submodule(base)

    def part(key: str) -> str:
        return key.removeprefix(f"{model.base_model_prefix}.").removeprefix("vision_model.").partition(".")[0]

    parts = {part(key) for key in encoder.state_dict()}
    buffers = {f".{name}" for name, _ in encoder.named_buffers()}  # older files hold those that are computed
    for key in unexpected:
        if part(key) in parts and not f".{key}".endswith(tuple(buffers)):
            yield key


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
