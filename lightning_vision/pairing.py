"""Settings that do not go together, or not with the data: refused before anything is built. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.data.normal_class import occurring
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.loss_choice import loss_name, loss_parts
from lightning_vision.options import parts_of
from lightning_vision.outputs import outputs_of, setting_prefix
from lightning_vision.reading import labels_of, targets_of
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import TASKS, task_constants

# What an encoder has where nothing of it is trained.
NOT_TRAINED = {"trainable": False, "skip": True}


def check_neck(node: dict[str, Any], prefix: str) -> None:
    """Refuse a neck that nothing would go through; ``auto`` is decided when the encoder's maps are known."""
    neck, decoder = node["neck"], node["decoder"]["_target_"]
    if not neck or neck.get("auto") or class_constants(decoder)["consumes"] == "pyramid":
        return
    raise ConfigError(
        "The neck and the decoder do not go together.",
        given=f"{neck['_target_']} with {decoder}, which takes the encoder's embedding and no maps",
        expected="neck=auto for this decoder, or a decoder of maps",
        override=[f"{prefix}neck=auto", f"{prefix}decoder={task_constants('segmentation')['default_decoder']}"],
    )


def check_head(node: Mapping[str, Any], encoder: Mapping[str, Any], prefix: str) -> None:
    """Refuse a decoder that lives on the encoder's pretrained weights where there are none, or no classifier."""
    constants = class_constants(node["decoder"]["_target_"])
    if not constants["ready"]:
        return
    if constants["consumes"] == "logits" and not keeps_head(encoder):
        having = [name for name, other in parts_of("encoder").items() if keeps_head(other)]
        raise ConfigError(
            "The decoder applies the classifier that came with the encoder's weights, and this encoder has none.",
            given=f"{node['decoder']['_target_']} with {encoder['_target_']}",
            expected=f"an encoder with a classifier: {listed(having)}",
            override=[f"encoder={having[0]}", f"{prefix}decoder={task_constants('classification')['default_decoder']}"],
        )
    if encoder.get("skip") or not encoder.get("use_pretrained", True):
        raise ConfigError(
            "The decoder lives on the encoder's pretrained weights, and they are not loaded.",
            given=f"encoder.use_pretrained={encoder.get('use_pretrained')}, encoder.skip={encoder.get('skip')}",
            override=["encoder.use_pretrained=true encoder.skip=false", f"{prefix}decoder=classifier"],
        )


def keeps_head(encoder: Mapping[str, Any]) -> bool:
    """Whether an encoder can keep the classifier of its pretrained weights."""
    return "keep_head" in class_constants(encoder["_target_"])["injected"]


def check_inputs(config: Mapping[str, Any]) -> None:
    """Refuse an input that is tied to none, and several images where the decoder takes one."""
    inputs, tied = config["data"].get("inputs") or [], config["tied"]
    if tied is not None and (tied not in inputs or len(inputs) < 2):
        raise ConfigError(
            "tied names the image input whose encoder the others share, and there is no such input.",
            given=f"tied={tied}, data.inputs={config['data'].get('inputs')}",
            expected=f"one of {listed(inputs)}" if inputs else "data.inputs with several columns",
            nearest=nearest(str(tied), inputs),
            override=[f"tied={inputs[0]}" if len(inputs) > 1 else "data.inputs=[left,right]", "tied=null"],
        )
    if len(inputs) > 1 and class_constants(config["decoder"]["_target_"]).get("ready"):
        raise ConfigError(
            "This decoder takes one image a sample.",
            given=f"{config['decoder']['_target_']} with data.inputs={listed(inputs)}",
            override=["data.inputs=null", f"decoder={task_constants('classification')['default_decoder']}"],
        )


