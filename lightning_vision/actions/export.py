"""The action export: a trained model in files for other programs, and for the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lightning_vision import garbage, runfolder
from lightning_vision.actions.arguments import checkpoint_of, composed_with_keys
from lightning_vision.actions.models import build_parts, load, untrained_plan
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.extras import require
from lightning_vision.resolve import plain
from lightning_vision.settings import for_checkpoint

if TYPE_CHECKING:
    from lightning_vision.inference.export import Exported
    from lightning_vision.module import VisionModule

FORMATS = ("onnx", "torch", "hub")


def run(cfg: DictConfig) -> None:
    """Carry out the action."""
    keys = composed_with_keys(cfg, {}, "export")[1]
    formats = formats_of(cfg.format, cfg.push)
    checkpoint = checkpoint_of(cfg)
    folder = Path(cfg.output_dir) / "export"
    if checkpoint is None:
        export(build_parts(untrained_plan(cfg))[0], folder, formats, cfg.push)
        return
    runfolder.find_checkpoint(checkpoint)
    module = load(checkpoint)
    # The data may have moved since, and be typed anew; what is decided by the checkpoint is refused here.
    module.config = for_checkpoint(module.config, plain(cfg), keys)
    _export(module, folder, formats, cfg.push, Path(checkpoint))


def export(
    model: str | Path | VisionModule,
    folder: str | Path,
    format: str | Sequence[str] = "onnx",
    push: str | None = None,
) -> dict[str, Exported]:
    """Write a trained model in files for other programs, and run them beside it on images of its data.

    Args:
        model: Path of a checkpoint, or a module from ``fit`` or ``load``.
        folder: Where to; it is made, and files of the same names are replaced.
        format: ``onnx``, ``torch`` (torch.export), ``hub`` (safetensors, config and model card), ``all``, or several.
        push: ``owner/name`` of a repository of the Hugging Face Hub that ``hub`` is uploaded to.

    Returns:
        File, sizes that it takes and largest differences from the checkpoint, for ``onnx`` and ``torch``.

    Raises:
        ConfigError: There is no such format, a package or the token is missing, or the model cannot be exported.
        CheckpointError: The checkpoint is missing or unreadable.
    """
    formats = formats_of(format, push)
    if isinstance(model, str | Path):
        return _export(load(model), Path(folder).expanduser(), formats, push, Path(model))
    return _export(model, Path(folder).expanduser(), formats, push, None)


def formats_of(given: str | Sequence[str], push: str | None = None) -> tuple[str, ...]:
    """The formats in their order, each once; what they need is looked for before anything is loaded.

    Raises:
        ConfigError: There is no such format, or a package or the token is missing.
    """
    words = [given] if isinstance(given, str) else list(given)
    for word in words:
        if word not in (*FORMATS, "all"):
            near = nearest(word, (*FORMATS, "all"))
            raise ConfigError(
                "There is no such format to export.",
                given=f"format={word}",
                expected=listed((*FORMATS, "all")),
                nearest=near,
                override=f"format={near or 'onnx'}",
            )
    formats = tuple(name for name in FORMATS if name in words or "all" in words)
    if not formats:
        raise ConfigError(
            "Nothing is to be exported.", given="format=[]", expected=listed(FORMATS), override="format=onnx"
        )
    if "onnx" in formats:
        require("onnx", "onnx", "onnxscript", "onnxruntime", needs="format=onnx needs", instead=["format=torch"])
    if push is not None:
        _check_push(push, formats)
    return formats


def _check_push(push: str, formats: Sequence[str]) -> None:
    owner, _, name = push.partition("/")
    if not owner or not name or "/" in name:
        raise ConfigError(
            "A repository of the hub has an owner and a name.", given=f"push={push}", override="push=owner/name"
        )
    if "hub" not in formats:
        raise ConfigError(
            "Only the format hub is uploaded.",
            given=f"push={push} with format={formats[0]}",
            override=[f"format=hub push={push}", "push=null"],
        )
    from lightning_vision.inference.hub_token import require_token

    require_token()


def _export(
    module: VisionModule, folder: Path, formats: Sequence[str], push: str | None, origin: Path | None
) -> dict[str, Exported]:
    from lightning_vision.inference.export import FILES, export_model

    garbage.release()
    found = export_model(module, folder, formats, origin)
    if push is not None:
        from lightning_vision.inference.hub import push_folder

        print(f"uploaded: {push_folder(folder / FILES['hub'], push)}")
    return found
