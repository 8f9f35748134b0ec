"""The action test: score a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.actions.arguments import checkpoint_of, composed_with_keys
from lightning_vision.actions.evaluation import Result, evaluate, hushed
from lightning_vision.actions.models import build_parts, module_of, untrained_plan
from lightning_vision.config import instantiate
from lightning_vision.data.scored_rows import rows_to_score
from lightning_vision.outputs import main_output, outputs_of
from lightning_vision.reading import read_index, targets_of
from lightning_vision.resolve import plain
from lightning_vision.settings import for_checkpoint, same_data, with_trained_classes

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.data.index import SampleIndex
    from lightning_vision.inference.looking import Look
    from lightning_vision.module import VisionModule
    from lightning_vision.reports.run import Subject


def run(cfg: DictConfig) -> None:
    """Carry out the action."""
    test(checkpoint_of(cfg), cfg)


def test(
    model: str | Path | VisionModule | None,
    config: DictConfig | Sequence[str] | None = None,
    *,
    quiet: bool = False,
    **choices: Any,
) -> Result:
    """Score a checkpoint; nothing is needed but the checkpoint and the data.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``. None: the pretrained model that the config
            names, with a decoder that needs no training (``decoder="pretrained"`` or ``"zero_shot"``).
        config: Overrides of data, batch_size, trainer; all else comes from the checkpoint.
        quiet: Print nothing but warnings.
        choices: The same by name. Without ``data`` the training data are scored. ``split``: which rows, ``train``,
            ``val``, ``test`` or ``all``; without it the test split, else val, or every row of other data that are not
            split. Figures have the name of the split before them: ``val/accuracy``.

    Raises:
        ConfigError: A split is asked of data that are not split.
        CheckpointError: The checkpoint is unreadable, or the data have other classes, order or channels.
        DataError: The data cannot be used.
    """
    with hushed(quiet):
        return _test(model, *composed_with_keys(config, choices, "test"))


def _test(model: str | Path | VisionModule | None, cfg: DictConfig, keys: Sequence[str]) -> Result:
    if model is None:
        plan = untrained_plan(cfg)
        (module, _), settings, index, other_data = build_parts(plan), plan.config, plan.index, True
    else:
        module, saved = module_of(model)
        settings, index, other_data = _data_to_score(module, saved, cfg, keys)
    from lightning_vision.assembly import build_data, build_trainer
    from lightning_vision.inference.looking import Look
    from lightning_vision.loggers.run import logged
    from lightning_vision.reports.run import Subject

    garbage.release()
    look = Look(module, settings)
    rows, called = rows_to_score(index, cfg.split, other_data)
    data = build_data(rows, module.geometry, instantiate(settings["preprocessing"]), settings)
    # Nothing is trained: no checkpoints, no early stopping.
    settings["callbacks"] = {k: v for k, v in settings["callbacks"].items() if v and "monitor" not in v and k != "last"}
    trainer = build_trainer(settings)
    if trainer.is_global_zero:
        runfolder.tell(index.problems)
    file = Path(model) if isinstance(model, str | Path) else None
    subject = Subject("test", settings, index, called, len(rows), file, look.scored(called))
    folder = Path(settings["output_dir"])
    with logged(trainer, settings):
        metrics = _scored(trainer, module, data, subject, folder, look)
    return Result(metrics, folder, file or folder, module)


def _scored(
    trainer: Trainer, module: VisionModule, data: VisionDataModule, subject: Subject, folder: Path, look: Look
) -> dict[str, float]:
    """Score the rows of the split ``test``, and write the run folder."""
    from lightning_vision.reports.run import report_figures, report_page

    called = subject.called
    assert called is not None
    with look:
        if trainer.is_global_zero and subject.tiled:
            print(subject.tiled)
        metrics, records = evaluate(trainer, module, data, folder, "test", called)
        metrics |= {f"{called}/{name}": value for name, value in look.figures().items()}
        bad = data.bad
        sections = []
        if trainer.is_global_zero:
            # Ahead of the pictures: what stops them does not cost the figures.
            runfolder.finish(folder, metrics, subject.checkpoint and runfolder.find_checkpoint(subject.checkpoint))
            sections = report_figures(folder, module, data, "test", called, metrics, records)
    if trainer.is_global_zero:
        report_page(folder, module, subject, sections)
        runfolder.left_out(bad)
    return metrics


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
        settings["images_per_class"] = None  # of these data nothing was left out for the training
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
