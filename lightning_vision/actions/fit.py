"""The action fit: train, then score the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.actions.arguments import composed_with_keys
from lightning_vision.actions.evaluation import Result, evaluate, hushed
from lightning_vision.actions.models import build_parts, weights_of
from lightning_vision.errors import CheckpointError, ConfigError
from lightning_vision.monitor import better
from lightning_vision.overrides import override
from lightning_vision.resolve import Plan, plain, resolve
from lightning_vision.settings import for_resume, found_before

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lightning_vision.data.datamodule import VisionDataModule
    from lightning_vision.module import VisionModule
    from lightning_vision.types import Split


def run(cfg: DictConfig) -> float | None:
    """Carry out the action; return the monitored figure, for sweeps."""
    return fit(cfg).metrics.get("best")


def fit(config: DictConfig | Sequence[str] | None = None, *, quiet: bool = False, **choices: Any) -> Result:
    """Train, test the best checkpoint, and leave figures and pictures in the run folder.

    Args:
        config: What ``compose`` returned, or override words as on the command line.
        quiet: Print nothing but warnings.
        choices: Options and scalars by name: ``encoder="resnet", image_size=64``, a part with settings as
            ``encoder={"type": "resnet", "trainable": False}``; ``data`` also takes images (arrays, PIL images or
            paths), a pair of images and targets, a data frame, or a Hugging Face dataset.
            ``checkpoint=`` resumes: all settings that are not given are those of the checkpoint.

    Raises:
        ConfigError: A setting is wrong, or two do not go together.
        DataError: The data cannot be used.
        CheckpointError: The checkpoint to resume from is unreadable, of other classes, or a folder for the hub.
    """
    with hushed(quiet):
        return _fit(*composed_with_keys(config, choices, "fit"))


def _fit(cfg: DictConfig, keys: Sequence[str]) -> Result:
    resumed = cfg.checkpoint
    plan = resolve(cfg) if resumed is None else _resumed(resumed, cfg, keys)
    folder = Path(plan.config["output_dir"])

    from lightning_vision.assembly import build_trainer
    from lightning_vision.loggers.run import logged
    from lightning_vision.tuning.run import prepare, tune, wanted

    module, data = build_parts(plan)
    runfolder.start(folder, plan)
    garbage.release()
    tuned = []
    if wanted(plan.config):
        tuned = tune(plan, module, data)
        runfolder.start(folder, plan)
    trainer = build_trainer(plan.config)
    prepare(module, trainer)
    with logged(trainer, plan.config, resumed):
        return _trained(trainer, plan, module, data, resumed, tuned)


def _trained(
    trainer: Trainer,
    plan: Plan,
    module: VisionModule,
    data: VisionDataModule,
    resumed: str | None,
    tuned: Sequence[str],
) -> Result:
    """Train, score, and write the run folder."""
    from lightning_vision.interruption import interruptible
    from lightning_vision.reports.run import Subject, report_data, report_figures, report_page, report_pictures
    from lightning_vision.reports.training import training_lines

    folder = Path(plan.config["output_dir"])
    if trainer.is_global_zero:
        if resumed is not None:
            runfolder.carry_on(Path(resumed), folder)
        runfolder.announce(plan, module, data, tuned)
        report_data(folder, plan)
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
        module.load_state_dict(weights_of(module, path))
    split: Split = "test" if plan.index.counts()["test"] else "val"
    scored = plan.index.counts()[split] > 0
    if scored:
        figures, records = evaluate(trainer, module, data, folder, split)
        metrics |= figures
    bad = data.bad
    if trainer.is_global_zero:
        # Ahead of the pictures: what stops them does not cost the figures.
        runfolder.finish(folder, metrics, path)
        print("\n".join([*training_lines(module), *tuned]))
        sections = []
        if scored:
            sections = report_figures(folder, module, data, split, split, metrics, records)
        else:
            print(f"no rows to score; checkpoints and curves: {folder}")
        called, count = (split, plan.index.counts()[split]) if scored else (None, 0)
        subject = Subject("fit", plan.config, plan.index, called, count, path if path.is_file() else None)
        report_page(folder, module, subject, sections)
        runfolder.left_out(bad)
    return Result(metrics, folder, path, module)


def _resumed(path: str, cfg: DictConfig, keys: Sequence[str]) -> Plan:
    """The plan of a run that goes on."""
    path = str(runfolder.find_checkpoint(path))
    from lightning_vision import checkpoint as checkpoints

    state = checkpoints.read(path)
    if "loops" not in state:
        raise CheckpointError(
            "A training cannot go on from this: it holds the weights, and not how far the optimizer came.",
            given=path,
            expected="a checkpoint that a fit wrote, such as RUN/checkpoints/last.ckpt",
            override=[f"test {override('checkpoint', path)}", "checkpoint=null, for a new run"],
        )
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
