"""A whole config of Ludwig, or any piece of one that its documents show: which section is what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.ludwig.inputs import Input, augmentation, translate_inputs
from lightning_vision.ludwig.outputs import OUTPUTS, Output, translate_outputs
from lightning_vision.ludwig.trainer import translate_trainer
from lightning_vision.ludwig.translation import Layer, Translation, feature_place, layer, part, places

_TYPES = (
    *("audio", "bag", "binary", "category", "date", "h3", "image", "number", "sequence", "set", "text", "timeseries"),
    *("vector", "anomaly", "category_distribution", "next_token", "numerical"),
)
_OF_INPUT, _OF_OUTPUT = ("encoder", "augmentation", "tied"), ("decoder", "loss", "dependencies", "reduce_input")
_SECTIONS = (*_OF_INPUT, *_OF_OUTPUT, "reduce_dependencies")
_TRANSFORMS = "random_"
UNREAD = "not understood"
_REASONS = {
    "backend": "trainer.accelerator, trainer.devices and trainer.strategy",
    "hyperopt": "a sweep is -m KEY=VALUE,VALUE; no search of its own",
    "ludwig_version": "any version's config is read",
    "description": "not kept",
}
_ROOT = (
    *("model_type", "input_features", "output_features", "combiner", "trainer", "training", "preprocessing"),
    *("defaults", "random_seed", "name", "column", "type", *_SECTIONS, *_REASONS),
)
_SPLITS = {"random": None, "fixed": "split", "datetime": None, "hash": "group", "stratify": None}


def translate_config(content: Mapping[str, Any], t: Translation) -> None:
    """Translate the content of a file.

    Raises:
        ConfigError: It describes no model of images, or nothing of it is a key of Ludwig's.
    """
    root = layer(content, "")
    if not set(root) & set(_ROOT):
        raise ConfigError(
            "Nothing in the file is a key of a Ludwig config",
            given=listed(root),
            expected="input_features, output_features, preprocessing, trainer, or one of encoder, decoder, loss ...",
            nearest=next(filter(None, (nearest(key, _ROOT) for key in root)), None),
        )
    for key in set(root) - set(_ROOT):
        near = nearest(key, ("input_features", "output_features"))
        if near is not None and near not in root:  # without them another model would be trained than is meant
            raise ConfigError("A section of the file has no name of Ludwig's", given=f"{key}:", nearest=f"{near}:")
    kind = root.pop("model_type", None)
    if kind is not None and kind[0] not in (None, "ecd"):
        raise ConfigError("Only models of type ecd are of images", given=f"model_type: {kind[0]}", expected="ecd")
    if kind is not None:
        t.note(kind[1], "every model has encoders and decoders, as ecd has")
    if _is_transform(root):
        t.set("augmentation", augmentation(t, {key: value for key, (value, _) in root.items()}, "type"), "type")
        return
    inputs, outputs = _features(root, "input_features"), _features(root, "output_features")
    if {"type", "name", "column", *_SECTIONS} & set(root):
        _lone_feature(root, inputs, outputs)
    shared = _defaults(t, root, inputs, outputs)
    of_images = shared.get("image", {})
    for feature in (*inputs, *outputs):
        t.used |= {place for key, (_, place) in feature.items() if key in ("name", "column", "type")}
    found = [_input(feature) for feature in inputs]
    translate_inputs(t, found, of_images)
    targets = [_output(feature) for feature in outputs]
    translate_outputs(t, targets, shared)
    combiner = part(*root.pop("combiner", (None, "")))
    t.notes_of(combiner, "embeddings of several images are joined end to end; decoder.num_fc_layers adds layers")
    for key in ("trainer", "training"):
        translate_trainer(t, layer(*root.pop(key, (None, key))), [(o.name, o.type) for o in targets])
    if "random_seed" in root:
        t.set("seed", *root.pop("random_seed"))
    for key, (value, place) in root.items():
        near = nearest(key, _ROOT)
        if value is not None or key not in _ROOT:
            t.note(place, _REASONS.get(key, "no key of a Ludwig config" + (f"; {near}, perhaps" if near else "")))
    _nothing_is_lost(content, t)


def _nothing_is_lost(content: Mapping[str, Any], t: Translation) -> None:
    """Name every key that no part of the translation has looked at."""
    known = t.used | set(t.notes)
    for place, value in places(content):
        steps = place.split(".")
        if not any(".".join(steps[:n]) in known for n in range(1, len(steps) + 1)):
            shared = steps[0] in ("defaults", "preprocessing")
            own = "the features have their own" if shared else UNREAD
            t.note(place, "empty" if value is None or value in ({}, []) else own)


def _is_transform(root: Layer) -> bool:
    """Whether a file is one transform of an augmentation."""
    return str(root.get("type", ("",))[0]).startswith(_TRANSFORMS) and not set(root) & set(_SECTIONS)


def _features(root: Layer, key: str) -> list[Layer]:
    value, _ = root.pop(key, (None, key))
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(feature, Mapping) for feature in value):
        raise ConfigError(f"{key} is a list of features", given=f"{key}: {value}", expected="- name: image")
    found = []
    for i, feature in enumerate(value):
        found.append(layer(feature, feature_place(key, i, feature)))
    return found


def _lone_feature(root: Layer, inputs: list[Layer], outputs: list[Layer]) -> None:
    """Take a feature out of the root: one that is a file of its own, or sections of one."""
    kind = root.get("type", (None,))[0]
    if kind is not None and kind not in _TYPES:
        raise ConfigError(
            "Which part of a config this is does not follow from its type",
            given=f"type: {kind}",
            expected=f"below encoder:, decoder: or loss:; or a feature of type {listed(_TYPES)}",
            nearest=nearest(str(kind), _TYPES),
        )
    names: Layer = {key: root.pop(key) for key in ("name", "column", "type") if key in root}
    own_input = {key: root.pop(key) for key in _OF_INPUT if key in root}
    own_output = {key: root.pop(key) for key in _SECTIONS if key in root}
    is_output = not own_input and (bool(own_output) or kind not in ("image", None))
    if names and "preprocessing" in root and not _is_global(root["preprocessing"][0]):
        names["preprocessing"] = root.pop("preprocessing")
    if is_output or own_output:
        outputs.append((names if is_output else {}) | own_output)
    if not is_output and (names or own_input):
        inputs.append(names | own_input)


def _is_global(value: Any) -> bool:
    """Whether preprocessing is that of a whole config: by type of feature, or about splits."""
    return isinstance(value, Mapping) and bool(
        set(map(str, value)) & {*_TYPES, "split", "force_split", "split_probabilities", "sample_ratio"}
    )


def _defaults(t: Translation, root: Layer, inputs: list[Layer], outputs: list[Layer]) -> dict[str, dict[str, Layer]]:
    """Sections by type of feature, in both schemas; a file without features has one that is not named."""
    found: dict[str, dict[str, Layer]] = {}
    value, place = root.pop("preprocessing", (None, "preprocessing"))
    if value is not None and not _is_global(value):
        found["image"] = {"preprocessing": layer(value, place)}
    else:
        for key, (inner, where) in layer(value, place).items():
            if key in _TYPES:
                found.setdefault(key, {})["preprocessing"] = layer(inner, where)
            else:
                _split(t, key, inner, where)
    for kind, (sections, where) in layer(*root.pop("defaults", (None, "defaults"))).items():
        for key, (inner, below) in layer(sections, where).items():
            if kind not in _TYPES or key not in ("preprocessing", "encoder", "decoder", "loss", "augmentation"):
                near = nearest(key, ("preprocessing", "encoder", "decoder", "loss")) if kind in _TYPES else None
                t.note(below, "no default of a type" + (f"; {near}, perhaps" if near else ""))
            elif key == "augmentation":
                found.setdefault(kind, {})[key] = {key: (inner, below)}
            elif key == "preprocessing":
                found.setdefault(kind, {})[key] = found.get(kind, {}).get(key, {}) | layer(inner, below)
            else:
                found.setdefault(kind, {})[key] = part(inner, below)
    if not inputs and {"preprocessing", "encoder", "augmentation"} & set(found.get("image", {})):
        inputs.append({})
    implied = [kind for kind in found if {"decoder", "loss"} & set(found[kind])]
    if not outputs and len(implied) == 1:
        outputs.append({"type": (implied[0], f"defaults.{implied[0]}.type")})
    used = {str(output.get("type", ("",))[0]) for output in outputs}
    for kind, sections in found.items():
        for key, section in sections.items():
            of_input = kind == "image" and key in ("preprocessing", "encoder", "augmentation") and inputs
            if not of_input and not (kind in used and key in ("decoder", "loss")):
                t.notes_of(section, "labels are taken as they are" if kind in used else f"there is no {kind} feature")
    return found


def _split(t: Translation, key: str, value: Any, place: str) -> None:
    """Translate how rows are split."""
    given = layer(value, place) if key == "split" else {key: (value, place)}
    kind = given.pop("type", None)
    for name, (inner, where) in given.items():
        if name in ("probabilities", "split_probabilities") and isinstance(inner, list) and len(inner) == 3:
            t.set("data.val_fraction", inner[1], where)
            t.set("data.test_fraction", inner[2], where)
        elif name == "column" and kind is not None and kind[0] in ("fixed", "hash"):
            t.set("data.split" if kind[0] == "fixed" else "data.group", inner, where)
        else:
            t.note(where, "data.split, data.group, data.val_fraction and data.test_fraction say how rows are split")
    if kind is not None and kind[0] not in ("random", "fixed", "hash"):
        t.note(kind[1], "rows are split at random, evenly over classes, by a column (data.split) or by groups")
    elif kind is not None:
        t.note(kind[1], "follows from data.split and data.group")


def _names(feature: Layer) -> tuple[str | None, str | None]:
    """Name and column of a feature."""
    name, column = (feature.pop(key, (None, ""))[0] for key in ("name", "column"))
    name = None if name is None else str(name)
    return name, name if column is None else str(column)


def _place(feature: Layer) -> str:
    """Where a feature is: what its keys have in common."""
    return next((place.rpartition(".")[0] for _, place in feature.values()), "")


def _input(feature: Layer) -> Input:
    place = _place(feature)
    kind, _ = feature.pop("type", ("image", ""))
    if kind != "image":
        raise _no_feature("input", feature, kind, ["image"])
    name, column = _names(feature)
    return Input(name, column, feature, place)


def _output(feature: Layer) -> Output:
    place = _place(feature)
    kind, _ = feature.pop("type", (None, ""))
    named = {"name", "column"} & set(feature)
    if kind not in OUTPUTS and (kind is not None or named):
        raise _no_feature("output", feature, kind, list(OUTPUTS))
    name, column = _names(feature)
    return Output(name, column, kind, feature, place)


def _no_feature(side: str, feature: Layer, kind: Any, valid: list[str]) -> ConfigError:
    name = feature.get("name", feature.get("column", ("?", "")))[0]
    return ConfigError(
        f"The {side} feature {name!r} is none that this package has",
        given=f"{side}_features: name: {name}, type: {kind}",
        expected=f"type: {' | '.join(valid)}",
        nearest=nearest(str(kind), valid),
        override=None if kind in _TYPES else f"a type: below name: {name}",
    )
