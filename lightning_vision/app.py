"""The actions, the same from the command line and from Python: fit, test, predict, check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.config import compose, instantiate
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.resolve import Plan, plain, read_index, resolve
from lightning_vision.settings import for_checkpoint, override_keys, with_trained_classes

if TYPE_CHECKING:
    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.inference.predictor import Prediction
    from lightning_vision.module import VisionModule

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
        test(_required(cfg, "checkpoint", EXAMPLE_CHECKPOINT), cfg)
    elif cfg.action == "predict":
        checkpoint = _required(cfg, "checkpoint", EXAMPLE_CHECKPOINT)
        _predict_to_folder(checkpoint, _required(cfg, "source", "source=photos/"), cfg)
    elif cfg.action == "check":
        if not check(cfg):
            raise DataError("The data cannot be trained on as they are; the report above says why.")
    else:
        actions = "fit, test, predict, check"
        raise ConfigError("Unknown action.", given=f"action={cfg.action}", expected=actions, override="action=fit")
    return None


def build(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> tuple[VisionModule, VisionDataModule]:
    """Build model and data of a config, to look at them or to train them with a Trainer of one's own.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``; ``data`` also takes a pair of
            images and targets (arrays, PIL images or paths).

    Returns:
        The LightningModule and the LightningDataModule.
    """
    return _build(resolve(_composed(config, choices)))


def fit(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> Result:
    """Train, test the best checkpoint, and leave figures and pictures in the run folder.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``; ``data`` also takes a pair of
            images and targets (arrays, PIL images or paths). ``checkpoint=`` resumes.

    Raises:
        ConfigError: A setting is wrong, or two do not go together.
        DataError: The data cannot be used.
        CheckpointError: The checkpoint to resume from is unreadable or of other classes.
    """
    plan = resolve(_composed(config, choices))
    folder = Path(plan.config["output_dir"])
    runfolder.start(folder, plan)

    from lightning_vision import checkpoint as checkpoints
    from lightning_vision.assembly import build_trainer
    from lightning_vision.reports.run import report_figures, report_pictures

    module, data = _build(plan)
    garbage.release()
    resumed = plan.config["checkpoint"]
    if resumed is not None:
        checkpoints.require_same_target(
            checkpoints.target_of(checkpoints.read(resumed)), plan.target, plan.index.origin
        )
    trainer = build_trainer(plan.config)
    runfolder.announce(plan, module, data)
    try:
        trainer.fit(module, data, ckpt_path=resumed)
    finally:
        # Also after an interruption: what was trained so far is worth a look.
        if trainer.is_global_zero:
            report_pictures(folder, plan.config["monitor"])
    best = trainer.checkpoint_callback
    path = Path(getattr(best, "best_model_path", "") or folder / "checkpoints" / "last.ckpt")
    metrics = {"epochs": float(trainer.current_epoch)}
    score = getattr(best, "best_model_score", None)
    if score is not None:
        metrics["best"] = float(score)
    if path.is_file():
        module.load_state_dict(_weights(module, path))
    split = "test" if plan.index.counts()["test"] else "val"
    if plan.index.counts()[split]:
        metrics |= _evaluate(trainer, module, data, split)
        if trainer.is_global_zero:
            report_figures(folder, module, data, split, metrics)
    if trainer.is_global_zero:
        runfolder.finish(folder, metrics)
    return Result(metrics, folder, path, module)


def test(model: str | Path | VisionModule, config: DictConfig | Sequence[str] | None = None, **choices: Any) -> Result:
    """Score a checkpoint; nothing is needed but the checkpoint and the data.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``.
        config: Overrides of data, batch_size, trainer; all else comes from the checkpoint.
        choices: The same by name. Without ``data`` the test split of the training data is scored; of other data the
            test split, or every row where the data are not split.

    Raises:
        CheckpointError: The checkpoint is unreadable, or the data have other classes, order or channels.
        DataError: The data cannot be used.
    """
    from lightning_vision.assembly import build_data, build_trainer
    from lightning_vision.checkpoint import require_same_target
    from lightning_vision.reports.run import report_figures

    module, saved = _module(model)
    garbage.release()
    cfg, keys = _composed_with_keys(config, choices)
    settings = for_checkpoint(saved, plain(cfg), keys)
    trained = module.task.target
    other_data = any(key.split(".")[0] == "data" for key in keys)
    if other_data:
        settings["data"] = with_trained_classes(settings["data"], trained, keys)
    index = read_index(settings["data"], trained.kind, settings["seed"])
    assert index.target is not None
    require_same_target(trained, index.target, index.origin)
    split = "test"
    if other_data and not index.is_split:
        index = index.as_split("test")
    elif not index.counts()["test"]:
        split = "val"
    data = build_data(index, module.geometry, _preprocessing(settings), settings)
    folder = Path(settings["output_dir"])
    # Nothing is trained: no checkpoints, no early stopping.
    settings["callbacks"] = {k: v for k, v in settings["callbacks"].items() if v and "monitor" not in v and k != "last"}
    trainer = build_trainer(settings)
    metrics = _evaluate(trainer, module, data, split)
    if trainer.is_global_zero:
        report_figures(folder, module, data, split, metrics)
        runfolder.finish(folder, metrics)
    return Result(metrics, folder, Path(model) if isinstance(model, str | Path) else folder, module)


def predict(
    model: str | Path | VisionModule,
    source: Any,
    config: DictConfig | Sequence[str] | None = None,
    **choices: Any,
) -> list[Prediction]:
    """Predict images.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``.
        source: A file, folder, glob or table; or a list of paths, arrays (uint8 ``(H, W)``, ``(H, W, C)`` or
            ``(C, H, W)``) or PIL images; or one array or PIL image.
        config: Overrides of batch_size and trainer; all else comes from the checkpoint.
        choices: The same by name.

    Returns:
        One Prediction an image, in the order of the source: class probabilities, or a mask at the image's own size.

    Raises:
        DataError: Nothing was found, or an image is unreadable. With ``overrides={"preprocessing.bad_image": "skip"}``
            it is left out instead, so that there are fewer predictions than images; compare their paths.
    """
    module, saved = _module(model)
    cfg, keys = _composed_with_keys(config, choices)
    settings = for_checkpoint(saved, plain(cfg), keys)
    predictions: list[Prediction] = []
    if isinstance(source, str | Path):
        _predict(module, str(source), settings, predictions.append)
        return predictions
    from lightning_vision.data.sources.memory import spool

    images = source if isinstance(source, list | tuple) else [source]
    with tempfile.TemporaryDirectory(prefix="lightning_vision-") as folder:
        _predict(module, spool(images, Path(folder)), settings, predictions.append)
    return predictions


def load(checkpoint: str | Path) -> VisionModule:
    """Load a trained model from its checkpoint alone, without a network, in eval mode.

    ``module(images)`` takes uint8 ``(B, C, H, W)`` of any size and returns logits; the normalisation is inside.

    Raises:
        CheckpointError: The file is missing, damaged, or of something else.
    """
    from lightning_vision import checkpoint as checkpoints
    from lightning_vision.assembly import rebuild_module

    return rebuild_module(checkpoints.read(checkpoint))


def check(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> bool:
    """Read the data's index and every image header, print the report, and return whether a fit can start."""
    from lightning_vision.data.report import check_data, render

    config_ = plain(_composed(config, choices))
    report = check_data(config_)
    print(render(report))
    return report.ok


