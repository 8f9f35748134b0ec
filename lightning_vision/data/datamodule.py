"""The data of a run as Lightning takes them: a loader for each split, one row at a time for reports."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.accelerators import CUDAAccelerator

from lightning_vision.data.embeddings import EmbeddingCache
from lightning_vision.data.geometry import training_geometry
from lightning_vision.data.headers import read_header
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.loader import Loader
from lightning_vision.data.masks import decode_mask
from lightning_vision.data.modes import Failure, Lazy, LazyCached, Mode, SampleDecoder, open_mode
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.progress import progress
from lightning_vision.data.ranks import gathered
from lightning_vision.data.threads import available_cores, divide
from lightning_vision.errors import DataError
from lightning_vision.types import Batch, Geometry, Split


class VisionDataModule(LightningDataModule):
    """Loaders of the rows of an index.

    Batches hold ``image`` uint8 ``(B, C, H, W)``, ``index`` int64 ``(B,)``, and ``target``: int64 ``(B,)`` class ids,
    uint8 ``(B, C)`` sets of labels (1 yes, 0 no, 255 unknown) or uint8 ``(B, H, W)`` class maps, absent when the index
    has none of them. Targets of further outputs are in ``targets``, by name. In a fit with cached embeddings there is a
    list ``features`` in place of ``image``.

    Args:
        index: The samples.
        geometry: Height, width and channels that every image is brought to; training images to ``train_size``, if the
            preprocessing has one.
        preprocessing: How images are decoded, and when.
        batch_size: Samples in a training batch of each rank.
        seed: Of the order of training batches, at least 0.
        eval_batch_size: Samples in any other batch; None = ``batch_size``.
        repeats: How often each drawn training image stands behind itself, each time augmented by itself.
        num_items_per_epoch: Training samples of an epoch over all ranks, repeats counted; None = the training rows.
    """

    def __init__(
        self,
        index: SampleIndex,
        geometry: Geometry,
        preprocessing: Preprocessing,
        batch_size: int,
        seed: int,
        eval_batch_size: int | None = None,
        repeats: int = 1,
        num_items_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        preprocessing.require_unlabelled(index.target, [found.target for found in index.further_targets.values()])
        self.index = index
        self.geometry = geometry
        self.preprocessing = preprocessing
        self.target = index.target
        self.batch_size = batch_size
        self.eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
        self.seed = seed
        self.repeats = repeats
        self.num_items_per_epoch = num_items_per_epoch
        self.train_geometry = training_geometry(geometry, preprocessing)
        self._decoder = self._train_decoder = SampleDecoder(index, geometry, preprocessing)
        if self.train_geometry != geometry or preprocessing.for_training().resize != preprocessing.resize:
            self._train_decoder = SampleDecoder(index, self.train_geometry, preprocessing.for_training())
        # What a test scores.
        self.scored: Split = "test"
        self._modes: dict[Split, Mode] = {}
        self._embeddings: EmbeddingCache | None = None
        # Which images, by height and width, a prediction does not want as a whole: it cuts them into tiles itself.
        self.set_aside: Callable[[tuple[int, int]], bool] | None = None
        # Kept for the life of the module: the epoch lives in a loader's sampler.
        self._loaders: dict[str, Loader] = {}

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Path and reason of every image that was skipped or blanked (``preprocessing.on_bad_image``) by any rank.

        All ranks have to ask for it.
        """
        return list(dict(gathered([item for loader in self._loaders.values() for item in loader.bad])).items())

    def take_bad(self) -> list[tuple[str, str]]:
        """Path and reason of the images that this process left out since it was last asked."""
        return [item for loader in self._loaders.values() for item in loader.take_bad()]

    def setup(self, stage: str) -> None:
        """Open what the stage needs; in eager mode, decode it with all cores.

        In a fit, a module that has an ``EmbeddingCache`` as its ``embeddings`` gets batches with ``features`` in place
        of ``image``. All other stages run the whole model on images: it is the model that a checkpoint holds.

        Raises:
            DataError: Nothing to train on; an image that cannot be decoded (eager); no room on the disk (lazy_cached).
            ConfigError: Not enough memory (eager).
        """
        splits: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": (self.scored,)}
        if stage == "fit" and not len(self.index.rows("train")):
            raise DataError(
                f"{self.index.origin or 'the data'}: no row is in the split train, so there is nothing to train on",
                given=", ".join(f"{n} {split}" for split, n in self.index.counts().items()),
                override="test checkpoint=FILE",
            )
        fitted = self.trainer.lightning_module if stage == "fit" and self.trainer is not None else None
        self._embeddings = getattr(fitted, "embeddings", None)
        if self._embeddings is not None:
            return  # their key is known when the weights of a resumed run are in place
        for split in splits.get(stage, ()):
            if len(self.index.rows(split)):
                self._mode(split)

    def prepare(self, split: Split) -> list[tuple[str, str]]:
        """Decode all rows of a split ahead of training, where the mode keeps them.

        Returns:
            Path and reason of every image that cannot be decoded.

        Raises:
            DataError: An image cannot be decoded, and ``preprocessing.on_bad_image`` is ``error``.
        """
        mode = self._mode(split)
        failed = [
            (self.index.image_path(int(mode.rows[failure.position])), failure) for failure in self._prepare(mode, split)
        ]
        return [(path, failure.reason(path)) for path, failure in failed]

    def _prepare(self, mode: Mode, split: str) -> list[Failure]:
        threads = self.preprocessing.num_processes or self._threads()
        with (
            progress(f"decoding {split}", len(mode.rows)) as advance,
            ThreadPoolExecutor(threads, thread_name_prefix="lv-decode-all") as pool,
        ):
            return mode.prepare(pool, advance)

    @property
    def store_folders(self) -> set[Path]:
        """Folders of the decoded pixels on the disk that are open, and that this module will read again."""
        return {store.folder for mode in self._modes.values() if isinstance(mode, LazyCached) for store in mode.stores}

    def train_dataloader(self) -> Loader:
        """Training batches, in a new order every epoch (in one order with ``Trainer(overfit_batches=...)``)."""
        overfits = bool(self.trainer is not None and self.trainer.overfit_batches)  # type: ignore[attr-defined]
        name = "train in one order" if overfits else "train"
        return self._loader(name, self._mode("train"), self.batch_size, train=True, shuffle=not overfits)

    def train_sample_dataloader(self) -> Loader:
        """Training batches in a random order, for what looks at some of them beside the training itself."""
        return self._loader("train sample", self._mode("train"), self.batch_size, train=True, shuffle=True)

    def train_rows_dataloader(self) -> Loader:
        """The training rows in their order, each once over all ranks, as they are without augmentation.

        They are of the model's own size, resized as validation images are.
        """
        same = self._train_decoder is self._decoder
        mode = self._mode("train") if same else Lazy(self._decoder, self.index.rows("train"))
        return self._loader("train rows", mode, self.eval_batch_size)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Validation batches; an empty list, which Lightning skips, if the split has no rows."""
        return self._eval_loader("val")

    def test_dataloader(self) -> Loader | list[Loader]:
        """Batches of the split that is scored; an empty list, which Lightning skips, if it has no rows."""
        return self._eval_loader(self.scored)

    def predict_dataloader(self) -> Loader:
        """All rows of the index in their order. Decoded once, so never cached."""
        decoder = replace(self._decoder, set_aside=self.set_aside)
        return self._loader("predict", Lazy(decoder, np.arange(len(self.index))), self.eval_batch_size)

    def is_set_aside(self, row: int) -> bool:
        """Whether the pixels of a row of a prediction were not decoded."""
        return self.set_aside is not None and self.set_aside(self.original_size(row))

    def leave_out(self, row: int, error: DataError) -> None:
        """Count a row of a prediction as bad whose image turned out unreadable only when it was used."""
        self._loaders["predict"].leave_out(row, error)

    def batch(self, rows: npt.NDArray[np.int64], training: bool = False) -> Batch:
        """Load some rows of the index as one batch, whatever their split.

        Args:
            rows: int64: rows of the index.
            training: As the augmentation gets them, instead of in the model's own size.
        """
        rows = np.asarray(rows, np.int64)
        decoder = self._train_decoder if training else self._decoder
        return self._loader("rows", Lazy(decoder, np.arange(len(self.index))), 1).load(rows)

    def original_mask(self, i: int) -> npt.NDArray[np.uint8]:
        """Class ids of row i at the mask file's own size, uint8 ``(H, W)``.

        Raises:
            DataError: The mask cannot be decoded or holds a value that is no class.
        """
        if self.target is None:
            raise DataError(f"{self.index.origin}: these samples have no target")
        return decode_mask(self.index.mask_path(i), self.target).numpy()

    def original_size(self, i: int) -> tuple[int, int]:
        """Height and width of the image file of row i, after its EXIF orientation.

        Raises:
            DataError: The file cannot be read.
        """
        header = read_header(self.index.image_path(i))
        return header.height, header.width

    def teardown(self, stage: str | None = None) -> None:
        """Stop threads, close stores and free decoded images; loaders open them again when they are needed."""
        self._stop()
        for mode in self._modes.values():
            mode.close()
        self._modes.clear()

    def on_exception(self, exception: BaseException) -> None:
        """Stop the threads: Lightning closes the loader of the loop that failed, not of those around it."""
        self._stop()

    def _stop(self) -> None:
        for loader in self._loaders.values():
            loader.close()

    def _ranks(self) -> int:
        """Processes on this machine."""
        return 1 if self.trainer is None else max(1, int(self.trainer.num_devices))

    def _threads(self) -> int:
        return self.preprocessing.decode_threads or divide(available_cores(), self._ranks())

    def _mode(self, split: Split) -> Mode:
        if split not in self._modes:
            rows = self.index.rows(split)
            decoder = self._train_decoder if split == "train" else self._decoder

            def pixels() -> Mode:
                mode = open_mode(decoder, rows, self._ranks())
                if self.preprocessing.mode == "eager":
                    self._prepare(mode, split)
                return mode

            cache = self._embeddings
            self._modes[split] = pixels() if cache is None else cache.open(decoder, rows, pixels)
        return self._modes[split]

    def _eval_loader(self, split: Split) -> Loader | list[Loader]:
        if not len(self.index.rows(split)):
            return []
        return self._loader(split, self._mode(split), self.eval_batch_size)

    def _loader(self, name: str, mode: Mode, batch_size: int, train: bool = False, shuffle: bool = False) -> Loader:
        if name not in self._loaders:
            self._loaders[name] = Loader(
                mode,
                batch_size,
                train=train,
                shuffle=shuffle,
                seed=self.seed,
                repeats=self.repeats if train else 1,
                items=self.num_items_per_epoch if train else None,
                prefetch=self.preprocessing.prefetch_size,
                on_bad_image=self.preprocessing.on_bad_image,
            )
        loader = self._loaders[name]
        # The mode was closed by teardown, and the accelerator is known only now.
        loader.mode, loader.threads = mode, self._threads()
        loader.pin_memory = self._pins_memory()
        return loader

    def _pins_memory(self) -> bool:
        trainer = self.trainer
        return trainer is not None and torch.cuda.is_available() and isinstance(trainer.accelerator, CUDAAccelerator)
