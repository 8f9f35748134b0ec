"""Turn ``auto`` into decisions before torch is imported: task, loss, classes, image size; and refuse what clashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_vision.config import conf_dir, instantiate, options_of
from lightning_vision.data.class_names import read_class_names
from lightning_vision.data.geometry import infer_geometry
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.signatures import class_constants
from lightning_vision.types import Geometry, TargetKind, TargetSpec

TASK_OF_OUTPUT = {"label": "classification", "mask": "segmentation"}
KIND_OF_TASK: dict[str, TargetKind] = {"classification": "label", "segmentation": "mask"}
DEFAULT_LOSS = {"classification": "softmax_cross_entropy", "segmentation": "softmax_cross_entropy"}
DECODER_OF_TASK = {"classification": "classifier", "segmentation": "unet"}
# What an encoder has where nothing of it is trained.
NOT_TRAINED = {"trainable": False, "skip": True}
# Pixels a side of the images that most published models were trained and evaluated with.
PRETRAINED_SIZE = 224
MONITOR = {"classification": "val/accuracy", "segmentation": "val/mean_iou"}


@dataclass
class Plan:
    """All decisions of a run.

    Args:
        config: The resolved config as plain data, without ``auto``.
        reasons: Why each ``auto`` became what it is, by its key.
        task: Name of the task.
        index: All rows of the data.
        target: The classes.
        geometry: What images are brought to.
        preprocessing: How.
        encoder_rebuild: Arguments that build the encoder of a run that goes on without its first weights.
    """

    config: dict[str, Any]
    reasons: dict[str, str]
    task: str
    index: SampleIndex
    target: TargetSpec
    geometry: Geometry
    preprocessing: Preprocessing
    encoder_rebuild: dict[str, Any] = field(default_factory=dict)


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain data, interpolations resolved, without Hydra's own part."""
    data = OmegaConf.to_container(cfg, resolve=False) if isinstance(cfg, DictConfig) else dict(cfg)
    data = {k: v for k, v in cast(dict[str, Any], data).items() if k != "hydra"}
    if isinstance(cfg, DictConfig):
        # Resolved in place of the whole, because output_dir points into Hydra's own part.
        data = {k: v for k, v in cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True)).items() if k in data}
    return data


def resolve(cfg: DictConfig | Mapping[str, Any], source: str | Sequence[str] | None = None) -> Plan:
    """Read the data's index and decide.

    Args:
        cfg: The composed config.
        source: Images to predict in place of the config's data, for a decoder that is ready without training.

    Raises:
        ConfigError: Two settings do not go together; the message names both.
        DataError: The data cannot be used.
    """
    config = plain(cfg)
    reasons: dict[str, str] = {}
    task = _task(config, reasons)
    _loss(config, task, reasons)
    _neck(config)
    _head(config)
    _inputs(config)
    index = _index(config, task) if source is None else _files(config, source)
    if class_constants(config["decoder"]["_target_"])["ready"]:
        _pretrained_geometry(config, reasons)
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    preprocessing.require_unlabelled(index.target)
    geometry = _geometry(config, index, preprocessing, reasons)
    _encoder_channels(config, geometry, reasons)
    if config["encoder"].get("image_size") == "auto":
        config["encoder"]["image_size"] = [geometry.height, geometry.width]
    _encoder_weights(config["encoder"])
    _monitor(config, index, task, reasons)
    _encoder_lr(config, reasons)
    _encoder_training(config)
    _embeddings(config, reasons)
    assert index.target is not None
    return Plan(config, reasons, task, index, index.target, geometry, preprocessing)


def _index(config: dict[str, Any], task: str) -> SampleIndex:
    names = config["decoder"].get("class_names")
    if names is not None and config["data"].get("class_names", names) is None:
        config["data"]["class_names"] = names
    return read_index(config, KIND_OF_TASK[task])


def _files(config: Mapping[str, Any], source: str | Sequence[str]) -> SampleIndex:
    """Images without targets; their classes are those that the decoder names, or all that the encoder knows."""
    names = read_class_names(config["decoder"].get("class_names"), "", "decoder.class_names") or ()
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    index = FilesSource(source).read(None, config["seed"], preprocessing=preprocessing)
    return replace(index, target=TargetSpec("label", names))


def read_index(config: Mapping[str, Any], wanted: TargetKind | None) -> SampleIndex:
    """Build the source of a config's data and read its rows."""
    source: Any = instantiate(config["data"])
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    return cast(SampleIndex, source.read(wanted, config["seed"], preprocessing=preprocessing))


