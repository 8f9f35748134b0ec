"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_vision.loggers.base import RunLog, Status

# The axis of all figures; its name is that of Lightning's own logger, which dashboards know.
STEP = "trainer/global_step"


class WandbLog(RunLog):
    """A run of Weights & Biases, sent as it is made, or kept in the run folder until ``wandb sync``.

    A run that is resumed where it ended goes on in the same run of Weights & Biases.

    Args:
        save_dir: Folder of ``wandb/``, where runs are kept.
        project: Project of the run.
        entity: User or team; None = that of whoever is logged in.
        name: Name of the run; None = made up by Weights & Biases.
        group: Runs with one group are shown together, such as those of a sweep.
        tags: Words to find the run by.
        mode: ``online``, ``offline`` or ``disabled``; None = the variable WANDB_MODE, else online if logged in
            (``wandb login``, WANDB_API_KEY), else offline.
        pictures: Whether the pictures of ``plots/`` are logged.
    """

    requires: ClassVar[tuple[str, ...]] = ("wandb", "wandb")
    kind: ClassVar[str] = "wandb"

    def __init__(
        self,
        save_dir: str,
        project: str = "lightning_vision",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        pictures: bool = True,
    ) -> None:
        super().__init__(save_dir, pictures)
        self.project, self.entity = project, entity
        self.run_name, self.group, self.tags = name, group, tags
        self.mode = mode

    def begin(self, record: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        """Begin a run of its own, also where another is open, or go on in the recorded one."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        place = {"project": self.project, "entity": self.entity or ""}
        same = bool(record) and {key: record.get(key) for key in place} == place
        run = wandb.init(
            dir=str(self.folder),
            project=self.project,
            entity=self.entity,
            name=self.run_name,
            group=self.group,
            tags=self.tags,
            mode=self.mode or _mode(),
            id=record["id"] if same else None,
            resume="allow" if same else None,
            reinit="create_new",
        )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return run, {**place, "id": run.id}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the config as it is nested."""
        self.experiment.config.update(dict(settings), allow_val_change=True)

    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write a row of the history."""
        self.experiment.log({**figures, STEP: step})

    def write_picture(self, name: str, file: Path) -> None:
        """Write a picture into the history."""
        import wandb

        self.experiment.log({name: wandb.Image(str(file)), STEP: self.step})

    def end(self, status: Status) -> None:
        """End the run; waits until all is sent."""
        self.experiment.finish(exit_code=0 if status == "finished" else 1)


def _mode() -> Literal["offline"] | None:
    """Keep runs here where nobody is logged in, in place of a question; None leaves it to the library's settings."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode != "online" or wandb.login(prompt=False, verify=False):
        return None
    print("wandb: nobody is logged in, so the run is kept in the run folder (wandb login; wandb sync FOLDER)")
    return "offline"
