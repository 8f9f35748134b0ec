"""Prediction of many images, from where they come from to what is done with each result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_vision.assembly import build_data, build_trainer
from lightning_vision.config import instantiate
from lightning_vision.data.index import SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.data.sources.video import Video, is_video
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.inference.folder import UNREADABLE, PredictionFolder
from lightning_vision.inference.identity import about, file_identity
from lightning_vision.inference.images import Files, Images, Streamed
from lightning_vision.inference.looking import Look
from lightning_vision.inference.output import PLAIN, Output
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.predictor import PredictionStream, Receiver
from lightning_vision.inference.progress import Pace
from lightning_vision.inference.saving import check_save
from lightning_vision.inference.tiled import has_mask
from lightning_vision.interruption import interruptible
from lightning_vision.module import VisionModule
from lightning_vision.overrides import override
from lightning_vision.runfolder import left_out, tell

SHOWN = 20  # unreadable images that are named on the screen


def predict_images(
    module: VisionModule,
    source: str | Sequence[str] | Iterator[Any],
    settings: Mapping[str, Any],
    receive: Callable[[Prediction], None],
) -> None:
    """Predict every image of the source, in its order, and name those that cannot be read.

    Args:
        module: A model with its weights.
        source: A file, folder, pattern, table or video; or a list of paths; or an iterator of images.
        settings: The config of the checkpoint, with what was typed beside it.
        receive: Called with each prediction.

    Raises:
        ConfigError: More than one process: predictions are written by one, in the order of the images; or tiles or
            views that this model cannot have.
        DataError: Nothing was found, an image is unreadable, or a film breaks off.
    """
    receiver, look = _Caller(receive), Look(module, settings)
    output = Output(check_save(settings, module.named_heads()))
    images, preprocessing = open_images(source, settings)
    _predict(module, look, images, preprocessing, settings, receiver, output)
    if images.broken is not None:
        receiver.left_out(*images.broken)
    left_out(receiver.bad, receiver.unreadable)


class _Caller:
    """Hands predictions to a function."""

    def __init__(self, receive: Callable[[Prediction], None]) -> None:
        self.receive = receive
        self.bad: list[tuple[str, str]] = []
        self.unreadable = 0

    def left_out(self, path: str, reason: str) -> None:
        """Keep the first ones, and count the others."""
        self.unreadable += 1
        if self.unreadable <= SHOWN:
            self.bad.append((path, reason))

    def reached(self, row: int) -> None:
        """Nothing to note."""


def predict_to_folder(module: VisionModule, source: str, settings: dict[str, Any]) -> None:
    """Write ``predictions/`` in the run folder: a table, masks with overlays, or what else the task predicts.

    Several outputs have a folder each. Images that cannot be read are named there and on the screen. Where the folder
    holds an interrupted prediction, this one goes on behind its rows.

    Raises:
        ConfigError: What is to be saved the model does not have; or the interrupted prediction was another one.
        DataError: No image can be read.
    """
    settings["preprocessing"]["on_bad_image"] = "skip"
    heads = module.named_heads()
    output = Output(check_save(settings, heads), settings.get("table", "csv"))
    look = Look(module, settings)
    images, preprocessing = open_images(source, settings)
    place = Path(source).expanduser().absolute()
    root = place if place.is_dir() else None
    folder = Path(settings["output_dir"]) / "predictions"
    what = about(module, images.identity(), settings)
    with (
        PredictionFolder(folder, heads, root, output, what) as written,
        _says_how_to_go_on(written),
        Pace(images.total, written.before.row) as pace,
    ):
        if written.before.row:
            print(f"going on behind image {written.before.row}: {folder}", flush=True)
        _predict(module, look, images, preprocessing, settings, _Both(written, pace), output, written.before.row)
        if images.broken is not None:
            written.left_out(*images.broken)
        named = written.first_unreadable(SHOWN)
        if not written.count and named:
            written.discard()
            raise DataError(f"{source}: none of {written.unreadable} images can be read", given=": ".join(named[0]))
    print(f"{written.count} images predicted, {pace.rate:.1f} a second: {folder}")
    left_out(named, written.unreadable, folder / UNREADABLE)


class _Both:
    """Predictions go to the folder, and how far it came is shown."""

    def __init__(self, folder: PredictionFolder, pace: Pace) -> None:
        self.receive, self.left_out = folder.receive, folder.left_out
        self.folder, self.pace = folder, pace

    def reached(self, row: int) -> None:
        """Tell both."""
        self.folder.reached(row)
        self.pace.reached(row)


@contextmanager
def _says_how_to_go_on(written: PredictionFolder) -> Iterator[None]:
    """Say after an interruption or a full disk what is kept, and how to go on."""
    try:
        yield
    except BaseException:
        if row := written.journal.state.row:
            again = override("output_dir", str(written.folder.parent))
            print(f"stopped behind image {row}; the same command with {again} goes on from there", file=sys.stderr)
        raise


def open_images(
    source: str | Sequence[str] | Iterator[Any], settings: Mapping[str, Any]
) -> tuple[Images, Preprocessing]:
    """Look for the images of a source.

    Raises:
        ConfigError: The model takes several images a sample, which only a table names.
        DataError: Nothing was found.
    """
    preprocessing = instantiate(settings["preprocessing"])
    inputs = settings["data"].get("inputs")

    def read(paths: str | Sequence[str]) -> SampleIndex:
        return FilesSource(paths, inputs).read(None, settings["seed"], preprocessing=preprocessing)

    step, size = settings.get("frame_step", 1), settings["batch_size"]
    if is_video(source) and inputs is None:
        video = Video(str(source), step)
        identity = {"images": file_identity(video.path), "frame_step": step}
        tolerant = preprocessing.on_bad_image == "skip"
        return Streamed(video.frames, video.name, read, size, video.count, identity, tolerant), preprocessing
    if step != 1:
        raise ConfigError(
            "Frames are skipped in videos alone.",
            given=f"frame_step={step}" + (f", source={source}" if isinstance(source, str) else ""),
            expected="a video file",
            override="frame_step=1",
        )
    if isinstance(source, Iterator):
        return Streamed(lambda start: source, lambda i: f"image#{i:06d}", read, size), preprocessing
    index = read(source)
    tell(index.problems)
    return Files(index), preprocessing


def _predict(
    module: VisionModule,
    look: Look,
    images: Images,
    preprocessing: Preprocessing,
    settings: Mapping[str, Any],
    receiver: Receiver,
    output: Output = PLAIN,
    start: int = 0,
) -> None:
    """Predict all images from one on."""
    devices, nodes = (settings["trainer"].get(name, 1) for name in ("devices", "num_nodes"))
    if str(devices) != "1" or nodes != 1:
        raise ConfigError(
            "predict runs on one device.",
            given=f"trainer.devices={devices}, trainer.num_nodes={nodes}",
            override="trainer.devices=1 trainer.num_nodes=1",
        )
    stream = PredictionStream(receiver, output.saves("probabilities"))
    quiet = {**settings, "callbacks": {}, "logger": {}}
    trainer = build_trainer(quiet, enable_progress_bar=False, callbacks=[stream])
    module.predicts_embedding = output.saves("embeddings")
    masks_alone = all(has_mask(head) for _, head in module.named_heads())
    try:
        with look, interruptible(trainer):
            for part in images.parts(start):
                stream.part = part
                data = build_data(part.index, module.geometry, preprocessing, settings)
                if look.tiling is not None and masks_alone:
                    data.set_aside = look.tiling.is_larger
                trainer.predict(module, data, return_predictions=False)
    finally:
        module.predicts_embedding = False
