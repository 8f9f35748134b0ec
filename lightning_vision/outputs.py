"""What a model predicts: one output, or several by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.tasks import task_constants
from lightning_vision.types import Between, TargetSpec

# The name of the output of a model that has one.
SINGLE = "output"
# What stands before an output's name among the names of a model's weights.
OF = "of_"
OUTPUT = "lightning_vision.outputs.OutputSettings"
Reduce = Literal["sum", "mean", "avg", "max", "concat", "last"]


@dataclass(frozen=True)
class OutputSettings:
    """The settings of one of several outputs: ``outputs: {mask: {decoder: unet}, scene: {decoder: classifier}}``.

    Args:
        target: Column of its target; the output's own name unless it is given. Several columns: a set of labels.
        class_names: Names in the order of their ids: a list, or a file with one a line. None: found in the data.
        task: Its task; ``auto`` follows from decoder, loss and target.
        decoder: Name of a decoder, or ``{type: NAME, SETTING: VALUE}``.
        loss: Name of a loss, or ``{type: NAME, SETTING: VALUE}``; ``auto``: the task's own.
        neck: As for a single output.
        weight: Factor of its loss in the sum.
        dependencies: Outputs whose last hidden values (or predictions, where a decoder has none) this one sees beside
            the encoder's features.
        reduce_input: For a decoder of one vector an image: how the deepest map of the encoder becomes that vector, over
            its cells; None: the encoder's own embedding.
        reduce_dependencies: How the values of a dependency that are maps become a vector, over their cells.
    """

    target: str | list[str] | None = None
    class_names: str | list[str] | None = None
    task: Literal["auto", "classification", "multilabel", "open_set", "segmentation", "embedding", "anomaly"] = "auto"
    decoder: str | dict[str, Any] | None = None
    loss: str | dict[str, Any] | None = None
    neck: str | dict[str, Any] | None = "auto"
    weight: Annotated[float, Between(0)] = 1.0
    dependencies: list[str] = field(default_factory=list)
    reduce_input: Reduce | None = None
    reduce_dependencies: Reduce = "sum"


@dataclass
class OutputPlan:
    """What was decided about an output.

    Args:
        node: Its part of the config, with ``decoder``, ``neck``, ``loss`` and ``task``; the root for a single output.
        task: Name of its task.
        target: Its classes.
        column: Name of its target in ``batch["targets"]``; None: it is ``batch["target"]``.
    """

    node: dict[str, Any]
    task: str
    target: TargetSpec
    column: str | None = None


def outputs_of(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The node of each output, with ``decoder``, ``neck``, ``loss`` and ``task``; a single output is the root's."""
    several = config.get("outputs")
    return dict(several) if several else {SINGLE: config}  # type: ignore[dict-item]


def setting_prefix(config: Mapping[str, Any], name: str) -> str:
    """What stands before the settings of an output: nothing for those of a single one, which are the root's."""
    return f"outputs.{name}." if config.get("outputs") else ""


def figure_prefix(outputs: Sized, name: str) -> str:
    """What stands before the figures of one of these outputs, behind their split: nothing where it is the only one."""
    return f"{name}/" if len(outputs) > 1 else ""


def main_output(config: Mapping[str, Any]) -> str:
    """Name of the output whose target is a batch's ``target``: the mask if there is one, else the first.

    Args:
        config: A config whose outputs have their tasks.

    Raises:
        ConfigError: More than one output is a mask.
    """
    outputs = outputs_of(config)
    masks = [name for name, node in outputs.items() if task_constants(node["task"])["target_kind"] == "mask"]
    if len(masks) > 1:
        raise ConfigError(
            "A sample has one mask, so one output can be a mask.",
            given=f"outputs {listed(masks)}",
            expected="one mask with all classes, and any number of labels",
            override=f"~outputs.{masks[1]}",
        )
    return masks[0] if masks else next(iter(outputs))


def columns_of(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Name of each output's target in ``batch["targets"]``; None for the main one, which is ``batch["target"]``."""
    main = main_output(config)
    return {name: None if name == main else name for name in outputs_of(config)}


def monitors_of(config: Mapping[str, Any]) -> list[str]:
    """The figures that pick checkpoints or stop a run: the config's own, and those of callbacks that have others."""
    callbacks = (config.get("callbacks") or {}).values()
    found = [config.get("monitor"), *(c.get("monitor") for c in callbacks if isinstance(c, Mapping))]
    return list(dict.fromkeys(str(monitor) for monitor in found if monitor not in (None, "auto")))


def is_name(name: str) -> bool:
    """Whether a word can name an output: it names a module, a folder and a part of the figures' names."""
    return name.isidentifier() and not name.startswith("_")


def in_order(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Names so that each comes after those that it depends on, otherwise in their order.

    Raises:
        ConfigError: An unknown name, or outputs that depend on each other in a circle.
    """
    ordered: list[str] = []
    waiting = list(dependencies)
    for name, others in dependencies.items():
        for other in others:
            if other not in dependencies or other == name:
                rest = [n for n in dependencies if n != name]
                near = nearest(other, rest)
                raise ConfigError(
                    f"outputs.{name}.dependencies names an output that is not there",
                    given=other,
                    expected=listed(rest),
                    nearest=near,
                    override=f"outputs.{name}.dependencies=[{near or rest[0] if rest else ''}]",
                )
    while waiting:
        ready = next((name for name in waiting if set(dependencies[name]) <= set(ordered)), None)
        if ready is None:
            raise ConfigError(
                "Outputs depend on each other in a circle.",
                given="; ".join(f"{name} on {listed(dependencies[name])}" for name in waiting),
                override=f"outputs.{waiting[0]}.dependencies=[]",
            )
        ordered.append(ready)
        waiting.remove(ready)
    return ordered
