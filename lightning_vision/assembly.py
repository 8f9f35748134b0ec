"""Build the parts of a run from a resolved config: encoder first, because neck and decoder need its feature info."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer

from lightning_vision import checkpoint as checkpoints
from lightning_vision.allocator import keep_freed_memory
from lightning_vision.augmenting import build_augmentation
from lightning_vision.config import instantiate, refused
from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.embeddings import EmbeddingCache, worth_caching
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.decoders.base import Decoder, cells
from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.inputs import InputsEncoder
from lightning_vision.errors import CheckpointError, ConfigError, listed, nearest
from lightning_vision.head import Head, HeadOutput
from lightning_vision.inlet import Inlet, reduce_cells
from lightning_vision.losses.base import Loss
from lightning_vision.module import VisionModule
from lightning_vision.monitor import better
from lightning_vision.options import load_option
from lightning_vision.outputs import OutputPlan, columns_of, in_order, monitors_of, outputs_of, setting_prefix
from lightning_vision.pairing import calibrated
from lightning_vision.resolve import Plan
from lightning_vision.signatures import class_constants, describe
from lightning_vision.tasks import task_class
from lightning_vision.types import IMAGENET_STATS, FeatureInfo, Geometry, PixelStats, TargetSpec

# Settings of an encoder that its features do not depend on, given the weights.
WHERE_WEIGHTS_COME_FROM = ("weights", "use_pretrained", "model_cache_dir", "saved_weights_in_checkpoint")
# Packages whose code computes features.
VERSIONS = ("lightning_vision", "torch", "torchvision", "timm", "transformers")
# Pixels a side of the image that finds out which parameters are used.
PROBE_SIZE = 32


def build_module(plan: Plan) -> VisionModule:
    """Build the model of a plan, with its losses and optimizer."""
    config = plan.config
    encoder = _build_encoder(config, plan.encoder_rebuild)
    stats = _pixel_stats(encoder, plan.preprocessing.standardize_image, plan.geometry)
    for name, output in plan.outputs.items():
        _decide_neck(output, plan.reasons, encoder, setting_prefix(config, name))
        if not output.target.class_names and class_constants(output.node["decoder"]["_target_"])["ready"]:
            output.target = replace(output.target, class_names=_all_classes(encoder, output.node))
    module = _assemble(encoder, config, plan.outputs, plan.geometry, stats)
    if not plan.encoder_rebuild:
        for _, head in module.named_heads():
            head.decoder.start(encoder, head.task.target.class_names)
    for monitor in monitors_of(config):
        _check_monitor(monitor, module)
    _decide_embeddings(plan, module)
    return module


def rebuild_module(checkpoint: Mapping[str, Any]) -> VisionModule:
    """Build the model of a checkpoint and load its weights; needs no network and no file beside the checkpoint.

    Raises:
        CheckpointError: The weights do not fit, or were left out of the checkpoint and are not at hand.
    """
    kept = checkpoint[checkpoints.KEY]
    config = kept["config"]
    encoder = _build_encoder(config, kept["encoder_rebuild"])
    nodes = outputs_of(config)
    columns = columns_of(config)
    outputs = {
        name: OutputPlan(nodes[name], kept["outputs"][name]["task"], target, columns[name])
        for name, target in checkpoints.targets_of(checkpoint).items()
    }
    module = _assemble(
        encoder,
        config,
        outputs,
        checkpoints.geometry_of(checkpoint),
        checkpoints.pixel_stats_of(checkpoint),
    )
    state = dict(checkpoint)
    checkpoints.restore_encoder_weights(module, state)
    try:
        module.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        lines = str(error).split("\n")
        raise CheckpointError(
            "The weights of the checkpoint do not fit the model that its config builds.",
            given=" ".join(line.strip() for line in lines[1:3])[:300],
            expected="a checkpoint of this version of lightning_vision and of the libraries its encoder comes from",
        ) from error
    return module.eval()


def _build_encoder(config: Mapping[str, Any], rebuild: Mapping[str, Any]) -> Encoder:
    consumed = {class_constants(node["decoder"]["_target_"])["consumes"] for node in outputs_of(config).values()}
    whole = "logits" in consumed
    injected = {"keep_head": True} if whole else {}
    inputs = config["data"].get("inputs") or [None]
    tied = config.get("tied") is not None
    encoders = [
        cast(Encoder, instantiate({**config["encoder"], **rebuild}, Encoder, **injected))
        for _ in (inputs[:1] if tied else inputs)
    ]
    return encoders[0] if len(inputs) == 1 else InputsEncoder(encoders * len(inputs) if tied else encoders)


def _all_classes(encoder: Encoder, config: Mapping[str, Any]) -> tuple[str, ...]:
    if not encoder.head_classes:
        raise ConfigError(
            "Without data, the classes must be named.",
            given="decoder.class_names=null",
            expected="the names to choose from, or a file with one a line",
            override="decoder.class_names=[cat,dog]",
        )
    return encoder.head_classes


def _assemble(
    encoder: Encoder,
    config: Mapping[str, Any],
    outputs: Mapping[str, OutputPlan],
    geometry: Geometry,
    stats: PixelStats,
) -> VisionModule:
    augmentation, uncovered = build_augmentation(config, outputs, geometry)
    heads = _build_heads(outputs, encoder, geometry, calibrated(config), uncovered)
    optimizer = config["optimizer"]
    module = VisionModule(
        encoder,
        heads,
        geometry,
        stats,
        augmentation=augmentation,
        configure=partial(_configure, config),
        lr=optimizer["lr"],
        weight_decay=optimizer.get("weight_decay", 0.0),
        encoder_lr_factor=config["encoder_lr_factor"],
        encoder_layer_decay=config.get("encoder_layer_decay"),
        encoder_freeze_epochs=config.get("encoder_freeze_epochs", 0),
        average_horizontal_flips=config.get("average_horizontal_flips", False),
        config=config,
        seed=config["seed"],
    )
    freeze_unused(module)
    return module


def _configure(
    config: Mapping[str, Any], groups: list[dict[str, Any]], total_steps: int, steps_per_epoch: int
) -> tuple[Optimizer, Any]:
    """Build optimizer and schedule; a function of the module, because processes that are spawned get it sent."""
    optimizer = config["optimizer"]
    part = cast(Any, instantiate(optimizer, Optimizer))
    try:
        built = part(groups)
    except (TypeError, ValueError) as error:
        raise refused("optimizer", optimizer["_target_"], error) from error
    known = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch, "mode": better(config["monitor"])}
    signature = describe(config["scheduler"]["_target_"])
    asked = () if signature is None else signature.injected or signature.parameters  # torch's own declare nothing
    wanted = {k: v for k, v in known.items() if k in asked and k not in config["scheduler"]}
    return built, instantiate(config["scheduler"], optimizer=built, **wanted)


def _build_heads(
    outputs: Mapping[str, OutputPlan],
    encoder: Encoder,
    geometry: Geometry,
    calibrate: tuple[str, ...],
    uncovered: int | None = None,
) -> dict[str, Head]:
    built: dict[str, Head] = {}
    # Width of what each output shows to those that depend on it; only a run of it tells.
    seen: dict[str, HeadOutput] = {}
    depends = {name: output.node.get("dependencies") or [] for name, output in outputs.items()}
    needed = {other for others in depends.values() for other in others}
    size = (geometry.height, geometry.width)
    for name in in_order(depends):
        output = outputs[name]
        reduce_dependencies = output.node.get("reduce_dependencies", "sum")
        widths = {n: int(reduce_cells(seen[n].seen, reduce_dependencies).shape[1]) for n in depends[name]}
        built[name] = head = _build_head(output, encoder, geometry, widths, calibrate, uncovered)
        if name in needed:
            info = encoder.info
            maps = [torch.zeros(1, c, *cells(size, s)) for c, s in zip(info.channels, info.strides, strict=True)]
            features = maps if head.consumes == "pyramid" else torch.zeros(1, info.embed_dim)
            with torch.no_grad():
                seen[name] = head.eval()(features, size, seen)
            head.train()
    return {name: built[name] for name in outputs}


def _build_head(
    output: OutputPlan,
    encoder: Encoder,
    geometry: Geometry,
    widths: Mapping[str, int],
    calibrate: tuple[str, ...],
    uncovered: int | None,
) -> Head:
    node, target = output.node, output.target
    info, inlet, consumes = encoder.info, None, class_constants(node["decoder"]["_target_"])["consumes"]
    if widths or (node.get("reduce_input") and consumes == "embedding"):
        deepest = cells((geometry.height, geometry.width), info.strides[-1])
        inlet = Inlet(info, consumes, node["reduce_input"], widths, node["reduce_dependencies"], deepest)
        info = inlet.info
    neck = cast(Any, instantiate(node["neck"], nn.Module, info=info)) if node["neck"] else None
    info = info if neck is None else neck.info
    decoder = cast(Decoder, instantiate(node["decoder"], Decoder, info=info, num_classes=target.num_classes))
    # Only the loss sees moved masks: there are no figures of segmentation on training batches.
    moved = uncovered is not None and target.kind == "mask"
    loss = _build_loss(node["loss"], replace(target, ignore_index=uncovered) if moved else target)
    task = task_class(output.task)(target)
    return Head(decoder, task, loss, neck, node.get("weight", 1.0), output.column, inlet, calibrate)


def _build_loss(node: Mapping[str, Any], target: TargetSpec) -> Loss:
    """Build a loss, those inside a combined one first."""
    own = dict(node)
    parts = {name: _build_loss(part, target) for name, part in own.pop("losses", {}).items()}
    more = {"losses": parts} if parts else {}
    loss = instantiate(
        own,
        Loss,
        num_classes=target.num_classes,
        class_names=target.class_names,
        ignore_index=target.ignore_index,
        **more,
    )
    return cast(Loss, loss)


def freeze_unused(module: VisionModule) -> None:
    """Switch off the gradients of parameters that no output depends on.

    An encoder's parts beside a pyramid (a mask token, a fully connected stack behind the embedding) would be counted as
    trained and, with several processes, stop the run: DDP waits for their gradients.
    """
    channels, (height, width) = module.geometry.shape[0], module.encoder.min_size
    image = torch.zeros(1, channels, max(height, PROBE_SIZE), max(width, PROBE_SIZE), dtype=torch.uint8)
    training = module.training
    with torch.enable_grad():
        found = module.eval().outputs(image)
    module.train(training)
    used = set()
    nodes = [output.logits.grad_fn for output in found.values()]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        used.add(id(getattr(node, "variable", None)))
        for following, _ in node.next_functions if node is not None else ():
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    parts = [module.encoder, *(part for _, head in module.named_heads() for part in (head.neck, head.decoder))]
    for part in parts:
        for parameter in part.parameters() if part is not None else ():
            if id(parameter) not in used:
                parameter.requires_grad_(False)


def build_data(
    index: SampleIndex, geometry: Geometry, preprocessing: Preprocessing, config: Mapping[str, Any]
) -> VisionDataModule:
    """Build the data of a run."""
    return VisionDataModule(
        index,
        geometry,
        preprocessing,
        config["batch_size"],
        config["seed"],
        repeats=config.get("repeats", 1),
        num_items_per_epoch=config.get("num_items_per_epoch"),
    )


def build_trainer(config: Mapping[str, Any], **extra: Any) -> Trainer:
    """Build Lightning's Trainer with the callbacks and loggers of the config."""
    quiet_lightning()
    if not torch.cuda.is_available():  # a step's tensors lie in the memory of a device
        keep_freed_memory()
    callbacks = [instantiate(node) for node in (config.get("callbacks") or {}).values() if node]
    loggers = [instantiate(node) for node in (config.get("logger") or {}).values() if node]
    arguments = {"callbacks": callbacks, "logger": loggers or False, "enable_model_summary": False, **extra}
    # A step's figures are added up in tensors and logged once an epoch.
    arguments = {"default_root_dir": config["output_dir"], "log_every_n_steps": 1_000_000, **arguments}
    given = {k: v for k, v in arguments.items() if k not in config["trainer"]}
    return cast(Trainer, instantiate(config["trainer"], **given))