def check_mirrored(config: Mapping[str, Any]) -> None:
    """Refuse to average embeddings of an image and its mirror image where an output takes none."""
    if not config.get("average_horizontal_flips"):
        return
    for name, node in outputs_of(config).items():
        decoder, prefix = node["decoder"]["_target_"], setting_prefix(config, name)
        takes = class_constants(decoder)["consumes"]
        reduced = takes == "embedding" and node.get("reduce_input")
        if takes == "embedding" and not reduced:
            continue
        raise ConfigError(
            "The embeddings of image and mirror image are averaged, and an output takes none.",
            given=f"average_horizontal_flips=true with {decoder}, which takes "
            + (f"the deepest map: {prefix}reduce_input={reduced}" if reduced else f"the encoder's {takes}"),
            expected="decoders that take the embedding",
            override=[
                "average_horizontal_flips=false",
                f"{prefix}reduce_input=null" if reduced else f"{prefix}decoder=classifier",
            ],
        )


def check_views(config: Mapping[str, Any]) -> None:
    """Refuse to compare views of an image that are all alike."""
    compared = [
        part["_target_"]
        for node in outputs_of(config).values()
        for part in loss_parts(node["loss"])
        if class_constants(part["_target_"])["views"] > 1
    ]
    if compared and not any((config.get("augmentation") or {}).values()):
        raise ConfigError(
            "The loss compares differently augmented views of each image, and nothing is augmented.",
            given=f"{compared[0]} with augmentation=none",
            expected="an augmentation that changes what should not matter",
            override="augmentation=views",
        )
    if compared and config["batch_size"] == 1:
        raise ConfigError(
            "The loss tells the views of an image from those of the others in its batch, and there are no others.",
            given=f"batch_size=1 with {compared[0]}",
            expected="at least 2; more are better",
            override="batch_size=32",
        )


def check_weights(config: Mapping[str, Any]) -> None:
    """Refuse weights with which nothing is trained."""
    outputs = outputs_of(config)
    whole = []
    for name, node in outputs.items():
        prefix = setting_prefix(config, name)
        inner = [part.get("weight", 1) for part in loss_parts(node["loss"])]
        own = node.get("weight", 1) if node is not config else 1
        whole.append(own * node["loss"].get("weight", 1) * sum(inner))
        if own and not whole[-1]:
            raise ConfigError(
                "With a weight of 0 the loss trains nothing.",
                given=f"{prefix}loss with weight {node['loss'].get('weight')}, its parts {listed(map(str, inner))}",
                override=f"{prefix}loss.weight=1",
            )
    if not any(whole):
        raise ConfigError(
            "With a weight of 0 for every output nothing is trained.",
            given=listed(outputs),
            override=f"outputs.{next(iter(outputs))}.weight=1",
        )


def check_labels(config: Mapping[str, Any], index: SampleIndex) -> None:
    """Refuse a loss that compares images by their labels where there are none."""
    needing = [
        part["_target_"]
        for node in outputs_of(config).values()
        for part in loss_parts(node["loss"])
        if node["task"] == "embedding" and class_constants(part["_target_"])["needs_target"]
    ]
    if needing and index.target is None:
        raise ConfigError(
            "The loss compares images by their labels, and the data have none.",
            given=f"{needing[0]} with {index.origin}",
            expected="data with labels, or a loss that needs none",
            override=["loss=nt_xent_loss", "data.target=COLUMN"],
        )


def lacking_rows(config: Mapping[str, Any], index: SampleIndex) -> list[Problem]:
    """Say what is not learned, because no row shows it."""
    found = []
    for name, node in outputs_of(config).items():
        labels = labels_of(index, config, name)
        if labels is None or labels.label is None:
            continue
        if node["task"] == "anomaly" and index.counts()["val"]:
            normal, anomalous = occurring(labels.label, index.split, "val")
            if not normal:
                found.append("no validation image is normal: no threshold is learned, and predictions are scores alone")
            elif not anomalous:
                found.append("no validation image is anomalous: the threshold is a quantile of the normal scores")
        if node["task"] == "open_set":
            counts = any(class_constants(p["_target_"])["counts_unknown"] for p in loss_parts(node["loss"]))
            if counts and not labels.unknown(index.rows("train")):
                found.append(f"no training image is unknown, so {loss_name(node['loss'])} learns nothing of them")
            if index.counts()["val"] and not labels.unknown(index.rows("val")):
                found.append("no validation image is unknown: the threshold is where 95 % of the known ones are kept")
    return [Problem("warning", message) for message in found]