def _task(config: dict[str, Any], reasons: dict[str, str]) -> str:
    output = class_constants(config["decoder"]["_target_"])["output"]
    served = TASK_OF_OUTPUT[output]
    task = config["task"]
    if task == "auto":
        reasons["task"] = f"the decoder predicts a {output} for each image"
        config["task"] = served
        return served
    if task not in KIND_OF_TASK:
        raise ConfigError("Unknown task.", given=f"task={task}", expected=listed(KIND_OF_TASK), override="task=auto")
    if task != served:
        raise ConfigError(
            "The task and the decoder do not go together.",
            given=f"task={task} with a decoder that predicts {output}s ({config['decoder']['_target_']})",
            expected=f"task={served} for this decoder, or another decoder for {task}",
            override=[f"task={served}", f"decoder={DECODER_OF_TASK[task]}"],
        )
    return task


def _loss(config: dict[str, Any], task: str, reasons: dict[str, str]) -> None:
    if config["loss"].get("auto"):
        name = DEFAULT_LOSS[task]
        config["loss"] = OmegaConf.to_container(OmegaConf.load(conf_dir() / "loss" / f"{name}.yaml"))
        reasons["loss"] = f"the default loss of {task}"
        return
    target = config["loss"]["_target_"]
    served = class_constants(target)["tasks"]
    if task not in served:
        fitting = []
        for name, path in options_of("loss").items():
            other = cast(DictConfig, OmegaConf.load(path)).get("_target_")
            if other and task in class_constants(other)["tasks"]:
                fitting.append(name)
        raise ConfigError(
            "The loss does not serve the task.",
            given=f"{target} (for {listed(served)}) with task {task}",
            expected=f"a loss for {task}: {listed(fitting)}",
            override=f"loss={fitting[0]}",
        )


def _neck(config: dict[str, Any]) -> None:
    """Refuse a neck that nothing would go through; ``auto`` is decided when the encoder's maps are known."""
    neck, decoder = config["neck"], config["decoder"]["_target_"]
    if not neck or neck.get("auto") or class_constants(decoder)["consumes"] == "pyramid":
        return
    raise ConfigError(
        "The neck and the decoder do not go together.",
        given=f"{neck['_target_']} with {decoder}, which takes the encoder's embedding and no maps",
        expected="neck=auto for this decoder, or a decoder of maps",
        override=["neck=auto", f"decoder={DECODER_OF_TASK['segmentation']}"],
    )


def _head(config: Mapping[str, Any]) -> None:
    """Refuse a decoder that lives on the encoder's pretrained weights where there are none, or no classifier."""
    constants = class_constants(config["decoder"]["_target_"])
    if not constants["ready"]:
        return
    encoder = config["encoder"]
    if constants["consumes"] == "logits" and not keeps_head(encoder):
        having = [
            name for name, path in options_of("encoder").items() if keeps_head(cast(DictConfig, OmegaConf.load(path)))
        ]
        raise ConfigError(
            "The decoder applies the classifier that came with the encoder's weights, and this encoder has none.",
            given=f"{config['decoder']['_target_']} with {encoder['_target_']}",
            expected=f"an encoder with a classifier: {listed(having)}",
            override=[f"encoder={having[0]}", f"decoder={DECODER_OF_TASK['classification']}"],
        )
    if encoder.get("skip") or not encoder.get("use_pretrained", True):
        raise ConfigError(
            "The decoder lives on the encoder's pretrained weights, and they are not loaded.",
            given=f"encoder.use_pretrained={encoder.get('use_pretrained')}, encoder.skip={encoder.get('skip')}",
            override=["encoder.use_pretrained=true encoder.skip=false", "decoder=classifier"],
        )


def keeps_head(encoder: Mapping[str, Any] | DictConfig) -> bool:
    """Whether an encoder can keep the classifier of its pretrained weights."""
    return "keep_head" in class_constants(encoder["_target_"])["injected"]


def _inputs(config: Mapping[str, Any]) -> None:
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
            override=["data.inputs=null", f"decoder={DECODER_OF_TASK['classification']}"],
        )


def _pretrained_geometry(config: dict[str, Any], reasons: dict[str, str]) -> None:
    """Without training nothing adapts to the images at hand, so they are brought to what the weights were made for."""
    preprocessing = config["preprocessing"]
    if preprocessing.get("num_channels") is None:
        preprocessing["num_channels"] = config["encoder"].get("num_channels") or 3
        reasons["preprocessing.num_channels"] = "the channels of the pretrained weights"
    if config["image_size"] is None and preprocessing.get("height") is None:
        config["image_size"] = PRETRAINED_SIZE
        reasons["image_size"] = "the size that most pretrained models were made for"


