"""Ludwig's trainer: epochs, optimizer, schedule, precision, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_vision.errors import nearest
from lightning_vision.ludwig.translation import Layer, Translation, accepted, layer, part
from lightning_vision.options import load_option
from lightning_vision.searchpath import options_of

# Classes of torch that are no options, by Ludwig's names for them, in the place of adam's.
_TORCH = {
    **{"adamax": "Adamax", "nadam": "NAdam", "radam": "RAdam"},
    **{"adagrad": "Adagrad", "adadelta": "Adadelta"},
}
_WITHOUT_BETAS = ("adagrad", "adadelta")
# Our options by what Ludwig calls a schedule, where the names differ.
_SCHEDULES = {"null": "constant", "none": "constant", "linear": "polynomial", "onecycle": "one_cycle"}
_OF_PLATEAU = {"reduce_on_plateau_patience": "patience", "reduce_on_plateau_rate": "factor"}
# What a figure is called here, by the type of the output that has it.
_FIGURES = {
    "image": {"loss": "loss", "accuracy": "pixel_accuracy", "mean_iou": "mean_iou", "jaccard": "mean_iou"},
    "category": {"loss": "loss", "accuracy": "accuracy", "accuracy_micro": "accuracy", "roc_auc": "auroc"},
    "binary": {"loss": "loss", "accuracy": "accuracy", "roc_auc": "auroc"},
    "set": {"loss": "loss"},
    "vector": {"loss": "loss"},
    "anomaly": {"loss": "loss"},
}
_REASONS = {
    "type": "there is one trainer",
    "eval_batch_size": "batch_size is that of evaluation too",
    "evaluate_training_set": "train/loss is taken while it trains, the training split is not scored again",
    "should_shuffle": "training rows are shuffled each epoch, by seed",
    "steps_per_checkpoint": "the best and the last checkpoint are written once an epoch",
    "checkpoints_per_epoch": "the best and the last checkpoint are written once an epoch",
    "regularization_lambda": "optimizer.weight_decay",
    "regularization_type": "optimizer.weight_decay is L2",
    "learning_rate_scaling": "lr is not scaled with the number of devices",
    "max_batch_size": "batch_size",
    "effective_batch_size": "batch_size times trainer.accumulate_grad_batches",
    "bucketing_field": "images have one size",
    "skip_all_evaluation": "+trainer.limit_val_batches=0",
    "enable_profiling": "+trainer.profiler=simple",
    "layers_to_freeze_regex": "encoder.trainable=false, or encoder_freeze_epochs",
    "validation_field": "monitor=val/NAME/FIGURE",
    "eval_steps": "+trainer.limit_val_batches",
    "increase_batch_size_on_plateau": "batch_size stays",
    "enable_gradient_checkpointing": "trainer.accumulate_grad_batches saves memory too",
    "decay": "scheduler=NAME",
    "decay_rate": "scheduler=NAME",
    "decay_steps": "scheduler=NAME",
    "staircase": "scheduler=NAME",
}
_OF_SCHEDULE = {
    "warmup_evaluations": "scheduler.warmup_epochs: validation is once an epoch",
    "decay_rate": "scheduler=step falls by a factor, scheduler.factor, each scheduler.step_epochs",
    "decay_steps": "scheduler=step falls by a factor, scheduler.factor, each scheduler.step_epochs",
    "staircase": "scheduler=step falls by a factor, scheduler.factor, each scheduler.step_epochs",
    "reduce_on_plateau": "scheduler=plateau, in place of another schedule",
    "reduce_on_plateau_patience": "scheduler=plateau",
    "reduce_on_plateau_rate": "scheduler=plateau",
    "reduce_eval_metric": "scheduler=plateau watches the monitored figure",
    "reduce_eval_split": "scheduler=plateau watches the monitored figure",
    "t_0": "scheduler=cosine does not start again",
    "t_mult": "scheduler=cosine does not start again",
    "eta_min": "scheduler.final_factor, as a share of lr",
}
_OF_CLIPPING = ("clipglobalnorm", "clipnorm", "clipvalue")


def translate_trainer(t: Translation, given: Layer, outputs: Sequence[tuple[str | None, str | None]]) -> None:
    """Translate a trainer.

    Args:
        t: What it becomes.
        given: The section.
        outputs: Name and type of the output features.
    """
    rest = dict(given)
    metric, field_ = rest.pop("validation_metric", None), rest.pop("validation_field", None)
    if metric is not None:
        _monitor(t, metric, field_, outputs)
    elif field_ is not None:
        t.note(field_[1], _REASONS["validation_field"])
    # The trainer's own rate counts before that of the optimizer.
    for key in sorted(rest, key=lambda key: key != "learning_rate"):
        value, place = rest[key]
        if key in _KNOWN:
            _KNOWN[key](t, value, place)
        else:
            near = nearest(key, [*_KNOWN, *_REASONS, "validation_metric"])
            t.note(place, _REASONS.get(key, "no setting of a trainer" + (f"; {near}, perhaps" if near else "")))


def _to(key: str) -> Callable[[Translation, Any, str], None]:
    return lambda t, value, place: t.set(key, value, place)


def _found(key: str, finder: str) -> Callable[[Translation, Any, str], None]:
    """A number, or ``auto``: found by trying, where the trainer has such a setting."""

    def known(t: Translation, value: Any, place: str) -> None:
        if value != "auto":
            t.set(key, value, place)
        elif finder in load_option("trainer", "default"):
            t.set(f"trainer.{finder}", True, place)
        else:
            t.note(place, f"a number, {key}=...; it is not found by itself")

    return known


def _of_trainer(key: str) -> Callable[[Translation, Any, str], None]:
    def known(t: Translation, value: Any, place: str) -> None:
        plus = "" if key in load_option("trainer", "default") else "+"
        t.set(f"{plus}trainer.{key}", value, place)

    return known


def _accumulate(t: Translation, value: Any, place: str) -> None:
    if value == "auto":
        t.note(place, "a number, trainer.accumulate_grad_batches=...")
    else:
        t.set("trainer.accumulate_grad_batches", value, place)


def _compile(t: Translation, value: Any, place: str) -> None:
    if "compile" in load_option("trainer", "default"):
        t.set("trainer.compile", value, place)
    else:
        t.note(place, "models are not compiled")


def _early_stop(t: Translation, value: Any, place: str) -> None:
    if value == -1:
        t.set("callbacks.early_stopping", None, place)
    else:
        t.set("callbacks.early_stopping.patience", value, place)


def _precision(t: Translation, value: Any, place: str) -> None:
    # Half precision works on every device with bfloat16, which needs no scaling of the loss.
    t.set("trainer.precision", "bf16-mixed" if value else "32-true", place)


def _clipping(t: Translation, value: Any, place: str) -> None:
    given = layer(value, place)
    if value is None:
        t.set("trainer.gradient_clip_val", None, place)
    said = [key for key in _OF_CLIPPING if given.get(key, (None,))[0] is not None]
    for key, (limit, where) in given.items():
        if key not in _OF_CLIPPING:
            t.note(where, f"gradient clipping has {', '.join(_OF_CLIPPING)}")
        elif limit is None:
            t.note(where, "not clipped by this, as here")
        elif key != said[0]:
            t.note(where, f"gradients are clipped in one way, {said[0]}")
        else:
            t.set("trainer.gradient_clip_val", limit, where)
            if key == "clipvalue":
                _of_trainer("gradient_clip_algorithm")(t, "value", where)


def _monitor(
    t: Translation,
    metric: tuple[Any, str],
    field_: tuple[Any, str] | None,
    outputs: Sequence[tuple[str | None, str | None]],
) -> None:
    """The figure that picks the checkpoint; that of an output among several has the output's name."""
    named = dict(outputs)
    name = field_[0] if field_ else "combined"
    several = len(outputs) > 1
    if name != "combined" and name not in named:
        assert field_ is not None
        near = nearest(str(name), [n for n in named if n])
        t.note(field_[1], "no output feature has this name" + (f"; {near}, perhaps" if near else ""))
        name = "combined"
    kind = named.get(name) if several else next(iter(named.values()), None)
    figures = _FIGURES.get(kind or "", {"loss": "loss"})
    figure = figures.get(str(metric[0]))
    if figure is None or (several and name == "combined" and figure != "loss"):
        t.note(metric[1], f"monitor=val/FIGURE; by this name there is {', '.join(figures)}")
        if field_ is not None:
            t.note(field_[1], _REASONS["validation_field"])
        return
    t.set("monitor", f"val/{name}/{figure}" if several and name != "combined" else f"val/{figure}", metric[1])
    if field_ is not None and not (several and name != "combined"):
        t.note(field_[1], "as here" if name == "combined" else "there is one output")
    elif field_ is not None:
        t.used.add(field_[1])


