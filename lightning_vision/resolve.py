"""Turn ``auto`` into decisions before torch is imported: task, loss, classes, image size; and refuse what clashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_vision.config import instantiate
from lightning_vision.data.class_names import read_class_names
from lightning_vision.data.geometry import infer_geometry, training_geometry
from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.decoders.kinds import check_kinds
from lightning_vision.errors import ConfigError, listed
from lightning_vision.loss_choice import choose_loss, loss_tasks
from lightning_vision.mixing_checks import check_mixing
from lightning_vision.monitor import decide_monitor
from lightning_vision.optim.checks import check_averages, check_optimizer
from lightning_vision.options import expand
from lightning_vision.outputs import OutputPlan, columns_of, in_order, main_output, outputs_of, setting_prefix
from lightning_vision.pairing import (
    check_calibration,
    check_encoder_training,
    check_encoder_weights,
    check_head,
    check_inputs,
    check_labels,
    check_mirrored,
    check_neck,
    check_views,
    check_weights,
    lacking_rows,
)
from lightning_vision.reading import background_as_unknown, normal_or_not_of, read_index, targets_of
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import task_constants, tasks_of
from lightning_vision.training_images import check_repeats, check_train_size
from lightning_vision.types import Geometry, TargetSpec

# Pixels a side of the images that most published models were trained and evaluated with.
PRETRAINED_SIZE = 224
CSV = "lightning_vision.callbacks.epoch_csv.EpochCSV"


@dataclass
class Plan:
    """All decisions of a run.

    Args:
        config: The resolved config as plain data, without ``auto``.
        reasons: Why each ``auto`` became what it is, by its key.
        outputs: What is predicted, by name.
        index: All rows of the data.
        geometry: What images are brought to.
        preprocessing: How.
        encoder_rebuild: Arguments that build the encoder of a run that goes on without its first weights.
    """

    config: dict[str, Any]
    reasons: dict[str, str]
    outputs: dict[str, OutputPlan]
    index: SampleIndex
    geometry: Geometry
    preprocessing: Preprocessing
    encoder_rebuild: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> TargetSpec:
        """The classes of the first output."""
        return next(iter(self.outputs.values())).target


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain data, interpolations resolved, without what concerns Hydra and the sweep alone."""
    data = OmegaConf.to_container(cfg, resolve=False) if isinstance(cfg, DictConfig) else dict(cfg)
    data = {k: v for k, v in cast(dict[str, Any], data).items() if k not in ("hydra", "sweep")}
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
    expand(config)
    _always_csv(config)
    reasons = _tasks_and_losses(config)
    for name, node in outputs_of(config).items():
        check_neck(node, setting_prefix(config, name))
        check_head(node, config["encoder"], setting_prefix(config, name))
    check_inputs(config)
    check_mirrored(config)
    check_views(config)
    check_repeats(config)
    check_mixing(config)
    check_weights(config)
    check_optimizer(config)
    check_averages(config)
    background_as_unknown(config, reasons)
    index = normal_or_not_of(_index(config), config, reasons) if source is None else _files(config, source)
    if class_constants(config["decoder"]["_target_"])["ready"]:
        _pretrained_geometry(config, reasons)
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    preprocessing.require_unlabelled(index.target, [further.target for further in index.further_targets.values()])
    geometry = _geometry(config, index, preprocessing, reasons)
    check_train_size(config, geometry, training_geometry(geometry, preprocessing))
    _encoder_channels(config, geometry, reasons)
    if config["encoder"].get("image_size") == "auto":
        config["encoder"]["image_size"] = [geometry.height, geometry.width]
    check_encoder_weights(config["encoder"])
    check_labels(config, index)
    index.problems = (*index.problems, *lacking_rows(config, index))
    decide_monitor(config, index, reasons)
    check_calibration(config, index)
    _encoder_lr(config, reasons)
    check_encoder_training(config)
    _embeddings(config, reasons)
    targets = targets_of(index, config)
    columns = columns_of(config)
    outputs = {
        name: OutputPlan(node, node["task"], targets[name], columns[name]) for name, node in outputs_of(config).items()
    }
    return Plan(config, reasons, outputs, index, geometry, preprocessing)


def _always_csv(config: dict[str, Any]) -> None:
    """Write metrics.csv whatever logs are chosen: the curves are drawn from it."""
    logs = {name: node for name, node in (config.get("logger") or {}).items() if node}
    if not any(node.get("_target_") == CSV for node in logs.values()):
        config["logger"] = {"csv": {"_target_": CSV, "save_dir": config["output_dir"]}, **logs}


