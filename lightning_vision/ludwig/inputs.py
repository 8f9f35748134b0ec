"""Input features of Ludwig: the columns of images, and the encoder, preprocessing and augmentation that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.ludwig.translation import Layer, Translation, accepted, below, layer, option_of, over, part, plain
from lightning_vision.options import load_option

ENCODERS = {"swin": "swin_transformer", "_resnet_legacy": "resnet_legacy", "_vit_legacy": "vit_legacy"}
# Settings that only the encoders had that TorchVision's replaced: with them, these are meant.
_LEGACY = {
    "resnet": (
        *("resnet_size", "resnet_version", "num_filters", "conv_stride", "first_pool_kernel_size", "first_pool_stride"),
        *("batch_norm_momentum", "batch_norm_epsilon", "out_channels", "kernel_size"),
    ),
    "vit": (
        *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range", "layer_norm_eps"),
        *("gradient_checkpointing", "patch_size", "pretrained_model", "output_attentions"),
    ),
}
# Those of them that describe the architecture in the words of Hugging Face.
_ARCHITECTURE = set(_LEGACY["vit"]) - {"gradient_checkpointing", "pretrained_model", "output_attentions"}
_RENAMED = {"pretrained_cache_dir": "model_cache_dir here"}
_ADAPTER = ("type", "r", "alpha", "dropout")
_OF_FEATURE = {"active": "an input that is not used is left out of the file"}


@dataclass
class Input:
    """An input feature: its name and column (None: not said), its settings, and its place in the file."""

    name: str | None
    column: str | None
    given: Layer
    place: str


def translate_inputs(t: Translation, features: Sequence[Input], defaults: Mapping[str, Layer]) -> None:
    """Translate input features.

    Args:
        t: What they become.
        features: The features, all of images.
        defaults: ``encoder``, ``preprocessing`` and ``augmentation`` of all images.

    Raises:
        ConfigError: Two features have different encoders, or one names an unknown one.
    """
    columns = [feature.column for feature in features]
    if len(features) > 1:
        t.set("data.inputs", columns, below(features[0].place, "name"))
    elif columns and columns[0] is not None:
        t.set("data.image", columns[0], below(features[0].place, "name"))
    _tie(t, features)
    types: dict[str, str] = {}
    for feature in features:
        own = dict(feature.given)
        encoder = over(defaults.get("encoder", {}), part(*own.pop("encoder", (None, ""))), t)
        if (found := _encoder(t, encoder)) is not None:
            types.setdefault(*found)
        shared, said = defaults.get("augmentation", {}), own.pop("augmentation", None)
        for value, place in [said] if said is not None else shared.values():
            t.set("augmentation", augmentation(t, value, place), place)
        _preprocessing(t, defaults.get("preprocessing", {}) | layer(*own.pop("preprocessing", (None, ""))))
        for key, (_, place) in own.items():
            t.note(place, _OF_FEATURE.get(key, "no setting of an input feature"))
    if len(types) > 1 and "encoder" not in t.typed:
        raise ConfigError(
            "All inputs have one kind of encoder here, each its own or all the same (tied).",
            given=", ".join(f"{place}: {name}" for name, place in types.items()),
            override=[f"encoder={name}" for name in types],
        )


def _tie(t: Translation, features: Sequence[Input]) -> None:
    """Say whose encoder the inputs share."""
    column_of = {feature.name: feature.column for feature in features}
    tied = {}
    for feature in features:
        value, place = feature.given.pop("tied", (None, None))
        if place is not None:
            tied[place] = column_of.get(value, value)
    shared = {value for value in tied.values() if value is not None}
    if not tied:
        return
    if len(shared) == 1 and sum(v is not None for v in tied.values()) == len(features) - 1:
        t.set("tied", shared.pop(), next(place for place, value in tied.items() if value is not None))
    elif not shared:
        t.set("tied", None, next(iter(tied)))
    for place in tied:
        if place not in t.origins.values() and (shared or tied[place] is not None):
            t.note(place, "all inputs share one encoder, or each has its own: tied=NAME")


def _encoder(t: Translation, given: Layer) -> tuple[str, str] | None:
    """Translate an encoder; return its option and place."""
    found = None
    settings = dict(given)
    option = "stacked_cnn"
    if "type" in settings:
        value, place = settings.pop("type")
        legacy = any(key in _LEGACY.get(str(value), ()) for key in settings)
        option = f"{value}_legacy" if legacy else option_of("encoder", value, place, ENCODERS)
        t.set("encoder", option, place)
        found = option, place
    if option == "vit_legacy" and (architecture := {k: settings.pop(k) for k in _ARCHITECTURE & set(settings)}):
        config = {key: plain(value) for key, (value, _) in sorted(architecture.items())}
        for _, place in architecture.values():
            t.set("encoder.model_config", config, place)
    if t.settings.get("encoder", option) != option:
        t.notes_of(settings, f"encoder={t.settings['encoder']} is that of all inputs")
        return found
    if "adapter" in settings:
        settings["adapter"] = _adapter(t, *settings["adapter"])
    for key, (value, place) in accepted(t, "encoder", option, settings, _reasons(option)).items():
        # Ludwig's false means: load the pretrained weights when the model is made. A saved model has them in any case.
        kept = None if key == "saved_weights_in_checkpoint" and value is False else value
        t.set(f"{'+' * key.startswith('+')}encoder.{key.lstrip('+')}", kept, place)
    return found


def _reasons(option: str) -> dict[str, str]:
    node = load_option("encoder", option)
    untrained = {} if "use_pretrained" in node else {"use_pretrained": f"encoder={option} has no pretrained weights"}
    return {key: text for key, text in _RENAMED.items() if key not in node} | untrained


def _adapter(t: Translation, value: Any, place: str) -> tuple[Any, str]:
    given = part(value, place)
    for key in set(given) - set(_ADAPTER):
        t.note(given.pop(key)[1], f"an adapter has {listed(_ADAPTER)} here")
    return ({k: v for k, (v, _) in given.items()} if isinstance(value, Mapping) else value), place


def _preprocessing(t: Translation, given: Layer) -> None:
    """Translate preprocessing of images; height and width together are the image size."""
    settings = dict(given)
    size = [settings.get(key, ("", ""))[0] for key in ("height", "width")]
    if all(isinstance(n, int) for n in size) or size == [None, None]:
        places = [settings.pop(key)[1] for key in ("height", "width")]
        for place in places:
            t.set("image_size", size if size[0] is not None else None, place)
    for key, (value, place) in accepted(t, "preprocessing", "default", settings, {}).items():
        t.set(f"preprocessing.{key}", value, place)


def augmentation(t: Translation, value: Any, place: str) -> Any:
    """An augmentation in the words of ours: a truth value, or a list of names and of types with settings.

    Raises:
        ConfigError: It is neither.
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    entries = [value] if isinstance(value, Mapping | str) else value
    if not isinstance(entries, list):
        raise ConfigError(
            "An augmentation is a truth value or a list", given=f"{place}: {value}", expected="- type: random_rotate"
        )
    return [_transform(entry, f"{place}[{i}]") for i, entry in enumerate(entries)]


def _transform(entry: Any, place: str) -> Any:
    given = part(entry, place)
    if "type" not in given:
        raise ConfigError("A transform needs its type", given=f"{place}: {entry}", expected="type: random_rotate")
    settings = {key: plain(value) for key, (value, _) in given.items()}
    return settings if len(settings) > 1 else settings["type"]