def quiet_lightning() -> None:
    """Keep Lightning's banners out of the output; its warnings stay, but for those that do not concern this design."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The loader shards by rank itself and sees each row once.
    warnings.filterwarnings("ignore", message=".*DistributedSampler.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # torch renamed a type that Lightning 2.6 still asks for.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # Without validation rows there is an empty list of loaders.
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    # A frozen encoder stays in eval mode on purpose.
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    # A resumed run may leave out callbacks, such as an average: it was typed so.
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`")
    # last.ckpt of a resumed run; the best ones are taken along (callbacks/checkpoints.py).
    warnings.filterwarnings("ignore", message="The dirpath has changed from.*")
    # A run folder is new, or belongs to the run that is resumed.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")


def _decide_neck(output: OutputPlan, reasons: dict[str, str], encoder: Encoder, prefix: str) -> None:
    """Put the neck into the config, as a part of its own or null, where it is ``auto``."""
    node = output.node
    if not (node["neck"] or {}).get("auto"):
        return
    constants = class_constants(node["decoder"]["_target_"])
    name = neck_of(constants, encoder.info)
    node["neck"] = None if name is None else load_option("neck", name)
    if constants["consumes"] != "pyramid":
        reasons[f"{prefix}neck"] = "the decoder takes no maps"
    elif not encoder.info.one_scale:
        reasons[f"{prefix}neck"] = "the encoder's maps have several strides"
    else:
        taken = "as they are" if name is None else f"through the neck {name}"
        stride = encoder.info.strides[0]
        reasons[f"{prefix}neck"] = f"the encoder's maps all have stride {stride}; the decoder takes them {taken}"


def _decide_embeddings(plan: Plan, module: VisionModule) -> None:
    """Give the module a cache for its encoder's features, where they are to be cached; null is decided here."""
    settings, info, geometry = plan.preprocessing, module.encoder.info, plan.geometry
    wanted = plan.config["preprocessing"].get("cache_encoder_embeddings")
    if wanted is False:
        return
    if len(module.consumed) > 1:
        _refuse_embeddings(plan, wanted)
        return
    (consumes,) = module.consumed
    shapes: list[tuple[int, ...]] = [
        (info.embed_dim,) if consumes == "embedding" else (len(module.encoder.head_classes),)
    ]
    if consumes == "pyramid":
        size = (geometry.height, geometry.width)
        shapes = [(c, *cells(size, s)) for c, s in zip(info.channels, info.strides, strict=True)]

    def identity() -> dict[str, Any]:
        return {
            "encoder": {k: v for k, v in plan.config["encoder"].items() if k not in WHERE_WEIGHTS_COME_FROM},
            "consumes": consumes,
            "weights": module.encoder.weights_digest(),
            "pixel_stats": [list(module.pixel_stats.mean), list(module.pixel_stats.std)],
            "precision": str(module.trainer.precision),
            "versions": {name: version(name) for name in VERSIONS},
            # Of code that has no version here, what it computes counts.
            "features": None if _ours(module.encoder) else _features_digest(module),
            # Only where it is so: features of earlier runs stay valid.
            **({"average_horizontal_flips": True} if module.average_horizontal_flips else {}),
        }

    cache = EmbeddingCache(
        module.encode_to_store, shapes, identity, settings.embedding_cache_limit if wanted is None else None
    )
    if wanted is None:
        mask_shape = None if plan.index.mask is None else (geometry.height, geometry.width)
        rows = plan.index.counts()["train"] + plan.index.counts()["val"]
        wanted, why = worth_caching(rows * cache.bytes_of_row(mask_shape), settings)
        plan.config["preprocessing"]["cache_encoder_embeddings"] = wanted
        plan.reasons["preprocessing.cache_encoder_embeddings"] = why
    if wanted:
        module.embeddings = cache


