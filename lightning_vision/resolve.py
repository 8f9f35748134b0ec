"""Turn ``auto`` into decisions before torch is imported: task, loss, classes, image size; and refuse what clashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from lightning_vision.config import instantiate, options_of
from lightning_vision.data.class_names import read_class_names
from lightning_vision.data.geometry import infer_geometry
from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.data.normal_class import as_normal_or_not, find_normal_class, normal_or_not, occurring
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.monitor import decide_monitor
from lightning_vision.options import expand, load_option
from lightning_vision.outputs import OutputPlan, columns_of, in_order, main_output, outputs_of
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import TASKS, task_constants, tasks_of
from lightning_vision.types import Geometry, TargetKind, TargetSpec

# Probabilities that a counter keeps (metrics/ranking.py, which imports torch).
MAX_STORED = 20_000_000
# What an encoder has where nothing of it is trained.
NOT_TRAINED = {"trainable": False, "skip": True}
# Pixels a side of the images that most published models were trained and evaluated with.
PRETRAINED_SIZE = 224


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
    expand(config)
    reasons: dict[str, str] = {}
    several = bool(config.get("outputs"))
    for name, node in outputs_of(config).items():
        why: dict[str, str] = {}
        prefix = f"outputs.{name}." if several else ""
        _task(node, config, why, prefix)
        _loss(node, why, prefix)
        reasons |= {f"{prefix}{key}": reason for key, reason in why.items()}
        _neck(node, prefix)
        _head(node, config["encoder"], prefix)
    _inputs(config)
    _views(config)
    _weights(config)
    _background(config, reasons)
    index = _normal_or_not(_index(config), config, reasons) if source is None else _files(config, source)
    if class_constants(config["decoder"]["_target_"])["ready"]:
        _pretrained_geometry(config, reasons)
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    preprocessing.require_unlabelled(index.target, [further.target for further in index.further_targets.values()])
    geometry = _geometry(config, index, preprocessing, reasons)
    _encoder_channels(config, geometry, reasons)
    if config["encoder"].get("image_size") == "auto":
        config["encoder"]["image_size"] = [geometry.height, geometry.width]
    _encoder_weights(config["encoder"])
    _labels(config, index)
    index.problems = (*index.problems, *_lacking_rows(config, index))
    decide_monitor(config, index, reasons)
    _calibrate(config, index)
    _encoder_lr(config, reasons)
    _encoder_training(config)
    _embeddings(config, reasons)
    targets = targets_of(index, config)
    columns = columns_of(config)
    outputs = {
        name: OutputPlan(node, node["task"], targets[name], columns[name]) for name, node in outputs_of(config).items()
    }
    return Plan(config, reasons, outputs, index, geometry, preprocessing)


def look(cfg: DictConfig | Mapping[str, Any]) -> tuple[SampleIndex, dict[str, Any]]:
    """Read the data's index with all of its problems, and return it with the config, whose tasks are decided.

    Raises:
        ConfigError: A setting with which nothing can be read at all.
        DataError: The table or folder cannot be read at all.
    """
    config = plain(cfg)
    expand(config)
    reasons: dict[str, str] = {}
    for node in outputs_of(config).values():
        _task(node, config, reasons)
        _loss(node, reasons)
    _background(config, reasons)
    index = read_index(config, strict=False)
    try:
        return _normal_or_not(index, config, reasons), config
    except ConfigError as error:
        index.problems = (*index.problems, Problem("error", str(error)))
        return index, config


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


def _normal_or_not(index: SampleIndex, config: dict[str, Any], reasons: dict[str, str]) -> SampleIndex:
    """Of the classes that anomaly detection is to learn, make two; its config gets the name of the normal one."""
    main, columns = main_output(config), columns_of(config)
    for name, node in outputs_of(config).items():
        labels = index.main_labels if name == main else index.further_targets.get(name)
        if node["task"] != "anomaly" or labels is None:
            continue
        key = "decoder.normal_class" if len(columns) == 1 else f"outputs.{name}.decoder.normal_class"
        normal, reasons[key] = find_normal_class(labels, index.split, node["decoder"]["normal_class"], key)
        node["decoder"]["normal_class"] = normal
        wanted = any(class_constants(part["_target_"])["trains_on_anomalies"] for part in loss_parts(node["loss"]))
        if name == main:
            # Other outputs learn from anomalous images too; the losses leave out those that they do not want.
            index = as_normal_or_not(index, normal, wanted or len(columns) > 1)
        else:
            index = replace(index, further_targets={**index.further_targets, name: normal_or_not(labels, normal)})
    return index


def _files(config: Mapping[str, Any], source: str | Sequence[str]) -> SampleIndex:
    """Images without targets; their classes are those that the decoder names, or all that the encoder knows."""
    names = read_class_names(config["decoder"].get("class_names"), "", "decoder.class_names") or ()
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    index = FilesSource(source).read(None, config["seed"], preprocessing=preprocessing)
    return replace(index, target=TargetSpec("label", names))


def read_index(config: Mapping[str, Any], strict: bool = True) -> SampleIndex:
    """Build the source of a config's data and read its rows, with the targets of all outputs.

    Args:
        config: The config, with its tasks decided.
        strict: As in ``Source.read``.
    """
    outputs, main = outputs_of(config), main_output(config)
    data = dict(config["data"])
    if config.get("outputs"):
        own = {key: outputs[main][key] for key in ("target", "class_names") if outputs[main][key] is not None}
        data |= {key: value for key, value in own.items() if key in data}
    source: Any = instantiate(data)
    preprocessing = cast(Preprocessing, instantiate(config["preprocessing"]))
    constants = {name: task_constants(node["task"]) for name, node in outputs.items()}
    wanted: TargetKind | None = constants[main]["target_kind"]
    if not constants[main]["needs_target"] and source.target_kind(wanted) != wanted:
        wanted = None
    further = {
        name: (node["target"], constants[name]["target_kind"], node.get("class_names"))
        for name, node in outputs.items()
        if name != main
    }
    covered = constants[main]["covers_classes"]
    index = source.read(wanted, config["seed"], strict, preprocessing, coverage=covered, further=further)
    return cast(SampleIndex, index)


def targets_of(index: SampleIndex, config: Mapping[str, Any]) -> dict[str, TargetSpec]:
    """What each output predicts, by its name; without targets, labels without classes."""
    main = main_output(config)
    own = index.target or TargetSpec("label", ())
    return {name: own if name == main else index.further_targets[name].target for name in outputs_of(config)}


def _task(node: dict[str, Any], config: Mapping[str, Any], reasons: dict[str, str], prefix: str = "") -> None:
    output = class_constants(node["decoder"]["_target_"])["output"]
    served, task = tasks_of(output), node["task"]
    if task == "auto":
        node["task"], reasons["task"] = _auto_task(node, config, output, served)
    elif task not in served:
        raise ConfigError(
            "The task and the decoder do not go together.",
            given=f"task={task} with a decoder that predicts {output}s ({node['decoder']['_target_']})",
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


def _loss(node: dict[str, Any], reasons: dict[str, str], prefix: str = "") -> None:
    task = node["task"]
    if node["loss"].get("auto"):
        name = task_constants(task)["default_loss"]
        node["loss"] = load_option("loss", name)
        reasons["loss"] = f"the default loss of {task}"
        return
    served = loss_tasks(node["loss"])
    if task not in served:
        usual = task_constants(task)["default_loss"]
        fitting = [name for name in options_of("loss") if task in loss_tasks(load_option("loss", name))]
        fitting.sort(key=lambda name: name != usual)
        raise ConfigError(
            "The loss does not serve the task.",
            given=f"{_loss_name(node['loss'])} (for {listed(served)}) with task {task}",
            expected=f"a loss for {task}: {listed(fitting, 40)}",
            override=[f"{prefix}loss={fitting[0]}", f"{prefix}loss=auto"],
        )
    needs = {need for part in loss_parts(node["loss"]) for need in class_constants(part["_target_"])["needs"]}
    if "inputs" in needs and node.get("reduce_input"):
        raise ConfigError(
            "The loss searches around the encoder's embedding, and this output makes a vector of its own.",
            given=f"{_loss_name(node['loss'])} with reduce_input={node['reduce_input']}",
            override=[f"{prefix}reduce_input=null", f"{prefix}loss=auto"],
        )
    if "features" in needs and not class_constants(node["decoder"]["_target_"])["splits"]:
        raise ConfigError(
            "The loss looks at the input of the decoder's last layer, and this decoder does not tell it.",
            given=f"{_loss_name(node['loss'])} with {node['decoder']['_target_']}",
            override=[f"{prefix}decoder={task_constants(task)['default_decoder']}", f"{prefix}loss=auto"],
        )


def loss_parts(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The plain losses of a loss: itself, or those that a combined one adds up."""
    return list(node["losses"].values()) if "losses" in node else [node]