def _predict_to_folder(checkpoint: str, source: str, cfg: DictConfig) -> None:
    from lightning_vision.inference.writers import LabelWriter, MaskWriter
    from lightning_vision.reports.palette import class_palette

    module, saved = _module(checkpoint)
    garbage.release()
    _, keys = _composed_with_keys(cfg, {})
    settings = for_checkpoint(saved, plain(cfg), keys)
    settings["preprocessing"]["bad_image"] = "skip"
    folder = Path(settings["output_dir"]) / "predictions"
    target = module.task.target
    writer: LabelWriter | MaskWriter
    if target.kind == "label":
        writer = LabelWriter(folder, target.class_names)
    else:
        palette = class_palette(target.num_classes, target.palette)
        root = Path(source).expanduser().absolute()
        writer = MaskWriter(
            folder, target.class_names, palette, root=root if root.is_dir() else None, ignore_index=target.ignore_index
        )
    count = 0

    def receive(prediction: Prediction) -> None:
        nonlocal count
        count += 1
        writer.write(prediction.path, prediction.probabilities if target.kind == "label" else prediction.mask)

    with writer:
        bad = _predict(module, source, settings, receive)
    print(f"{count} images predicted: {folder}")
    if bad:
        lines = [f"{len(bad)} images could not be read and were left out:", *(f"  {path}: {why}" for path, why in bad)]
        print("\n".join(lines))


