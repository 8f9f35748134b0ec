"""Output features of Ludwig: their targets, decoders and losses, one or several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.ludwig.translation import Layer, Translation, accepted, below, layer, option_of, over, part
from lightning_vision.options import load_option, parts_of
from lightning_vision.signatures import class_constants

OUTPUTS = ("image", "category", "binary", "set", "vector", "anomaly")
_USUAL_DECODER = {"image": "unet", "vector": "projector", "anomaly": "anomaly"}
# What a decoder must predict for a type of feature.
_PREDICTS = {
    **{"image": "mask", "vector": "embedding", "anomaly": "score"},
    **{name: "label" for name in ("category", "binary", "set")},
}
_USUAL_LOSS = {"set": "sigmoid_cross_entropy", "anomaly": "deep_svdd", "vector": "nt_xent_loss"}
_DECODERS = {
    **{name: "classifier" for name in ("mlp_classifier", "regressor", "passthrough")},
    "anomaly_detector": "anomaly",
}
_LOSSES = {"binary_weighted_cross_entropy": "sigmoid_cross_entropy"}
_OF_DECODER = {
    "threshold": "calibrate=thresholds fits one to the validation split",
    "tied_weights": "a decoder has weights of its own",
    "input_size": "worked out from the encoder",
    "output_size": "worked out from the data",
}
_OF_LOSS = {"positive_class_weight": "loss.class_weights={POSITIVE: N}, by the name of the class"}
_OF_FEATURE = {
    "top_k": "the report has top-5 accuracy where there are enough classes",
    "calibration": "calibrate=temperature",
    "threshold": "calibrate=thresholds",
    "default_validation_metric": "monitor",
    "class_similarities": "loss.class_similarities",
}
_OF_MASKS = ("num_classes", "infer_image_num_classes")
_HOW = ("reduce_input", "dependencies", "reduce_dependencies")


@dataclass
class Output:
    """An output feature: its name, column and type (None: not said), its settings, and its place in the file."""

    name: str | None
    column: str | None
    type: str | None
    given: Layer
    place: str


@dataclass
class _Parts:
    """What a feature becomes: decoder and loss with places (None: not said) and settings, and how others reach it."""

    decoder: tuple[str, str] | None
    decoder_settings: Layer
    loss: tuple[str, str] | None
    loss_settings: Layer
    how: Layer

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Every setting with the part that it belongs to, and its place in the file."""
        for group, chosen, settings in (
            ("decoder.", self.decoder, self.decoder_settings),
            ("loss.", self.loss, self.loss_settings),
        ):
            yield from [] if chosen is None else [(group, "type", chosen[1])]
            yield from ((group, key.lstrip("+"), place) for key, (_, place) in settings.items())
        yield from (("", key, place) for key, (_, place) in self.how.items())


def translate_outputs(t: Translation, features: Sequence[Output], defaults: Mapping[str, Mapping[str, Layer]]) -> None:
    """Translate output features.

    Args:
        t: What they become.
        features: The features.
        defaults: ``decoder`` and ``loss`` of the features of a type.

    Raises:
        ConfigError: A feature's decoder or loss is unknown, or predicts something else.
    """
    found = [(feature, _parts(t, feature, defaults.get(feature.type or "", {}))) for feature in features]
    comparing = [parts.loss[1] for _, parts in found if parts.loss and _compares_views(parts.loss[0])]
    if comparing and "augmentation" not in t.settings:
        t.set("augmentation", "views", comparing[0])
    reduced = [p for _, p in found if "reduce_input" in p.how and p.decoder and takes_vector(p.decoder[0])]
    if len(found) > 1 or reduced:
        _several(t, found)
    elif found:
        _one(t, *found[0])


def _one(t: Translation, feature: Output, parts: _Parts) -> None:
    """Say a single output at the root, where it is easily changed."""
    for group, chosen, settings in (
        ("decoder", parts.decoder, parts.decoder_settings),
        ("loss", parts.loss, parts.loss_settings),
    ):
        if chosen is not None:
            t.set(group, *chosen)
        for key, (value, place) in settings.items():
            t.set(f"{'+' * key.startswith('+')}{group}.{key.lstrip('+')}", value, place)
    if feature.type == "set":
        t.set("task", "multilabel", below(feature.place, "type"))
        t.note(below(feature.place, "type"), "the labels of a cell are joined by data.separator, | here")
    if feature.column is not None and feature.type != "vector":
        t.set("data.target", feature.column, below(feature.place, "name"))
    elif feature.column is not None:
        t.note(below(feature.place, "name"), "an embedding is learned from views of the images, no column is read")
    for key, (value, place) in parts.how.items():
        reason = "a decoder of maps has no vector to reduce to" if key == "reduce_input" else "there is one output"
        t.note(place, reason if value else "as it is here")