def _geometry(
    config: dict[str, Any], index: SampleIndex, preprocessing: Preprocessing, reasons: dict[str, str]
) -> Geometry:
    geometry = infer_geometry(index, preprocessing, config["image_size"])
    if config["image_size"] is None and preprocessing.height is None:
        reasons["image_size"] = "inferred from the training images"
    if preprocessing.num_channels is None:
        reasons["preprocessing.num_channels"] = "inferred from the training images"
    config["image_size"] = [geometry.height, geometry.width]
    config["preprocessing"]["num_channels"] = geometry.num_channels
    return geometry


def _encoder_channels(config: dict[str, Any], geometry: Geometry, reasons: dict[str, str]) -> None:
    wanted = config["encoder"].get("num_channels", geometry.num_channels)
    if wanted is None:
        config["encoder"]["num_channels"] = geometry.num_channels
        reasons["encoder.num_channels"] = "the channels of the data"
    elif wanted != geometry.num_channels:
        raise ConfigError(
            "The encoder and the preprocessing disagree about the number of channels.",
            given=f"encoder.num_channels={wanted} with images of {geometry.num_channels} channels",
            expected="one number for both",
            override=[f"preprocessing.num_channels={wanted}", "encoder.num_channels=null"],
        )


def _encoder_weights(node: Mapping[str, Any]) -> None:
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


def _monitor(config: dict[str, Any], index: SampleIndex, task: str, reasons: dict[str, str]) -> None:
    validated = index.counts()["val"] > 0
    if config["monitor"] == "auto":
        config["monitor"] = MONITOR[task] if validated else "train/loss"
        reasons["monitor"] = f"the figure of {task}" if validated else "there is no validation split"
    elif not validated and config["monitor"].startswith("val/"):
        raise ConfigError(
            "The monitored figure needs a validation split, and the data have none.",
            given=f"monitor={config['monitor']}",
            expected="a figure of the training split, or data with rows for val",
            override="monitor=train/loss",
        )
    fill_monitor(config)


def fill_monitor(config: dict[str, Any]) -> None:
    """Tell the callbacks what is monitored, and whether it should be large or small."""
    for callback in (config.get("callbacks") or {}).values():
        if not isinstance(callback, dict) or "monitor" not in callback:
            continue
        if callback["monitor"] == "auto":
            callback["monitor"] = config["monitor"]
        if callback.get("mode") == "auto":
            callback["mode"] = "min" if str(callback["monitor"]).endswith("loss") else "max"


def _encoder_lr(config: dict[str, Any], reasons: dict[str, str]) -> None:
    if config["encoder_lr_factor"] != "auto":
        return
    encoder = config["encoder"]
    pretrained = encoder.get("use_pretrained", False) and encoder.get("adapter") is None
    config["encoder_lr_factor"] = 0.1 if pretrained else 1.0
    reasons["encoder_lr_factor"] = "pretrained weights change slowly" if pretrained else "all trained weights are new"


def _encoder_training(config: Mapping[str, Any]) -> None:
    """Refuse settings of an encoder's training where it is not trained."""
    encoder = config["encoder"]
    fixed = next((f"encoder.{k}={str(v).lower()}" for k, v in NOT_TRAINED.items() if encoder.get(k) is v), None)
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


def _embeddings(config: dict[str, Any], reasons: dict[str, str]) -> None:
    """Refuse to cache features that change, or leave it; null is decided when the size of the features is known."""
    settings, encoder = config["preprocessing"], config["encoder"]
    wanted = settings.get("cache_encoder_embeddings")
    random = [f"augmentation.{name}" for name, node in (config.get("augmentation") or {}).items() if node]
    changing = (
        (encoder.get("trainable", True), "encoder.trainable=true", "the encoder is trained", "encoder.trainable=false"),
        (encoder.get("adapter"), "encoder.adapter", "the encoder's adapter is trained", "encoder.adapter=null"),
        (encoder.get("skip"), "encoder.skip=true", "there is no encoder", "encoder.skip=false"),
        (random, listed(random), "the augmentation changes the images", "augmentation=none"),
    )
    clashes = [(given, why) for there, given, why, _ in changing if there]
    if wanted is False or not clashes:
        return
    if wanted is None:
        settings["cache_encoder_embeddings"] = False
        reasons["preprocessing.cache_encoder_embeddings"] = clashes[0][1]
        return
    raise ConfigError(
        f"Embeddings can be cached only where they are the same in every epoch, and {clashes[0][1]}.",
        given=f"preprocessing.cache_encoder_embeddings=true with {listed(given for given, _ in clashes)}",
        expected="a frozen encoder, no adapter and no augmentation",
        override=[
            "preprocessing.cache_encoder_embeddings=null",
            " ".join(mend for there, *_, mend in changing if there),
        ],
    )