def _optimizer(t: Translation, value: Any, place: str) -> None:
    given = part(value, place)
    if "lr" in given:
        lr, where = given.pop("lr")
        t.set("lr", lr, where)
    option = "adamw"
    if "type" in given:
        value, where = given.pop("type")
        name = str(value).lower()
        if name in options_of("optimizer"):
            option = name
            t.set("optimizer", option, where)
        elif name in _TORCH:
            option = "adam"
            t.set("optimizer", option, where)
            t.set("optimizer._target_", f"torch.optim.{_TORCH[name]}", where)
            if name in _WITHOUT_BETAS:
                t.set("~optimizer.betas", None, where)
        else:
            near = nearest(name, options_of("optimizer")) or option
            t.note(where, f"optimizer={near}, perhaps; any of torch by optimizer._target_=torch.optim.NAME")
    for key, (inner, where) in accepted(t, "optimizer", option, given, {}).items():
        t.set(f"{'+' * key.startswith('+')}optimizer.{key.lstrip('+')}", inner, where)


def _schedule(t: Translation, value: Any, place: str) -> None:
    given = part(value, place)
    if value is None:
        t.set("scheduler", "constant", place)
    said = [given.pop(key) for key in ("type", "decay") if key in given]
    found = [option for option in (_schedule_option(t, *kind) for kind in said) if option is not None]
    times = given.get("reduce_on_plateau", (None, ""))
    if times[0] and not said:
        t.set("scheduler", "plateau", given.pop("reduce_on_plateau")[1])
        found = ["plateau"]
    option = found[0] if found else "cosine"
    node = load_option("scheduler", option)
    least, rate = given.get("eta_min", (None,))[0], t.settings.get("lr")
    if "final_factor" in node and isinstance(least, int | float) and isinstance(rate, int | float) and rate:
        t.set("scheduler.final_factor", least / rate, given.pop("eta_min")[1])
    if "warmup_fraction" in given:
        t.set("scheduler.warmup", *given.pop("warmup_fraction"))
    for key, (inner, where) in given.items():
        if key in node and not key.startswith("_"):
            t.set(f"scheduler.{key}", inner, where)
        elif _OF_PLATEAU.get(key) in node:
            t.set(f"scheduler.{_OF_PLATEAU[key]}", inner, where)
        elif key == "reduce_on_plateau" and not inner:
            t.note(where, "not reduced, as here")
        else:
            near = nearest(key, ["type", "warmup_fraction", *node])
            reason = _OF_SCHEDULE.get(key, f"scheduler={option} has no such setting")
            t.note(where, reason + (f"; {near}, perhaps" if near and key not in _OF_SCHEDULE else ""))


def _schedule_option(t: Translation, value: Any, place: str) -> str | None:
    name = "null" if value is None else str(value).lower()
    options = options_of("scheduler")
    found = _SCHEDULES.get(name, name)
    if found not in options:
        t.note(place, f"no such schedule here; scheduler={nearest(name, options) or 'cosine'}, perhaps")
        return None
    t.set("scheduler", found, place)
    return found


_KNOWN: dict[str, Callable[[Translation, Any, str], None]] = {
    "epochs": _to("epochs"),
    "train_steps": _of_trainer("max_steps"),
    "batch_size": _found("batch_size", "find_batch_size"),
    "learning_rate": _found("lr", "find_lr"),
    "gradient_accumulation_steps": _accumulate,
    "optimizer": _optimizer,
    "learning_rate_scheduler": _schedule,
    "learning_rate_warmup_epochs": _to("scheduler.warmup_epochs"),
    "use_mixed_precision": _precision,
    "compile": _compile,
    "early_stop": _early_stop,
    "gradient_clipping": _clipping,
}