def loss_tasks(node: Mapping[str, Any]) -> list[str]:
    """The tasks that a loss serves: of a combined one, those that all of its losses serve."""
    served = [class_constants(part["_target_"])["tasks"] for part in loss_parts(node) if "_target_" in part]
    return [
        task
        for task in TASKS
        if served and all({task, task_constants(task)["trained_as"]} & set(tasks) for tasks in served)
    ]


def _loss_name(node: Mapping[str, Any]) -> str:
    """The option that a loss came from, else its class."""
    nodes = {load_option("loss", name).get("_target_"): name for name in reversed(options_of("loss"))}
    return " + ".join(nodes.get(part["_target_"], part["_target_"]) for part in loss_parts(node))


def _neck(node: dict[str, Any], prefix: str = "") -> None:
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


def _head(node: Mapping[str, Any], encoder: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse a decoder that lives on the encoder's pretrained weights where there are none, or no classifier."""
    constants = class_constants(node["decoder"]["_target_"])
    if not constants["ready"]:
        return
    if constants["consumes"] == "logits" and not keeps_head(encoder):
        having = [
            name for name, path in options_of("encoder").items() if keeps_head(cast(DictConfig, OmegaConf.load(path)))
        ]
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
            override=["data.inputs=null", f"decoder={task_constants('classification')['default_decoder']}"],
        )