def _several(t: Translation, found: Sequence[tuple[Output, _Parts]]) -> None:
    """Say the outputs by name."""
    names = {feature.name: _identifier(feature.name or "output") for feature, _ in found}
    outputs: dict[str, Any] = {}
    for feature, parts in found:
        node: dict[str, Any] = {}
        for group, chosen, settings in (
            ("decoder", parts.decoder, parts.decoder_settings),
            ("loss", parts.loss, parts.loss_settings),
        ):
            if chosen is not None:
                values = {key.lstrip("+"): value for key, (value, _) in settings.items()}
                node[group] = {"type": chosen[0], **values} if values else chosen[0]
        if feature.type == "set":
            node["task"] = "multilabel"
        name = names[feature.name]
        if feature.column not in (None, name):
            node["target"] = feature.column
        for key, (value, place) in parts.how.items():
            if key == "dependencies":
                value = [names.get(other, other) for other in layer_of_names(value, place)]
            node[key] = value
        for group, key, place in parts.places():
            t.used.add(place)
            t.origins[f"outputs.{name}.{group}{key}"] = place
        if name in outputs:
            raise ConfigError("Two output features have one name", given=f"output_features: {name}, {name}")
        outputs[name] = node
    t.set("outputs", outputs, below(found[0][0].place, "name"))


def _identifier(name: str) -> str:
    """A word that can name an output."""
    word = re.sub(r"\W", "_", name).lstrip("_") or "output"
    return f"output_{word}" if word[0].isdigit() else word


def layer_of_names(value: Any, place: str) -> list[str]:
    """A list of names.

    Raises:
        ConfigError: It is none.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigError(f"{place} is a list of names", given=f"{place}: {value}", expected=f"{place}: [{value}]")
    return [str(name) for name in value]


def _parts(t: Translation, feature: Output, defaults: Mapping[str, Layer]) -> _Parts:
    own = dict(feature.given)
    decoder = over(defaults.get("decoder", {}), part(*own.pop("decoder", (None, ""))), t)
    loss = over(defaults.get("loss", {}), part(*own.pop("loss", (None, ""))), t)
    _preprocessing(t, feature, layer(*own.pop("preprocessing", (None, ""))))
    chosen = _chosen("decoder", feature, decoder, _USUAL_DECODER.get(feature.type or "", "classifier"), _DECODERS)
    if chosen is not None:
        _refuse_unfit(feature, *chosen)
    count = decoder.pop("num_classes", None)
    if count is not None:
        t.set("data.num_classes", *count)
    option = chosen[0] if chosen else "unet"
    decoder_settings = accepted(t, "decoder", option, decoder, _OF_DECODER)
    usual_loss = _USUAL_LOSS.get(feature.type or "", "softmax_cross_entropy")
    chosen_loss = _chosen("loss", feature, loss, usual_loss, _LOSSES) if loss else None
    loss_settings = accepted(t, "loss", chosen_loss[0], loss, _OF_LOSS) if chosen_loss else {}
    how = {key: own.pop(key) for key in _HOW if key in own}
    for key, (_, place) in own.items():
        near = nearest(key, ("name", "column", "type", "decoder", "loss", "preprocessing", *_HOW))
        t.note(place, _OF_FEATURE.get(key, "no setting of an output feature" + (f"; {near}, perhaps" if near else "")))
    return _Parts(chosen, decoder_settings, chosen_loss, loss_settings, how)


def _chosen(group: str, feature: Output, given: Layer, usual: str, others: Mapping[str, str]) -> tuple[str, str] | None:
    """Take the type out of a section: our option and its place; the usual one where the feature's type implies it."""
    if "type" not in given:
        place = next((place for _, place in given.values()), below(feature.place, "type"))
        return (usual, place) if feature.type or group == "loss" else None
    value, place = given.pop("type")
    return option_of(group, value, place, others), place


def _refuse_unfit(feature: Output, option: str, place: str) -> None:
    predicts = _predicts(load_option("decoder", option))
    wanted = _PREDICTS.get(feature.type or "", predicts)
    if predicts != wanted:
        fitting = [name for name, node in parts_of("decoder").items() if _predicts(node) == wanted]
        raise ConfigError(
            f"The decoder does not predict what an output feature of type {feature.type} is.",
            given=f"{place}: {option}",
            expected=listed(fitting),
            override=f"decoder={_USUAL_DECODER.get(feature.type or '', 'classifier')}",
        )


def _predicts(decoder: Mapping[str, Any]) -> str:
    return str(class_constants(decoder["_target_"]).get("output"))


def _preprocessing(t: Translation, feature: Output, given: Layer) -> None:
    """Masks have the size of the images; how many classes they have may be said."""
    masks = feature.type in ("image", None)
    size = t.settings.get("image_size")
    for key, (value, place) in given.items():
        side = ("height", "width").index(key) if key in ("height", "width") else None
        if masks and key in _OF_MASKS:
            t.set(f"preprocessing.{key}", value, place)
        elif feature.type == "vector" and key == "vector_size":
            t.set("decoder.output_size", value, place)
        elif masks and side is not None:
            same = isinstance(size, list) and value == size[side]
            t.note(place, "masks have the size of the images" + (", which is this" if same else ": image_size"))
        elif masks:
            t.note(place, f"preprocessing is that of the images; of masks there is {listed(_OF_MASKS)}")
        else:
            t.note(place, f"the labels of a table are taken as they are ({feature.type})")


def takes_vector(decoder: str) -> bool:
    """Whether a decoder takes one vector an image."""
    return bool(class_constants(load_option("decoder", decoder)["_target_"])["consumes"] == "embedding")


def _compares_views(loss: str) -> bool:
    constants = class_constants(load_option("loss", loss)["_target_"])
    return int(constants.get("views", 1)) > 1
