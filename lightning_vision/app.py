"""The actions, the same from the command line and from Python: fit, test, predict, check, cache."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.config import ACTIONS, compose, instantiate, with_ludwig
from lightning_vision.errors import ConfigError, DataError, listed
from lightning_vision.monitor import better
from lightning_vision.outputs import main_output, outputs_of
from lightning_vision.overrides import names_ludwig, override_keys
from lightning_vision.reading import read_index, targets_of
from lightning_vision.resolve import Plan, look, plain, resolve
from lightning_vision.settings import (
    OWN,
    for_checkpoint,
    for_resume,
    found_before,
    same_data,
    to_predict,
    with_trained_classes,
)
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import TASKS
from lightning_vision.types import SPLITS

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.data.index import SampleIndex
    from lightning_vision.inference.prediction import Prediction
    from lightning_vision.module import VisionModule
    from lightning_vision.types import Split

# Of the 95 % interval of a figure.
ENDS = ("ci95_low", "ci95_high")
EXAMPLE_CHECKPOINT = "checkpoint=outputs/DATE/TIME/checkpoints/best.ckpt"


@dataclass
class Result:
    """What a fit or a test returns.

    Args:
        metrics: Final figures under flat keys such as ``test/mean_iou``.
        folder: The run folder.
        checkpoint: The best checkpoint.
        module: The model with the weights of that checkpoint.
    """

    metrics: dict[str, float]
    folder: Path
    checkpoint: Path
    module: VisionModule = field(repr=False)


def run(cfg: DictConfig) -> float | None:
    """Carry out ``cfg.action``; return the monitored figure of a fit, for sweeps."""
    if cfg.action == "fit":
        return fit(cfg).metrics.get("best")
    if cfg.action == "test":
        test(_checkpoint(cfg), cfg)
    elif cfg.action == "predict":
        _predict_to_folder(_checkpoint(cfg), _required(cfg, "source", "source=photos/"), cfg)
    elif cfg.action == "check":
        if not check(cfg):
            raise DataError("The data cannot be trained on as they are; the report above says why.")
    elif cfg.action == "cache":
        cache(cfg)
    else:
        actions = listed(ACTIONS)
        raise ConfigError("Unknown action.", given=f"action={cfg.action}", expected=actions, override="action=fit")
    return None


def build(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> tuple[VisionModule, VisionDataModule]:
    """Build model and data of a config, to look at them or to train them with a Trainer of one's own.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``; ``data`` also takes images
            (arrays, PIL images or paths), a pair of images and targets, a data frame, or a Hugging Face dataset.

    Returns:
        The LightningModule and the LightningDataModule.
    """
    return _build(resolve(_composed(config, choices)))


def fit(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> Result:
    """Train, test the best checkpoint, and leave figures and pictures in the run folder.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``; ``data`` also takes images
            (arrays, PIL images or paths), a pair of images and targets, a data frame, or a Hugging Face dataset.
            ``checkpoint=`` resumes: all settings that are not given are those of the checkpoint.

    Raises:
        ConfigError: A setting is wrong, or two do not go together.
        DataError: The data cannot be used.
        CheckpointError: The checkpoint to resume from is unreadable or of other classes.
    """
    cfg, keys = _composed_with_keys(config, choices, complete=True)
    resumed = cfg.checkpoint
    plan = resolve(cfg) if resumed is None else _resumed(resumed, cfg, keys)
    folder = Path(plan.config["output_dir"])

    from lightning_vision.assembly import build_trainer
    from lightning_vision.interruption import interruptible
    from lightning_vision.reports.run import report_figures, report_pictures
    from lightning_vision.reports.training import training_lines
    from lightning_vision.tuning.run import prepare, tune, wanted

    module, data = _build(plan)
    runfolder.start(folder, plan)
    garbage.release()
    tuned = []
    if wanted(plan.config):
        tuned = tune(plan, module, data)
        runfolder.start(folder, plan)
    trainer = build_trainer(plan.config)
    prepare(module, trainer)
    if trainer.is_global_zero:
        if resumed is not None:
            runfolder.carry_on(Path(resumed), folder)
        runfolder.announce(plan, module, data, tuned)
    try:
        with interruptible(trainer):
            trainer.fit(module, data, ckpt_path=None if resumed is None else runfolder.find_checkpoint(resumed))
    except (KeyboardInterrupt, SystemExit):
        if trainer.is_global_zero:
            runfolder.stopped(folder)
        raise
    finally:
        # Also after an interruption: what was trained so far is worth a look.
        if trainer.is_global_zero:
            report_pictures(folder, plan.config["monitor"], better(plan.config["monitor"]))
    best = trainer.checkpoint_callback
    path = Path(getattr(best, "best_model_path", "") or folder / "checkpoints" / "last.ckpt")
    metrics = {"epochs": float(trainer.current_epoch)}
    score = getattr(best, "best_model_score", None)
    if score is not None:
        metrics["best"] = float(score)
    if path.is_file():
        module.load_state_dict(_weights(module, path))
    split: Split = "test" if plan.index.counts()["test"] else "val"
    scored = plan.index.counts()[split] > 0
    if scored:
        metrics |= _evaluate(trainer, module, data, split)
    bad = data.bad
    if trainer.is_global_zero:
        print("\n".join([*training_lines(module), *tuned]))
        if scored:
            report_figures(folder, module, data, split, metrics)
        else:
            print(f"no rows to score; checkpoints and curves: {folder}")
        runfolder.left_out(bad)
        runfolder.finish(folder, metrics)
    return Result(metrics, folder, path, module)


def test(
    model: str | Path | VisionModule | None, config: DictConfig | Sequence[str] | None = None, **choices: Any
) -> Result:
    """Score a checkpoint; nothing is needed but the checkpoint and the data.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``. None: the pretrained model that the config
            names, with a decoder that needs no training (``decoder="pretrained"`` or ``"zero_shot"``).
        config: Overrides of data, batch_size, trainer; all else comes from the checkpoint.
        choices: The same by name. Without ``data`` the test split of the training data is scored; of other data the
            test split, or every row where the data are not split.

    Raises:
        CheckpointError: The checkpoint is unreadable, or the data have other classes, order or channels.
        DataError: The data cannot be used.
    """
    cfg, keys = _composed_with_keys(config, choices)
    if model is None:
        plan = _untrained(cfg)
        (module, _), settings, index, other_data = _build(plan), plan.config, plan.index, True
    else:
        module, saved = _module(model)
        settings, index, other_data = _data_to_score(module, saved, cfg, keys)
    from lightning_vision.assembly import build_data, build_trainer
    from lightning_vision.reports.run import report_figures

    garbage.release()
    split: Split = "test"
    counts = index.counts()
    if other_data and not (index.is_split and counts["test"] + counts["val"]):
        why = "no row is test or val" if index.is_split else "not split into train, val and test"
        print(f"{index.origin}: {why}, so all {len(index)} rows are scored")
        index = index.as_split("test")
    elif not counts["test"]:
        split = "val"
    if not index.counts()[split]:
        raise DataError(
            f"{index.origin}: no row is test or val, so there is nothing to score",
            given=", ".join(f"{count} {name}" for name, count in counts.items()),
            override="data.path=OTHER_DATA",
        )
    data = build_data(index, module.geometry, instantiate(settings["preprocessing"]), settings)
    folder = Path(settings["output_dir"])
    # Nothing is trained: no checkpoints, no early stopping.
    settings["callbacks"] = {k: v for k, v in settings["callbacks"].items() if v and "monitor" not in v and k != "last"}
    trainer = build_trainer(settings)
    if trainer.is_global_zero:
        runfolder.tell(index.problems)
    metrics = _evaluate(trainer, module, data, split)
    bad = data.bad
    if trainer.is_global_zero:
        report_figures(folder, module, data, split, metrics)
        runfolder.left_out(bad)
        runfolder.finish(folder, metrics)
    return Result(metrics, folder, Path(model) if isinstance(model, str | Path) else folder, module)


def predict(
    model: str | Path | VisionModule | None,
    source: Any,
    config: DictConfig | Sequence[str] | None = None,
    **choices: Any,
) -> list[Prediction]:
    """Predict images.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``. None: the pretrained model that the config
            names, with a decoder that needs no training (``decoder="pretrained"`` or ``"zero_shot"``).
        source: A file, folder, glob or table; or a list of paths, arrays (uint8 ``(H, W)``, ``(H, W, C)`` or
            ``(C, H, W)``) or PIL images; or one array or PIL image; or one array of many images, ``(N, ...)``.
        config: Overrides of batch_size and trainer; all else comes from the checkpoint.
        choices: The same by name.

    Returns:
        One Prediction an image, in the order of the source: class probabilities, or a mask at the image's own size.

    Raises:
        DataError: Nothing was found, or an image is unreadable. With ``overrides={"preprocessing.on_bad_image":
            "skip"}`` it is left out instead, so that there are fewer predictions than images; compare their paths.
    """
    cfg, keys = _composed_with_keys(config, choices)
    predictions: list[Prediction] = []
    with ExitStack() as stack:
        if not isinstance(source, str | Path):
            from lightning_vision.data.sources.memory import spool

            many = isinstance(source, list | tuple) or getattr(source, "ndim", 0) == 4
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lightning_vision-"))
            source = spool(list(source) if many else [source], Path(folder))
        else:
            source = str(source)
        module, settings = _to_predict(model, source, cfg, keys)
        from lightning_vision.inference.run import predict_images

        runfolder.left_out(predict_images(module, source, settings, predictions.append))
    return predictions


def load(checkpoint: str | Path) -> VisionModule:
    """Load a trained model from its checkpoint alone, without a network, in eval mode.

    ``module(images)`` takes uint8 ``(B, C, H, W)`` of any size and returns logits; the normalisation is inside.

    Raises:
        CheckpointError: The file is missing, damaged, or of something else.
    """
    file = runfolder.find_checkpoint(checkpoint)
    from lightning_vision import checkpoint as checkpoints
    from lightning_vision.assembly import rebuild_module

    return rebuild_module(checkpoints.read(file))


def check(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> bool:
    """Look at all data before training: decode every image, read every target, find copies, print one page.

    ``quick`` reads the headers of images alone. ``report`` names a file that gets everything as JSON; with ``-`` the
    JSON is printed, and the page is not. ``plots="augmentation"`` draws training images as the augmentation changes
    them, into the run folder.

    Returns:
        Whether a fit can start.

    Raises:
        ConfigError: A setting with which nothing can be read at all.
        DataError: The table or folder cannot be read at all, or the report cannot be written.
    """
    from lightning_vision.data.report import check_index
    from lightning_vision.data.report_page import render

    cfg = _composed(config, choices)
    index, settings = look(cfg)
    task = settings["task"] if settings["task"] in TASKS else None
    report = check_index(index, instantiate(settings["preprocessing"]), settings["image_size"], cfg.quick, task)
    print(report.to_json() if cfg.report == "-" else render(report))
    if cfg.report not in (None, "-"):
        report.write(Path(cfg.report).expanduser())
    if cfg.plots == "augmentation" and report.ok:
        print(f"augmentation: {_draw_augmentation(cfg)}")
    return report.ok


def _draw_augmentation(cfg: DictConfig) -> Path:
    plan = resolve(cfg)
    if not any((plan.config.get("augmentation") or {}).values()):
        raise ConfigError(
            "Nothing is augmented, so there is nothing to draw.",
            given="plots=augmentation with augmentation=none",
            override="augmentation=light",
        )
    from lightning_vision.assembly import build_data
    from lightning_vision.augmenting import build_augmentation
    from lightning_vision.reports.augmentation import draw_augmentation

    transforms, uncovered = build_augmentation(plan.config, plan.outputs, plan.geometry)
    data = build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)
    target = plan.outputs[main_output(plan.config)].target
    out = Path(plan.config["output_dir"]) / "plots" / "augmentation.png"
    draw_augmentation(data, transforms, target, uncovered, out)
    return out


def cache(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> None:
    """Look after the decoded pixels on the disk, as the setting ``cache`` says.

    ``build`` decodes every image of the data into the stores that a fit with ``preprocessing.mode=lazy_cached`` and the
    same settings reads; what is there already is not decoded again. ``list`` prints what is there, with sizes;
    ``clear`` removes what no process has open.

    Raises:
        ConfigError: A setting is wrong.
        DataError: The data cannot be used, or there is no room on the disk.
    """
    from lightning_vision.data.cache import clear, entries, render

    cfg = _composed(config, choices)
    folder = cfg.preprocessing.lazy_cache_dir
    if cfg.cache == "list":
        print(render(entries(folder), folder))
    elif cfg.cache == "clear":
        print(clear(folder))
    else:
        _build_cache(cfg)


def _build_cache(cfg: DictConfig) -> None:
    from lightning_vision.assembly import build_data
    from lightning_vision.data.cache import entries, render

    cfg = cfg.copy()
    cfg.preprocessing.mode = "lazy_cached"
    plan = resolve(cfg)
    runfolder.tell(plan.index.problems)
    data = build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)
    try:
        bad = [image for split in SPLITS if plan.index.counts()[split] for image in data.prepare(split)]
        folders = data.store_folders
    finally:
        data.teardown()
    folder = plan.preprocessing.lazy_cache_dir
    print(render([entry for entry in entries(folder) if entry.folder in folders], folder))
    runfolder.left_out(bad)
    print("read by a fit with the same settings and preprocessing.mode=lazy_cached")


def _data_to_score(
    module: VisionModule, saved: Mapping[str, Any], cfg: DictConfig, keys: Sequence[str]
) -> tuple[dict[str, Any], SampleIndex, bool]:
    """Settings and rows beside a checkpoint, and whether they are other data than it was trained on."""
    from lightning_vision.checkpoint import require_channels, require_same_target
    from lightning_vision.data.normal_class import as_trained

    settings = for_checkpoint(saved, plain(cfg), keys)
    outputs, main = outputs_of(settings), main_output(settings)
    other_data = not same_data(settings["data"], saved["data"])
    # Every class but the normal one is anomalous, so other data may have classes of their own.
    own = [name for name, node in outputs.items() if node["task"] != "anomaly"]
    if other_data:
        named = settings["data"].get("class_names")
        settings["data"] = with_trained_classes(settings["data"], module.head(main).task.target, keys)
        if main not in own and "class_names" in settings["data"]:
            settings["data"]["class_names"] = named
        for name in own if settings.get("outputs") else ():
            outputs[name]["class_names"] = list(module.head(name).task.target.class_names)
        if "val_fraction" in settings["data"]:
            settings["data"]["val_fraction"] = 0.0  # nothing is trained, so no rows are held back from it
    else:
        # What is not typed again stays as it was in training: other fractions would draw another split.
        typed = {key.partition(".")[2] for key in keys if key.startswith("data.")}
        settings["data"] = {k: v for k, v in settings["data"].items() if k in typed} | {
            k: v for k, v in saved["data"].items() if k not in typed
        }
    index = read_index(settings)
    for name in [name for name in outputs if name not in own]:
        index = as_trained(index, module.head(name).task.target, None if name == main else name)
    for name, found in targets_of(index, settings).items():
        require_same_target(module.head(name).task.target, found, index.origin)
    if other_data and "preprocessing.num_channels" not in keys:
        require_channels(module.geometry, index, settings["preprocessing"]["infer_image_sample_size"])
    return settings, index, other_data


def _to_predict(
    model: str | Path | VisionModule | None, source: str | list[str], cfg: DictConfig, keys: Sequence[str]
) -> tuple[VisionModule, dict[str, Any]]:
    """The model and its settings; an untrained one has those of the config."""
    if model is None:
        plan = _untrained(cfg, source)
        return _build(plan)[0], to_predict(plan.config, keys)
    module, saved = _module(model)
    return module, to_predict(for_checkpoint(saved, plain(cfg), [*keys, "source"]), keys)


def _predict_to_folder(model: str | None, source: str, cfg: DictConfig) -> None:
    module, settings = _to_predict(model, source, cfg, _composed_with_keys(cfg, {})[1])
    from lightning_vision.inference.run import predict_to_folder

    garbage.release()
    predict_to_folder(module, source, settings)


def _evaluate(trainer: Any, module: VisionModule, data: VisionDataModule, split: Split) -> dict[str, float]:
    """Score a split; return flat figures, those of the classes too."""
    from lightning_vision.interruption import interruptible

    with interruptible(trainer):
        if split == "test":
            rows = trainer.test(module, data, verbose=False)
        else:
            trainer.loggers = []  # these figures are of no epoch: they would become one more row of metrics.csv
            rows = trainer.validate(module, data, verbose=False)
    figures = {key: float(value) for key, value in rows[0].items()}
    for name, head in module.named_heads():
        prefix = f"{split}/{module.prefix(name)}"
        for figure, values in head.task.per_class(head.results[split]).items():
            figures |= {f"{prefix}{figure}/{class_name}": value for class_name, value in values.items()}
        if split == "test":
            for figure, ends in head.task.intervals(head.results[split]).items():
                if all(map(math.isfinite, ends)):
                    figures |= {f"{prefix}{figure}/{end}": value for end, value in zip(ENDS, ends, strict=True)}
    return figures


def _build(plan: Plan) -> tuple[VisionModule, VisionDataModule]:
    from lightning.pytorch import seed_everything

    from lightning_vision.assembly import build_data, build_module

    seed_everything(plan.config["seed"], workers=True, verbose=False)
    return build_module(plan), build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)


def _resumed(path: str, cfg: DictConfig, keys: Sequence[str]) -> Plan:
    """The plan of a run that goes on."""
    path = str(runfolder.find_checkpoint(path))
    from lightning_vision import checkpoint as checkpoints

    state = checkpoints.read(path)
    kept = state[checkpoints.KEY]
    given = plain(cfg)
    plan = resolve(for_resume(kept["config"], given, keys))
    for key in found_before(given, keys):
        plan.reasons[key] = "nothing is looked for when a run goes on: what it began with stays"
        print(f"{key}: {plan.reasons[key]}")
    for name, target in checkpoints.targets_of(state).items():
        checkpoints.require_same_target(target, plan.outputs[name].target, plan.index.origin)
    trained = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    epochs = plan.config["trainer"]["max_epochs"]
    if epochs is not None and 0 <= epochs < trained:
        raise ConfigError(
            "The checkpoint is trained for more epochs than are wanted.",
            given=f"epochs={epochs}, and {trained} epochs in {path}",
            expected=f"more than {trained}",
            override=f"epochs={trained + 10}",
        )
    if epochs == trained:
        print(f"all {trained} epochs are trained; epochs={trained + 10} would go on")
    plan.encoder_rebuild = kept["encoder_rebuild"]
    plan.reasons["checkpoint"] = f"the settings are those of {path}, but for those that were given anew"
    return plan


def _module(model: str | Path | VisionModule) -> tuple[VisionModule, dict[str, Any]]:
    module = load(model) if isinstance(model, str | Path) else model
    return module, module.config


def _weights(module: VisionModule, path: Path) -> dict[str, Any]:
    from lightning_vision import checkpoint as checkpoints

    state = checkpoints.read(path)
    checkpoints.restore_encoder_weights(module, state)
    return cast(dict[str, Any], state["state_dict"])


def _composed(config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any]) -> DictConfig:
    return _composed_with_keys(config, choices)[0]


def _composed_with_keys(
    config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any], complete: bool = False
) -> tuple[DictConfig, list[str]]:
    """Compose unless that was done already; name the keys that were given.

    Of a config that was composed in Python these are all that it may decide beside a checkpoint, or, ``complete``, all.
    """
    if isinstance(config, DictConfig):
        from hydra.core.hydra_config import HydraConfig

        if HydraConfig.initialized():
            return config, override_keys(HydraConfig.get().overrides.task)
        return config, [str(key) for key in config if complete or key in OWN]
    words, named = [config] if isinstance(config, str) else list(config or ()), dict(choices)
    extra = dict(named.pop("overrides", {}))
    data = named.get("data")
    if data is not None and not isinstance(data, str):
        from lightning_vision.data.sources.in_python import is_dataset, settings_of

        if is_dataset(data) or not isinstance(data, Mapping):
            named["data"] = "table"
            extra = settings_of(data, extra.get("preprocessing.lazy_cache_dir")) | extra
    blamed: AbstractContextManager[None] = nullcontext()
    if "ludwig" in named or names_ludwig(words):
        # Columns of a table that is written here are not those of the file's data.
        unread = ("data.image", "data.inputs", "data.target") if isinstance(data, tuple | list) else ()
        words, blamed = with_ludwig(words, named | extra, unread)
        named.pop("ludwig", None)
    keys = override_keys(words) + list(named) + list(extra)
    with blamed:
        return compose(words, **named, **extra), keys


def _checkpoint(cfg: DictConfig) -> str | None:
    """The checkpoint, or None where the decoder needs no training."""
    if cfg.checkpoint is None:
        _require_ready(cfg)
        return None
    return str(cfg.checkpoint)


def _require_ready(cfg: DictConfig) -> None:
    """Refuse an untrained model whose predictions would mean nothing."""
    decoder = str(cfg.decoder.get("_target_"))
    if not class_constants(decoder).get("ready"):
        raise ConfigError(
            "This decoder must be trained before it predicts.",
            given=f"no checkpoint, and {decoder}",
            expected="a checkpoint, or a pretrained encoder with a decoder that needs none: pretrained, zero_shot",
            override=[EXAMPLE_CHECKPOINT, "decoder=pretrained encoder=resnet"],
        )


def _untrained(cfg: DictConfig, source: str | list[str] | None = None) -> Plan:
    """The plan of a model that predicts without training."""
    _require_ready(cfg)
    plan = resolve(cfg, source)
    why = plan.reasons.get("image_size")
    print(f"{plan.geometry.height} x {plan.geometry.width} pixels" + (f": {why} (image_size=N)" if why else ""))
    return plan


def _required(cfg: DictConfig, key: str, example: str) -> str:
    if cfg[key] is None:
        raise ConfigError(f"{cfg.action} needs {key}=.", expected=f"{key}=PATH", override=f"{cfg.action} {example}")
    return str(cfg[key])
