"""The best checkpoint of a run, also of one that goes on in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_vision.types import Between


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoints with the best figures.

    Lightning's own forgets the best figure when a resumed run writes to another folder: the first epoch after the
    resumption would count as the best, however bad. Here the best checkpoints so far are copied to the new folder, and
    later ones compete with them. Where their files are gone, the best of the new folder is kept.

    Args:
        dirpath: Folder of the checkpoints.
        filename: Their name without the ending.
        monitor: Figure that decides; ``auto`` is replaced by the task's own before this is built.
        mode: Whether the figure should be ``min`` or ``max``; ``auto`` is replaced likewise.
        save_top_k: Number of checkpoints that are kept.
    """

    injected: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        dirpath: str,
        filename: str = "best",
        monitor: str = "auto",
        mode: Literal["auto", "min", "max"] = "auto",
        save_top_k: Annotated[int, Between(1)] = 1,
    ) -> None:
        super().__init__(dirpath, filename, monitor, mode=mode, save_top_k=save_top_k, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoints of the run that is resumed."""
        assert self.dirpath is not None
        folder = Path(str(self.dirpath))
        best = {Path(path): score for path, score in state_dict["best_k_models"].items()}
        if state_dict["dirpath"] != self.dirpath and best and all(path.is_file() for path in best):
            moved = {str(folder / path.name): score for path, score in best.items()}
            _copy(list(best), folder)
            named = ("best_model_path", "kth_best_model_path")
            state_dict = {
                **state_dict,
                **{key: str(folder / Path(state_dict[key]).name) for key in named if state_dict[key]},
                "best_k_models": moved,
                "dirpath": self.dirpath,
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


@rank_zero_only
def _copy(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)
