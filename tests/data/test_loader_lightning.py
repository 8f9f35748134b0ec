"""The loader under a real Trainer: order of the epochs, resume in the middle of one, threads that end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from lightning_vision.data.datamodule import VisionDataModule
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.loader import THREAD_PREFIX
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import DataError
from lightning_vision.types import Geometry, TargetSpec

# Lightning 2.6.6 checks its trees in a way that torch 2.15 deprecates; the rest is advice on a real training.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]
TRAIN, VAL, BATCH = 23, 5, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(TRAIN + VAL)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).save(path)
    return [str(p) for p in paths]


def data_of(files: list[str], mode: str = "lazy", cache: Path | None = None, val: bool = True) -> VisionDataModule:
    split = np.r_[np.zeros(TRAIN), np.full(len(files) - TRAIN, 1 if val else 2)].astype(np.uint8)
    label = (np.arange(len(files)) % 2).astype(np.int32)
    index = SampleIndex(PackedStrings.from_strings(files), split, label, target=TargetSpec("label", ("a", "b")))
    preprocessing = Preprocessing(mode=mode, lazy_cache_dir=None if cache is None else str(cache), decode_threads=2)  # type: ignore[arg-type]
    return VisionDataModule(index, Geometry(6, 7, 3), preprocessing, BATCH, seed=7)


class Recorder(LightningModule):
    """Notes which rows it sees, and steps a single weight."""

    def __init__(self, fail_at: int | None = None, fail_in_validation: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[int]]] = []
        self.val_seen: list[int] = []
        self.fail_at, self.fail_in_validation = fail_at, fail_in_validation

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("this step fails")
        self.seen.append((self.current_epoch, batch["index"].tolist()))
        return self.weight * batch["image"].float().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if self.fail_in_validation and not self.trainer.sanity_checking:
            raise RuntimeError("validation fails")
        self.val_seen += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def trainer_of(folder: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        default_root_dir=folder,
        callbacks=list(callbacks),
        **settings,
    )


def keep_all(folder: Path, **settings: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **settings)


def decode_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(THREAD_PREFIX)]


def run(files: list[str], folder: Path, *callbacks: Callback, ckpt: Path | None = None, **settings: Any) -> Recorder:
    module = Recorder()
    data = data_of(files)
    trainer_of(folder, *callbacks, **settings).fit(module, data, ckpt_path=None if ckpt is None else str(ckpt))
    assert not decode_threads()
    return module


def test_epochs_have_different_orders_and_all_rows(files: list[str], tmp_path: Path) -> None:
    seen = run(files, tmp_path, max_epochs=3).seen
    epochs = [[row for epoch, rows in seen for row in rows if epoch == e] for e in range(3)]
    assert all(sorted(e) == list(range(TRAIN)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert run(files, tmp_path, max_epochs=3).seen == seen


@pytest.mark.parametrize("settings", [{"max_epochs": 3}, {"max_steps": 17, "max_epochs": -1}])
@pytest.mark.parametrize("how", [{}, {"val_check_interval": 2}, {"limit_train_batches": 4}, {"limit_val_batches": 0}])
def test_resume_from_any_step_is_exact(
    files: list[str], tmp_path: Path, how: dict[str, Any], settings: dict[str, Any]
) -> None:
    settings = {**settings, **how, "num_sanity_val_steps": 0}
    whole = run(files, tmp_path, keep_all(tmp_path / "c", every_n_train_steps=1), **settings)
    saved = sorted((tmp_path / "c").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    assert len(saved) == len(whole.seen)
    # In the middle of an epoch, just before its last batch, on its last batch, after the first of the next.
    per_epoch = 4 if how.get("limit_train_batches") else 6
    for steps in (2, per_epoch - 1, per_epoch, per_epoch + 1, 2 * per_epoch):
        resumed = run(files, tmp_path, ckpt=saved[steps - 1], **settings)
        assert resumed.seen == whole.seen[steps:], steps


def test_resume_among_the_repeats_of_an_image_is_exact(files: list[str], tmp_path: Path) -> None:
    def fitted(*callbacks: Callback, ckpt: Path | None = None) -> Recorder:
        module, data = Recorder(), data_of(files)
        data.repeats, data.num_items_per_epoch = 3, 20
        trainer = trainer_of(tmp_path, *callbacks, max_epochs=3, num_sanity_val_steps=0)
        trainer.fit(module, data, ckpt_path=None if ckpt is None else str(ckpt))
        return module

    whole = fitted(keep_all(tmp_path / "c", every_n_train_steps=1))
    assert [epoch for epoch, _ in whole.seen] == [0] * 5 + [1] * 5 + [2] * 5
    counts = np.bincount([row for _, rows in whole.seen for row in rows], minlength=TRAIN)
    assert counts.sum() == 60
    assert counts.max() - counts.min() <= 3
    for steps in (5, 7):
        assert fitted(ckpt=tmp_path / "c" / f"step={steps}.ckpt").seen == whole.seen[steps:]


@pytest.mark.parametrize("when", [{"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}])
def test_resume_from_the_end_of_an_epoch(files: list[str], tmp_path: Path, when: dict[str, Any]) -> None:
    checkpoint = keep_all(tmp_path / "c", every_n_epochs=1, **when)
    whole = run(files, tmp_path, checkpoint, max_epochs=3, num_sanity_val_steps=0)
    saved = sorted((tmp_path / "c").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    assert len(saved) == 3
    for epoch in (1, 2):
        resumed = run(files, tmp_path, ckpt=saved[epoch - 1], max_epochs=3, num_sanity_val_steps=0)
        assert resumed.seen == whole.seen[6 * epoch :]


def test_a_checkpoint_holds_plain_integers(files: list[str], tmp_path: Path) -> None:
    run(files, tmp_path, keep_all(tmp_path / "c", every_n_train_steps=4), max_epochs=1)
    state = torch.load(tmp_path / "c" / "step=4.ckpt", weights_only=True)["loops"]["fit_loop"]["state_dict"]
    order = {"rows": TRAIN, "batch_size": BATCH, "seed": 7, "world": 1, "repeats": 1, "items": TRAIN}
    assert state["combined_loader"] == [{"epoch": 0, "batches": 4, **order}]


def test_another_batch_size_on_resume_is_said(files: list[str], tmp_path: Path) -> None:
    run(files, tmp_path, keep_all(tmp_path / "c", every_n_train_steps=2), max_epochs=1)
    data = data_of(files)
    data.batch_size = 5
    with pytest.warns(UserWarning, match="batch_size 4 -> 5"):
        trainer_of(tmp_path, max_epochs=1).fit(Recorder(), data, ckpt_path=str(tmp_path / "c" / "step=2.ckpt"))


def test_validation_sees_each_row_once(files: list[str], tmp_path: Path) -> None:
    module = run(files, tmp_path, max_epochs=1, num_sanity_val_steps=0)
    assert module.val_seen == list(range(TRAIN, TRAIN + VAL))


def test_threads_end_after_early_stop(files: list[str], tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            assert decode_threads()
            trainer.should_stop = True

    assert len(run(files, tmp_path, Stop(), max_epochs=2).seen) == 1


@pytest.mark.parametrize("module", [Recorder(fail_at=2), Recorder(fail_in_validation=True)])
def test_threads_end_after_an_exception(files: list[str], tmp_path: Path, module: Recorder) -> None:
    # Validation after every second batch: the training epoch around it is left in the middle.
    with pytest.raises(RuntimeError, match="fails"):
        trainer_of(tmp_path, max_epochs=1, val_check_interval=2).fit(module, data_of(files))
    assert not decode_threads()


def test_a_bad_image_reaches_the_caller(files: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(files[3]).read_bytes()[:60])
    with pytest.raises(DataError, match=r"broken\.png"):
        run([*files[:3], str(broken), *files[4:]], tmp_path, max_epochs=1)
    assert not decode_threads()


@pytest.mark.parametrize("mode", ["eager", "lazy_cached"])
def test_a_second_fit_and_a_validation_with_the_same_data(files: list[str], tmp_path: Path, mode: str) -> None:
    data = data_of(files, mode, tmp_path / "cache")
    first, second = Recorder(), Recorder()
    trainer_of(tmp_path, max_epochs=2).fit(first, data)
    trainer_of(tmp_path, max_epochs=2).fit(second, data)
    assert first.seen == second.seen
    trainer_of(tmp_path).validate(second, data, verbose=False)
    assert second.val_seen[-VAL:] == list(range(TRAIN, TRAIN + VAL))


def test_overfit_batches_repeats_the_same_batches(files: list[str], tmp_path: Path) -> None:
    seen = run(files, tmp_path, max_epochs=3, overfit_batches=2).seen
    assert [rows for _, rows in seen] == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")
def test_no_validation_rows(files: list[str], tmp_path: Path) -> None:
    data = data_of(files, val=False)
    module = Recorder()
    trainer_of(tmp_path, max_epochs=1).fit(module, data)
    assert len(module.seen) == 6
    assert module.val_seen == []
    trainer_of(tmp_path).validate(module, data, verbose=False)
    assert module.val_seen == []
