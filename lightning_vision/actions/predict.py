"""The action predict: what a model makes of images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.actions.arguments import checkpoint_of, composed_with_keys, required
from lightning_vision.actions.models import build_parts, module_of, untrained_plan
from lightning_vision.resolve import plain
from lightning_vision.settings import for_checkpoint, to_predict

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
    **choices: Any,
) -> list[Prediction]:
    """Predict images.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``. None: the pretrained model that the config
            names, with a decoder that needs no training (``decoder="pretrained"`` or ``"zero_shot"``).
        source: A file, folder, glob or table; or a list of paths, arrays (uint8 ``(H, W)``, ``(H, W, C)`` or
            ``(C, H, W)``) or PIL images; or one array or PIL image; or one array of many images, ``(N, ...)``.
        config: Overrides of batch_size and trainer; all else comes from the checkpoint.
        choices: The same by name.

    Returns:
        One Prediction an image, in the order of the source: class probabilities, or a mask at the image's own size.

    Raises:
        DataError: Nothing was found, or an image is unreadable. With ``overrides={"preprocessing.on_bad_image":
            "skip"}`` it is left out instead, so that there are fewer predictions than images; compare their paths.
    """
    cfg, keys = composed_with_keys(config, choices)
    predictions: list[Prediction] = []
    with ExitStack() as stack:
        if not isinstance(source, str | Path):
            from lightning_vision.data.sources.memory import spool

            many = isinstance(source, list | tuple) or getattr(source, "ndim", 0) == 4
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="lightning_vision-"))
            source = spool(list(source) if many else [source], Path(folder))
        else:
            source = str(source)
        module, settings = _to_predict(model, source, cfg, keys)
        from lightning_vision.inference.run import predict_images

        runfolder.left_out(predict_images(module, source, settings, predictions.append))
    return predictions


def predict_to_folder(model: str | None, source: str, cfg: DictConfig) -> None:
    """Write ``predictions/`` in the run folder."""
    module, settings = _to_predict(model, source, cfg, composed_with_keys(cfg, {})[1])
    from lightning_vision.inference.run import predict_to_folder

    garbage.release()
    predict_to_folder(module, source, settings)


def _to_predict(
    model: str | Path | VisionModule | None, source: str | list[str], cfg: DictConfig, keys: Sequence[str]
) -> tuple[VisionModule, dict[str, Any]]:
    """The model and its settings; an untrained one has those of the config."""
    if model is None:
        plan = untrained_plan(cfg, source)
        return build_parts(plan)[0], to_predict(plan.config, keys)
    module, saved = module_of(model)
    return module, to_predict(for_checkpoint(saved, plain(cfg), [*keys, "source"]), keys)
