"""Which loss an output has, what it is made of, and which tasks it serves. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.options import load_option, parts_of
from lightning_vision.signatures import class_constants
from lightning_vision.tasks import TASKS, task_constants


def choose_loss(node: dict[str, Any], reasons: dict[str, str], prefix: str) -> None:
    """Put the task's own loss in the place of ``auto``, and refuse one that does not go with task or decoder.

    Args:
        node: An output, with its task.
        reasons: Gets why the loss is what it is.
        prefix: What stands before the output's settings in a config.

    Raises:
        ConfigError: The loss does not serve the task, or needs what the decoder does not tell.
    """
    task = node["task"]
    if node["loss"].get("auto"):
        name = task_constants(task)["default_loss"]
        node["loss"] = load_option("loss", name)
        reasons["loss"] = f"the default loss of {task}"
        return
    served = loss_tasks(node["loss"])
    if task not in served:
        usual = task_constants(task)["default_loss"]
        fitting = [name for name, loss in parts_of("loss").items() if task in loss_tasks(loss)]
        fitting.sort(key=lambda name: name != usual)
        raise ConfigError(
            "The loss does not serve the task.",
            given=f"{loss_name(node['loss'])} (for {listed(served)}) with task {task}",
            expected=f"a loss for {task}: {listed(fitting, 40)}",
            override=[f"{prefix}loss={fitting[0]}", f"{prefix}loss=auto"],
        )
    needs = {need for part in loss_parts(node["loss"]) for need in class_constants(part["_target_"])["needs"]}
    if "inputs" in needs and node.get("reduce_input"):
        raise ConfigError(
            "The loss searches around the encoder's embedding, and this output makes a vector of its own.",
            given=f"{loss_name(node['loss'])} with reduce_input={node['reduce_input']}",
            override=[f"{prefix}reduce_input=null", f"{prefix}loss=auto"],
        )
    if "features" in needs and not class_constants(node["decoder"]["_target_"])["splits"]:
        raise ConfigError(
            "The loss looks at the input of the decoder's last layer, and this decoder does not tell it.",
            given=f"{loss_name(node['loss'])} with {node['decoder']['_target_']}",
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


def loss_name(node: Mapping[str, Any]) -> str:
    """The option that a loss came from, else its class."""
    nodes = {loss["_target_"]: name for name, loss in parts_of("loss").items()}
    return " + ".join(nodes.get(part["_target_"], part["_target_"]) for part in loss_parts(node))