def check_encoder_weights(node: Mapping[str, Any]) -> None:
    """Refuse to leave weights out of the checkpoint that cannot be had again."""
    if node.get("saved_weights_in_checkpoint") is not False:
        return
    if node.get("trainable", True) or not node.get("use_pretrained", False):
        raise ConfigError(
            "encoder.saved_weights_in_checkpoint=false would lose the encoder's weights.",
            given=f"trainable={node.get('trainable', True)}, use_pretrained={node.get('use_pretrained', False)}",
            expected="a frozen encoder with pretrained weights, which can be had again from where they came from",
            override=[
                "encoder.saved_weights_in_checkpoint=null",
                "encoder.trainable=false encoder.use_pretrained=true",
            ],
        )


def check_encoder_training(config: Mapping[str, Any]) -> None:
    """Refuse settings of an encoder's training where it is not trained."""
    encoder = config["encoder"]
    fixed = next((f"encoder.{k}={str(v).lower()}" for k, v in NOT_TRAINED.items() if encoder.get(k) is v), None)
    if fixed and encoder.get("drop_path"):
        raise ConfigError(
            "Stochastic depth is about the training of the encoder, and it is not trained.",
            given=f"encoder.drop_path={encoder['drop_path']} and {fixed}",
            override=["encoder.drop_path=null", "encoder.trainable=true encoder.skip=false"],
        )
    for key, off in (("encoder_layer_decay", None), ("encoder_freeze_epochs", 0)):
        if fixed and config.get(key, off) != off:
            raise ConfigError(
                f"{key} is about the training of the encoder, and it is not trained.",
                given=f"{key}={config[key]} and {fixed}",
                override=[f"{key}={'null' if off is None else off}", "encoder.trainable=true encoder.skip=false"],
            )
    freeze = config.get("encoder_freeze_epochs", 0)
    if freeze and freeze >= config["epochs"]:
        raise ConfigError(
            "The encoder would never be unfrozen.",
            given=f"encoder_freeze_epochs={freeze} and epochs={config['epochs']}",
            expected="fewer than epochs, or an encoder that is frozen for good",
            override=[f"epochs={freeze + 1}", "encoder_freeze_epochs=0 encoder.trainable=false"],
        )


def check_calibration(config: Mapping[str, Any], index: SampleIndex) -> None:
    """Refuse to fit on the validation split what no output has, or what there are no rows for."""
    asked = calibrated(config)
    if not asked:
        return
    tasks = [node["task"] for node in outputs_of(config).values()]
    for what in asked:
        able = [task for task in TASKS if what in task_constants(task)["calibrates"]]
        if not set(able) & set(tasks):
            raise ConfigError(
                f"Nothing here has a {what.removesuffix('s')} to fit.",
                given=f"calibrate={config['calibrate']} with task {listed(tasks)}",
                expected=f"a task of {listed(able)}",
                override="calibrate=null",
            )
    rows = index.counts()["val"]
    targets = targets_of(index, config).values()
    most = min(task_constants(task)["max_stored"] for task in tasks)
    if rows * max(target.num_classes for target in targets) > most:
        raise ConfigError(
            "The validation split is too large to fit on: its probabilities are not kept.",
            given=f"calibrate={config['calibrate']}, {rows} validation rows",
            expected=f"at most {most} probabilities, rows times classes",
            override="calibrate=null",
        )
    if not rows:
        raise ConfigError(
            "Temperature and thresholds are fitted on the validation split, and the data have none.",
            given=f"calibrate={config['calibrate']}",
            override="calibrate=null",
        )


def calibrated(config: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``calibrate`` asks for."""
    asked = config.get("calibrate")
    return ("temperature", "thresholds") if asked == "all" else (asked,) if asked else ()
