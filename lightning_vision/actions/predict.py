"""The action predict: what a model makes of images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lightning_vision import garbage
from lightning_vision.actions.arguments import checkpoint_of, composed_with_keys, required
from lightning_vision.actions.models import build_parts, module_of, untrained_plan
from lightning_vision.data.sources.video import Video, is_video
from lightning_vision.errors import ConfigError, listed
from lightning_vision.extras import require
from lightning_vision.resolve import plain
from lightning_vision.settings import for_checkpoint, to_predict

Source = str | list[str] | Iterator[Any]

if TYPE_CHECKING:
    from lightning_vision.inference.prediction import Prediction
    from lightning_vision.module import VisionModule


def run(cfg: DictConfig) -> None:
    """Carry out the action."""
    predict_to_folder(checkpoint_of(cfg), required(cfg, "source", "source=photos/"), cfg)


def predict(
    model: str | Path | VisionModule | None,
    source: Any,
    config: DictConfig | Sequence[str] | None = None,
    receive: Callable[[Prediction], None] | None = None,
    **choices: Any,
) -> list[Prediction]:
    """Predict images, in bounded memory: batch by batch, and what is no file yet part by part.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``. None: the pretrained model that the config
            names, with a decoder that needs no training (``decoder="pretrained"`` or ``"zero_shot"``).
        source: A file, folder, glob, table or video; or a list, generator or any iterable of paths, arrays (uint8
            ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``) or PIL images; or one array or PIL image; or one array of many
            images, ``(N, ...)``. Numbers in the names of a folder or glob count by their value.
        config: Overrides of batch_size and trainer; all else comes from the checkpoint. ``save=["embeddings"]`` puts
            the encoder's embedding into each prediction, ``"probabilities"`` those of every pixel of a mask.
        receive: Called with each Prediction, as soon as its batch is done, in place of keeping them all: what 100,000
            masks would take no memory has room for.
        choices: The same by name.

    Returns:
        One Prediction an image, in the order of the source: class probabilities, or a mask at the image's own size.
        Images that are no files are called ``image#000000``, ``image#000001`` ..., frames ``clip.mp4#000000``. With
        ``receive`` an empty list.

    Raises:
        DataError: Nothing was found, an image is unreadable, or a film breaks off. With
            ``overrides={"preprocessing.on_bad_image": "skip"}`` it is left out instead, so that there are fewer
            predictions than images; compare their paths.
    """
    cfg, keys = composed_with_keys(config, choices, "predict")
    _refuse_files(cfg, keys)
    predictions: list[Prediction] = []
    images = _images(source)
    module, settings, images = _to_predict(model, images, cfg, keys)
    from lightning_vision.inference.run import predict_images

    predict_images(module, images, settings, predictions.append if receive is None else receive)
    for found in predictions:
        for one in (found, *found.outputs.values()):
            one.file = None if one.file else one.file  # what was written for the prediction is gone
    return predictions


def _refuse_files(cfg: DictConfig, keys: Sequence[str]) -> None:
    """Refuse settings of files, where predictions are returned and no file is written."""
    typed = [key for key in ("output_dir", "table") if key in keys]
    if typed or "overlays" in (cfg.get("save") or ()):
        raise ConfigError(
            "In Python predictions are returned, and no file is written.",
            given=listed(typed) if typed else "save=overlays",
            expected="save=probabilities, save=embeddings",
            override="python -m lightning_vision predict checkpoint=FILE source=PATH output_dir=FOLDER",
        )


def predict_to_folder(model: str | None, source: str, cfg: DictConfig) -> None:
    """Write ``predictions/`` in the run folder."""
    keys = composed_with_keys(cfg, {}, "predict")[1]
    if cfg.get("table") == "parquet":
        require("parquet", "pyarrow", needs="A Parquet table needs", given="table=parquet", instead=["table=csv"])
    if is_video(source):
        require("video", "av", needs="Videos need", given=f"source={source}")
    module, settings, _ = _to_predict(model, source, cfg, keys)
    from lightning_vision.inference.run import predict_to_folder

    garbage.release()
    predict_to_folder(module, source, settings)


def _images(source: Any) -> Source:
    """A path or pattern, a list of paths, or an iterator of images of any kind."""
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, list | tuple) and all(isinstance(image, str | Path) for image in source):
        from lightning_vision.data.sources.memory import spool

        return spool(source)
    one = not hasattr(source, "__iter__") or getattr(source, "ndim", 4) < 4 or isinstance(source, bytes | Mapping)
    return iter([source] if one else source)


def _to_predict(
    model: str | Path | VisionModule | None,
    source: Source,
    cfg: DictConfig,
    keys: Sequence[str],
) -> tuple[VisionModule, dict[str, Any], Source]:
    """The model, its settings, and the images; an untrained model has the settings of the config."""
    if model is None:
        with tempfile.TemporaryDirectory(prefix="lightning_vision-") as folder:
            looked_at, source = _looked_at(source, folder)
            plan = untrained_plan(cfg, looked_at)
            return build_parts(plan)[0], to_predict(plan.config, keys), source
    module, saved = module_of(model)
    return module, to_predict(for_checkpoint(saved, plain(cfg), [*keys, "source"]), keys), source


def _looked_at(source: Source, folder: str) -> tuple[str | list[str], Source]:
    """What tells the size of the images before any is predicted, and the images: of a stream, the first one tells."""
    if isinstance(source, str | list) and not is_video(source):
        return source, source
    from lightning_vision.data.sources.memory import spool

    assert not isinstance(source, list)
    images: Iterator[Any] = Video(source).frames() if isinstance(source, str) else source
    first = next(images, None)
    found = [] if first is None else spool([first], folder)
    return found, source if isinstance(source, str) else chain([] if first is None else [first], images)