def _predict(
    module: VisionModule, source: str | Sequence[Path], settings: dict[str, Any], receive: Callable[[Prediction], None]
) -> list[tuple[str, str]]:
    """Predict every image of the source; return the files that were skipped, with the reasons."""
    from lightning_vision.assembly import build_data, build_trainer
    from lightning_vision.data.sources.files import FilesSource
    from lightning_vision.inference.predictor import PredictionStream

    index = FilesSource(source).read(None, settings["seed"])
    data = build_data(index, module.geometry, _preprocessing(settings), settings)
    trainer = build_trainer({**settings, "callbacks": {}, "logger": {}}, enable_progress_bar=False)
    trainer.callbacks.append(PredictionStream(receive))
    trainer.predict(module, data, return_predictions=False)
    return data.bad


def _evaluate(trainer: Any, module: VisionModule, data: VisionDataModule, split: str) -> dict[str, float]:
    """Score a split; return flat figures, those of the classes too."""
    if split == "test":
        rows = trainer.test(module, data, verbose=False)
    else:
        rows = trainer.validate(module, data, verbose=False)
    figures = {key: float(value) for key, value in rows[0].items()}
    for figure, values in module.task.per_class(module.results[split]).items():
        figures |= {f"{split}/{figure}/{name}": value for name, value in values.items()}
    return figures


def _build(plan: Plan) -> tuple[VisionModule, VisionDataModule]:
    from lightning.pytorch import seed_everything

    from lightning_vision.assembly import build_data, build_module

    seed_everything(plan.config["seed"], workers=True, verbose=False)
    return build_module(plan), build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)


def _module(model: str | Path | VisionModule) -> tuple[VisionModule, dict[str, Any]]:
    module = load(model) if isinstance(model, str | Path) else model
    return module, module.config


def _weights(module: VisionModule, path: Path) -> dict[str, Any]:
    from lightning_vision import checkpoint as checkpoints

    state = checkpoints.read(path)
    checkpoints.restore_encoder_weights(module, state)
    return cast(dict[str, Any], state["state_dict"])


def _preprocessing(settings: Mapping[str, Any]) -> Any:
    return instantiate(settings["preprocessing"])


def _composed(config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any]) -> DictConfig:
    return _composed_with_keys(config, choices)[0]


def _composed_with_keys(
    config: DictConfig | Sequence[str] | None, choices: Mapping[str, Any]
) -> tuple[DictConfig, list[str]]:
    """Compose unless that was done already; name the keys that were given."""
    if isinstance(config, DictConfig):
        from hydra.core.hydra_config import HydraConfig

        typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        return config, override_keys(typed)
    words, named = list(config or ()), dict(choices)
    extra = dict(named.pop("overrides", {}))
    pair = named.get("data")
    if isinstance(pair, tuple):
        from lightning_vision.data.sources.memory import table_of

        named["data"] = "table"
        extra |= {"data.path": str(table_of(*pair))}
    keys = override_keys(words) + list(named) + list(extra)
    return compose(words, **named, **extra), keys


def _required(cfg: DictConfig, key: str, example: str) -> str:
    if cfg[key] is None:
        raise ConfigError(f"{cfg.action} needs {key}=.", expected=f"{key}=PATH", override=f"{cfg.action} {example}")
    return str(cfg[key])