def look(cfg: DictConfig | Mapping[str, Any]) -> tuple[SampleIndex, dict[str, Any]]:
    """Read the data's index with all of its problems, and return it with the config, whose tasks are decided.

    Raises:
        ConfigError: A setting with which nothing can be read at all.
        DataError: The table or folder cannot be read at all.
    """
    config = plain(cfg)
    expand(config)
    reasons = _tasks_and_losses(config)
    background_as_unknown(config, reasons)
    index = read_index(config, strict=False)
    try:
        return normal_or_not_of(index, config, reasons), config
    except ConfigError as error:
        index.problems = (*index.problems, Problem("error", str(error)))
        return index, config


def _tasks_and_losses(config: dict[str, Any]) -> dict[str, str]:
    """Decide the task and the loss of every output; return why they are what they are."""
    reasons: dict[str, str] = {}
    for name, node in outputs_of(config).items():
        why: dict[str, str] = {}
        prefix = setting_prefix(config, name)
        _task(node, config, why, prefix)
        choose_loss(node, why, prefix)
        reasons |= {f"{prefix}{key}": reason for key, reason in why.items()}
    return reasons


def _index(config: dict[str, Any]) -> SampleIndex:
    outputs = outputs_of(config)
    in_order({name: node.get("dependencies") or [] for name, node in outputs.items()})
    for name, node in outputs.items():
        if node.get("dependencies") and class_constants(node["decoder"]["_target_"])["starts_from_data"]:
            raise ConfigError(
                "This decoder starts from the encoder's features of the training images, before any output is there.",
                given=f"outputs.{name}.dependencies with {node['decoder']['_target_']}",
                override=f"outputs.{name}.dependencies=[]",
            )
    names = outputs[main_output(config)]["decoder"].get("class_names")
    if names is not None and config["data"].get("class_names", names) is None:
        config["data"]["class_names"] = names
    return read_index(config)


def _files(config: Mapping[str, Any], source: str | Sequence[str]) -> SampleIndex:
    """Images without targets; their classes are those that the decoder names, or all that the encoder knows."""
    names = read_class_names(config["decoder"].get("class_names"), "", "decoder.class_names") or ()
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    index = FilesSource(source).read(None, config["seed"], preprocessing=preprocessing)
    return replace(index, target=TargetSpec("label", names))


def _task(node: dict[str, Any], config: Mapping[str, Any], reasons: dict[str, str], prefix: str) -> None:
    decoder = node["decoder"]["_target_"]
    check_kinds(decoder, class_constants(decoder), prefix)
    output = class_constants(decoder)["output"]
    served, task = tasks_of(output), node["task"]
    if task == "auto":
        node["task"], reasons["task"] = _auto_task(node, config, output, served)
    elif task not in served:
        raise ConfigError(
            "The task and the decoder do not go together.",
            given=f"task={task} with a decoder that predicts {output}s ({decoder})",
            expected=f"task={' or '.join(served)} for this decoder, or another decoder for {task}",
            override=[f"{prefix}task={served[0]}", f"{prefix}decoder={task_constants(task)['default_decoder']}"],
        )


def _auto_task(node: Mapping[str, Any], config: Mapping[str, Any], output: str, served: list[str]) -> tuple[str, str]:
    """The task that follows from decoder, loss and data, and why."""
    if not node["loss"].get("auto"):  # a loss that serves one of them alone
        fitting = [task for task in served if task in loss_tasks(node["loss"])]
        if len(fitting) == 1 < len(served):
            return fitting[0], f"the loss is one for {fitting[0]}"
        served = fitting or served
    if "open_set" in served and (config["data"].get("unknown") or node["loss"].get("background_class") is not None):
        return "open_set", "some labels mean that an image belongs to no class"
    if "multilabel" in served and isinstance(node.get("target"), list) and len(node["target"]) > 1:
        return "multilabel", "its target is several columns"
    if "multilabel" in served:
        own = {"target": node["target"]} if node is not config and "target" in config["data"] else {}
        source: Any = instantiate({**config["data"], **own})
        if source.target_kind("label") == "labels":
            return "multilabel", "the data hold sets of labels"
    return served[0], f"the decoder predicts a {output} for each image"


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


def _encoder_lr(config: dict[str, Any], reasons: dict[str, str]) -> None:
    if config["encoder_lr_factor"] != "auto":
        return
    encoder = config["encoder"]
    pretrained = encoder.get("use_pretrained", False) and encoder.get("adapter") is None
    config["encoder_lr_factor"] = 0.1 if pretrained else 1.0
    reasons["encoder_lr_factor"] = "pretrained weights change slowly" if pretrained else "all trained weights are new"


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
