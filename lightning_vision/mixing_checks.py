"""Mixed images where tasks, losses or data cannot use targets of two samples: refused before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.loss_choice import loss_name, loss_parts, loss_tasks
from lightning_vision.options import parts_of
from lightning_vision.outputs import outputs_of, setting_prefix
from lightning_vision.searchpath import options_of
from lightning_vision.signatures import class_constants, describe
from lightning_vision.tasks import TASKS, task_constants


def check_mixing(config: Mapping[str, Any]) -> None:
    """Refuse to mix images where a task, a loss or the data cannot use targets of two samples."""
    steps = [(name, node, _constants(node)) for name, node in (config.get("augmentation") or {}).items() if node]
    mixing = [(name, constants) for name, _, constants in steps if constants.get("mixes")]
    if not mixing:
        return
    given, without = f"augmentation.{mixing[0][0]}", " ".join(f"augmentation.{name}=null" for name, _ in mixing)
    for name, node in outputs_of(config).items():
        views = [p["_target_"] for p in loss_parts(node["loss"]) if class_constants(p["_target_"])["views"] > 1]
        if views or not task_constants(node["task"])["mixes"]:
            raise ConfigError(
                "Images of two samples are something to learn from where each has classes that it belongs to.",
                given=f"{given} with {setting_prefix(config, name)}{views[0] if views else 'task=' + node['task']}",
                expected=f"a task of {listed(task for task in TASKS if task_constants(task)['mixes'])}, without views",
                override="augmentation=views" if views else without,
            )
    if config["data"].get("unknown"):
        raise ConfigError(
            "What is mixed of a known label and an unknown one is neither.",
            given=f"{given} with data.unknown={config['data']['unknown']}",
            override=[without, "data.unknown=null"],
        )
    if config["batch_size"] == 1:
        raise ConfigError(
            "An image is mixed with others of its batch, and there are no others.",
            given=f"batch_size=1 with {given}",
            expected="at least 2; more are better",
            override=["batch_size=16", without],
        )
    blending = [name for name, constants in mixing if constants.get("blends")]
    for name, node in outputs_of(config).items():
        mask = task_constants(node["task"])["target_kind"] == "mask"
        if blending or not mask:
            _check_soft_targets(node, config, name, blending[0] if mask else mixing[0][0], without, mask)
    masks = any(task_constants(node["task"])["target_kind"] == "mask" for node in outputs_of(config).values())
    names = [name for name, _, _ in steps]
    later = [n for n, _, c in steps[names.index(blending[0]) :] if not c.get("mixes")] if blending and masks else []
    if later:
        order = ",".join([*(name for name in names if name not in blending), *blending])
        raise ConfigError(
            "Blended masks are probabilities, which do not move with their images: blending comes last.",
            given=f"augmentation.{blending[0]} before augmentation.{later[0]}",
            expected=f"this order: {order}",
            override=[
                *([f"augmentation=[{order}]"] if set(names) <= set(options_of("augmentation")) else []),
                " ".join(f"augmentation.{name}=null" for name in blending),
            ],
        )


def _constants(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The class constants of a part, none where its source is not at hand."""
    signature = describe(str(node.get("_target_")))
    return {} if signature is None else signature.constants


def _check_soft_targets(
    node: Mapping[str, Any], config: Mapping[str, Any], name: str, mixing: str, without: str, mask: bool
) -> None:
    """Refuse a loss that takes no probabilities for targets."""
    if _takes_soft(node["loss"]):
        return
    task, prefix = node["task"], setting_prefix(config, name)
    fitting = [n for n, loss in parts_of("loss").items() if task in loss_tasks(loss) and _takes_soft(loss)]
    fitting.sort(key=lambda n: n != task_constants(task)["default_loss"])
    raise ConfigError(
        "The targets of mixed images are probabilities, and the loss takes classes.",
        given=f"{prefix}loss={loss_name(node['loss'])} with augmentation.{mixing}",
        expected=f"a loss that takes both: {listed(fitting)}" + ("; or cutmix, which keeps classes" if mask else ""),
        override=[f"{prefix}loss={fitting[0]}", without],
    )


def _takes_soft(loss: Mapping[str, Any]) -> bool:
    return all(class_constants(part["_target_"]).get("soft_targets", False) for part in loss_parts(loss))
