"""A trained model in files that need none of this package: ONNX, torch.export, or a folder for the hub."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from lightning_vision.errors import ConfigError
from lightning_vision.inference.agreement import TOLERANCE, Images, Run, differences, images_of
from lightning_vision.inference.exported import INPUT, ExportedModel, describe
from lightning_vision.inference.graph import LADDER, Allowed, allowed, capture, quiet
from lightning_vision.reports.files import cannot_write

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule

# The newest one that the runtimes of several years take.
OPSET = 18
FILES = {"onnx": "model.onnx", "torch": "model.pt2", "hub": "hub"}
REPORT = "export.json"
# How each file is run, for ``export.json`` and the card. The weights of torch's still take gradients.
USE = {
    "onnx": "`onnxruntime.InferenceSession(FILE).run(None, {'image': uint8_array})`",
    "torch": "`with torch.no_grad(): torch.export.load(FILE).module()(uint8_tensor)`",
}


class ExportError(ConfigError):
    """A model cannot be exported, or its export gives other numbers."""


@dataclass
class Exported:
    """What was exported.

    Args:
        path: The file.
        allowed: The images that it takes.
        differences: Largest difference of each output from the checkpoint.
        reasons: Why the steps above on the ladder were not possible.
    """

    path: Path
    allowed: Allowed
    differences: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        """Largest difference of all outputs."""
        return max(self.differences.values())

    def __str__(self) -> str:
        line = f"{self.path.name}: {self.allowed}; differs from the checkpoint by {self.largest:.1e} at most"
        if self.reasons:
            line += f"\n  not of any size: {next(iter(self.reasons.values()))}"
        return line


def export_graphs(module: VisionModule, folder: Path, formats: Sequence[str], images: Images) -> dict[str, Exported]:
    """Write ``model.onnx`` and ``model.pt2``, and run each beside the checkpoint.

    Args:
        module: A model with its weights, in eval mode.
        folder: Where to; it exists.
        formats: Of ``onnx`` and ``torch``.
        images: What both are given.

    Returns:
        What was exported, by format.

    Raises:
        ExportError: torch or the format does not take the model, or the numbers differ.
    """
    exported = ExportedModel(module)
    known = describe(exported)
    programs: dict[str, ExportedProgram] = {}
    return {name: _export(exported, known, folder / FILES[name], name, images, programs) for name in formats}


def _export(
    exported: ExportedModel,
    known: dict[str, Any],
    path: Path,
    name: str,
    images: Images,
    programs: dict[str, ExportedProgram],
) -> Exported:
    """Try the steps of the ladder from the top; what was captured for one format serves the other."""
    reasons: dict[str, str] = {}
    for sizes in LADDER:
        taken = allowed(exported, sizes)
        try:
            if sizes not in programs:
                programs[sizes] = capture(exported, taken)
            write, load = WAYS[name]
            write(programs[sizes], exported, {**known, "sizes": asdict(taken)}, path)
            found = differences(exported, load(path), images, taken)
        except Exception as error:  # torch, the exporters and the runtime raise nearly every type
            reasons[sizes] = _first_line(error)
            continue
        done = Exported(path, taken, found, reasons)
        # Numbers that differ are never a matter of the sizes alone to pass over.
        if done.largest > TOLERANCE:
            raise ExportError(
                "The exported model gives other numbers than the checkpoint, so it was not kept.",
                given=f"{path.name}: {', '.join(f'{k} differs by {v:.2g}' for k, v in found.items())}",
                expected=f"at most {TOLERANCE:g}, relative to the largest value",
                override="format=hub",
            )
        return done
    raise ExportError(
        f"The model cannot be exported as {name}.",
        given=reasons[LADDER[-1]],
        override=[f"format={other}" for other in FILES if other != name],
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


def _write_torch(program: ExportedProgram, exported: ExportedModel, known: dict[str, Any], path: Path) -> None:
    with quiet():
        torch.export.save(program, path, extra_files={"lightning_vision.json": json.dumps(known, ensure_ascii=False)})


def _load_torch(path: Path) -> Run:
    with quiet():
        module = torch.export.load(path).module()

    def run(images: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            found: Sequence[Tensor] = module(images)
        return found

    return run


def _write_onnx(program: ExportedProgram, exported: ExportedModel, known: dict[str, Any], path: Path) -> None:
    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(exported.names),
            verbose=False,
        )
        assert made is not None
        axes = zip(made.model.graph.inputs[0].shape or (), ("batch", "channels", "height", "width"), strict=True)
        made.rename_axes({str(axis.value): name for axis, name in axes if not isinstance(axis, int)})
        for key, value in known.items():
            made.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
        made.save(path)


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what it cannot run it raises
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(found) for found in session.run(None, {INPUT: images.numpy()})]

    return run


Write = Callable[[ExportedProgram, ExportedModel, dict[str, Any], Path], None]
WAYS: dict[str, tuple[Write, Callable[[Path], Run]]] = {
    "torch": (_write_torch, _load_torch),
    "onnx": (_write_onnx, _load_onnx),
}


def export_model(
    module: VisionModule, folder: Path, formats: Sequence[str], origin: Path | None = None
) -> dict[str, Exported]:
    """Write a model in one or more formats, ``export.json`` and, for ``hub``, a folder with its model card.

    Everything is made in a folder beside, and moved into place when all of it is there and agrees.

    Args:
        module: A model with its weights.
        folder: Where to; files of the same names are replaced.
        formats: Of ``onnx``, ``torch``, ``hub``.
        origin: The checkpoint, whose run folder holds the figures for the card.

    Returns:
        The graphs that were exported, by format.

    Raises:
        ExportError: torch or a format does not take the model, or the numbers differ; nothing is kept.
        DataError: The folder cannot be written.
    """
    from lightning_vision.inference.hub import check_hub_folder, write_hub_folder

    training = module.training
    device = module.device
    module.eval().cpu()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
            place = Path(temporary)
            images = images_of(module)
            print(f"compared on {images.origin}")
            graphs = export_graphs(module, place, [name for name in formats if name != "hub"], images)
            report = {
                **describe(ExportedModel(module)),
                "compared_on": images.origin,
                "tolerance": TOLERANCE,
                "files": {
                    graph.path.name: {
                        **asdict(graph.allowed),
                        "takes": str(graph.allowed),
                        "max_difference": graph.differences,
                        "not_possible": graph.reasons,
                        "use": USE[name],
                        **({"opset": OPSET} if name == "onnx" else {}),
                    }
                    for name, graph in graphs.items()
                },
            }
            if "hub" in formats:
                write_hub_folder(module, place / FILES["hub"], report, images, origin)
                check_hub_folder(module, place / FILES["hub"], images)
            (place / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            for made in sorted(place.iterdir()):
                _move(made, folder / made.name)
    except OSError as error:
        raise cannot_write(folder / REPORT, error) from error
    finally:
        module.train(training).to(device)
    for graph in graphs.values():
        print(graph)
    if "hub" in formats:
        print("hub: loads to the same outputs, to the bit")
    print(f"exported: {folder}")
    return {name: Exported(folder / g.path.name, g.allowed, g.differences, g.reasons) for name, g in graphs.items()}


def _move(made: Path, target: Path) -> None:
    """Put what was made in its place; what else the folder for the hub holds, such as a licence, stays."""
    if made.is_dir():
        target.mkdir(exist_ok=True)
        for file in sorted(made.iterdir()):
            file.replace(target / file.name)
        return
    made.replace(target)