def _refuse_embeddings(plan: Plan, wanted: bool | None) -> None:
    """No features are cached where outputs take different ones."""
    why = "the outputs take different features of the encoder"
    if wanted:
        raise ConfigError(
            f"Embeddings cannot be cached: {why}.",
            given="preprocessing.cache_encoder_embeddings=true",
            override="preprocessing.cache_encoder_embeddings=null",
        )
    plan.config["preprocessing"]["cache_encoder_embeddings"] = False
    plan.reasons["preprocessing.cache_encoder_embeddings"] = why


def _ours(encoder: Encoder) -> bool:
    """Whether all code of an encoder comes from packages whose versions are looked at."""
    return all(type(part).__module__.partition(".")[0] in VERSIONS for part in encoder.modules())


def _features_digest(module: VisionModule) -> str:
    """Digest of the features of an image of noise."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, *module.geometry.shape), generator=generator, dtype=torch.uint8)
    digest = hashlib.blake2b(digest_size=16)
    for feature in module.encode_to_store(image):
        digest.update(feature.contiguous().numpy().tobytes())
    return digest.hexdigest()


def neck_of(decoder: Mapping[str, Any], info: FeatureInfo) -> str | None:
    """Name of the neck that a decoder with these class constants needs behind an encoder, if any."""
    needs = decoder["consumes"] == "pyramid" and info.one_scale
    return cast(str | None, decoder["one_scale_neck"]) if needs else None


def _check_monitor(monitor: str, module: VisionModule) -> None:
    """Refuse a figure that no epoch will report, now instead of after the first one."""
    known = [*module.figure_names("val"), *module.figure_names("train")]
    of_classes = module.class_figures()
    if monitor not in known and monitor not in of_classes:
        near = nearest(monitor, known) or nearest(monitor, of_classes) or known[1]
        raise ConfigError(
            "There is no such figure to monitor.",
            given=f"monitor={monitor}",
            expected=f"{listed(known, 40)}; of a class: val/FIGURE/CLASS",
            nearest=near,
            override=[f"monitor={near}", "monitor=auto"],
        )


def _pixel_stats(encoder: Encoder, standardize: str | None, geometry: Geometry) -> PixelStats:
    if standardize == "encoder":
        return encoder.pixel_stats
    if standardize is None:
        channels = geometry.shape[0]
        return PixelStats((0.0,) * channels, (1.0,) * channels)  # pixels stay in [0, 1], alpha too
    return IMAGENET_STATS.for_channels(geometry.num_channels).repeated(geometry.num_inputs)