def _views(config: Mapping[str, Any]) -> None:
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


def _lacking_rows(config: Mapping[str, Any], index: SampleIndex) -> list[Problem]:
    """Say what is not learned, because no row shows it."""
    found = []
    for name, node in outputs_of(config).items():
        labels = index.main_labels if name == main_output(config) else index.further_targets.get(name)
        if labels is None or labels.label is None:
            continue
        if node["task"] == "anomaly" and index.counts()["val"]:
            normal, anomalous = occurring(labels.label, index.split, "val")
            if not normal:
                found.append(
                    "no validation image is normal: no threshold is learned, and predictions are scores alone"
                )
            elif not anomalous:
                found.append("no validation image is anomalous: the threshold is a quantile of the normal scores")
        if node["task"] == "open_set":
            counts = any(class_constants(p["_target_"])["counts_unknown"] for p in loss_parts(node["loss"]))
            if counts and not labels.unknown(index.rows("train")):
                found.append(f"no training image is unknown, so {_loss_name(node['loss'])} learns nothing of them")
            if index.counts()["val"] and not labels.unknown(index.rows("val")):
                found.append("no validation image is unknown: the threshold is where 95 % of the known ones are kept")
    return [Problem("warning", message) for message in found]


def _labels(config: Mapping[str, Any], index: SampleIndex) -> None:
    """Refuse a loss that compares images by their labels where there are none."""
    needing = [
        part["_target_"]
        for node in outputs_of(config).values()
        for part in loss_parts(node["loss"])
        if node["task"] == "embedding" and class_constants(part["_target_"]).get("needs_target")
    ]
    if needing and index.target is None:
        raise ConfigError(
            "The loss compares images by their labels, and the data have none.",
            given=f"{needing[0]} with {index.origin}",
            expected="data with labels, or a loss that needs none",
            override=["loss=nt_xent_loss", "data.target=COLUMN"],
        )


def _weights(config: Mapping[str, Any]) -> None:
    """Refuse weights with which nothing is trained."""
    outputs = outputs_of(config)
    whole = []
    for name, node in outputs.items():
        prefix = f"outputs.{name}." if len(outputs) > 1 else ""
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


def _background(config: dict[str, Any], reasons: dict[str, str]) -> None:
    """Take the background class of a loss for what it means: rows that belong to none of the classes."""
    data = config["data"]
    for name, node in outputs_of(config).items():
        key = f"outputs.{name}.loss" if config.get("outputs") else "loss"
        given = node["loss"].get("background_class")
        if given is None:
            continue
        if config.get("outputs") or "unknown" not in data:
            raise ConfigError(
                "A background class is for a single output, and for data that can have unknown labels.",
                given=f"{key}.background_class={given}",
                expected="data=table, folder or huggingface, and no outputs",
                override=f"{key}.background_class=null",
            )
        names = _class_names(config)
        background = names[given] if isinstance(given, int) and 0 <= given < len(names) else str(given)
        if background not in names:
            near = nearest(str(given), names)
            raise ConfigError(
                f"{key}.background_class is no class of the data.",
                given=given,
                expected=f"a name out of {listed(names)}, or its position, 0 to {len(names) - 1}",
                nearest=near,
                override=f"{key}.background_class={near or 'null'}",
            )
        data["unknown"] = [*(data["unknown"] or []), background]
        node["loss"]["background_class"] = None
        reasons["data.unknown"] = f"{key}.background_class={given}"


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of the data, those that are unknown left out."""
    index = read_index(config, strict=False)
    return index.target.class_names if index.target is not None else ()


def _calibrate(config: Mapping[str, Any], index: SampleIndex) -> None:
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
    if rows * max(target.num_classes for target in targets) > MAX_STORED:
        raise ConfigError(
            "The validation split is too large to fit on: its probabilities are not kept.",
            given=f"calibrate={config['calibrate']}, {rows} validation rows",
            expected=f"at most {MAX_STORED} probabilities, rows times classes",
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
