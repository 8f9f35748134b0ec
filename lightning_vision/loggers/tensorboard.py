"""TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lightning_vision.loggers.base import RunLog, Status, flat


class TensorBoardLog(RunLog):
    """Event files below the run folder, for ``tensorboard --logdir``.

    A resumed run writes the epochs so far into its own files again; of older files in the same folder TensorBoard
    shows nothing more.

    Args:
        save_dir: Folder of the event files.
        pictures: Whether the pictures of ``plots/`` are logged.
    """

    requires: ClassVar[tuple[str, ...]] = ("tensorboard", "tensorboard")
    kind: ClassVar[str] = "tensorboard"

    def begin(self, record: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
        """Open a new event file; what older ones of the folder hold from step 0 on is discarded by the reader."""
        from torch.utils.tensorboard import SummaryWriter

        again = any(self.folder.glob("events.out.tfevents.*"))
        return SummaryWriter(str(self.folder), purge_step=0 if again else None), {}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the config as text, and as hyperparameters beside the monitored figure."""
        from torch.utils.tensorboard.summary import hparams

        text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
        self.experiment.add_text("config", f"```yaml\n{text}\n```")
        values = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flat(settings).items()}
        for summary in hparams(values, {str(settings["monitor"]): 0} if "monitor" in settings else {}):
            self.experiment._get_file_writer().add_summary(summary)
        self.experiment.flush()

    def write_figures(self, figures: Mapping[str, float], step: int) -> None:
        """Write scalars, and see to it that they are on the disk."""
        for name, value in figures.items():
            self.experiment.add_scalar(name, value, step)
        self.experiment.flush()

    def write_picture(self, name: str, file: Path) -> None:
        """Write the picture as it was drawn."""
        import numpy as np
        from PIL import Image

        with Image.open(file) as picture:
            self.experiment.add_image(name, np.asarray(picture.convert("RGB")), self.step, dataformats="HWC")

    def end(self, status: Status) -> None:
        """Write how the run ended, and close the file."""
        self.experiment.add_text("status", status, self.step)
        self.experiment.close()
