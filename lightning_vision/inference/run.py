"""Prediction of many images, from their paths to what is done with each result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_vision.assembly import build_data, build_trainer
from lightning_vision.config import instantiate
from lightning_vision.data.sources.files import FilesSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.inference.prediction import Prediction
from lightning_vision.inference.predictor import PredictionStream
from lightning_vision.interruption import interruptible
from lightning_vision.module import VisionModule
from lightning_vision.runfolder import left_out, tell


def predict_images(
    module: VisionModule,
    source: str | Sequence[str],
    settings: Mapping[str, Any],
    receive: Callable[[Prediction], None],
) -> list[tuple[str, str]]:
    """Predict every image of the source, in its order.

    Args:
        module: A model with its weights.
        source: A file, folder, pattern or table; or a list of paths.
        settings: The config of the checkpoint, with what was typed beside it.
        receive: Called with each prediction.

    Returns:
        Path and reason of the images that were skipped (``preprocessing.on_bad_image=skip``).

    Raises:
        ConfigError: More than one process: predictions are written by one, in the order of the images.
        DataError: Nothing was found, or an image is unreadable.
    """
    devices, nodes = (settings["trainer"].get(name, 1) for name in ("devices", "num_nodes"))
    if str(devices) != "1" or nodes != 1:
        raise ConfigError(
            "predict runs on one device.",
            given=f"trainer.devices={devices}, trainer.num_nodes={nodes}",
            override="trainer.devices=1 trainer.num_nodes=1",
        )
    preprocessing = instantiate(settings["preprocessing"])
    index = FilesSource(source, settings["data"].get("inputs")).read(
        None, settings["seed"], preprocessing=preprocessing
    )
    tell(index.problems)
    data = build_data(index, module.geometry, preprocessing, settings)
    quiet = {**settings, "callbacks": {}, "logger": {}}
    trainer = build_trainer(quiet, enable_progress_bar=False, callbacks=[PredictionStream(receive)])
    with interruptible(trainer):
        trainer.predict(module, data, return_predictions=False)
    return data.bad


def predict_to_folder(module: VisionModule, source: str, settings: dict[str, Any]) -> None:
    """Write ``predictions/`` in the run folder: a table, masks with overlays, or what else the task predicts.

    Several outputs have a folder each. Bad images are named.
    """
    settings["preprocessing"]["on_bad_image"] = "skip"
    folder = Path(settings["output_dir"]) / "predictions"
    place = Path(source).expanduser().absolute()
    root = place if place.is_dir() else None
    heads = module.named_heads()
    count = 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(head.task.writer(folder if len(heads) == 1 else folder / name, root))
            for name, head in heads
        }

        def receive(prediction: Prediction) -> None:
            nonlocal count
            count += 1
            for name, writer in writers.items():
                writer.add(prediction.outputs.get(name, prediction))

        bad = predict_images(module, source, settings, receive)
        if not count and bad:
            raise DataError(f"{source}: none of {len(bad)} images can be read", given=": ".join(bad[0]))
    print(f"{count} images predicted: {folder}")
    left_out(bad)
