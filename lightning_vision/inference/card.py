"""The model card: what a model is, what it was trained on, how good it is, how it is used, where it is weak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_vision.inference.agreement import Images
from lightning_vision.metrics.bootstrap import ENDS
from lightning_vision.runfolder import figures_of

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule

# The hub's words for what a model does.
PIPELINES = {
    "classification": "image-classification",
    "multilabel": "image-classification",
    "open_set": "image-classification",
    "segmentation": "image-segmentation",
    "embedding": "image-feature-extraction",
    "anomaly": "image-classification",
}
# Figures a class by which the weakest are named, the first that there is.
OF_CLASSES = ("iou", "f1", "average_precision", "recall", "accuracy")
MOST_CLASSES, MOST_WEAK = 40, 5


def model_card(
    module: VisionModule, config: Mapping[str, Any], report: Mapping[str, Any], images: Images, origin: Path | None
) -> str:
    """Write the text of the card, with the hub's block of YAML before it. The licence is left to its owner.

    Args:
        module: The model.
        config: Its config, without paths of the machine.
        report: What a consumer must know, as in ``export.json``.
        images: Of the data, with their counts.
        origin: The checkpoint; epochs are taken from the run folder around it, and figures if they are its own.
    """
    run = None if origin is None else origin.expanduser().absolute().parent.parent
    figures = {} if origin is None else figures_of(origin)
    front = yaml.safe_dump(_front(module, figures), sort_keys=False, allow_unicode=True)
    sections = {
        "": _summary(module, config),
        "Data": _data(module, config, images),
        "Figures": _figure_lines(figures),
        "Use": _use(report),
        "Training": _training(config, run),
        "Limitations": _limitations(module, report, figures),
    }
    text = "\n\n".join(f"## {title}\n\n{body}" if title else body for title, body in sections.items())
    return f"---\n{front}---\n\n# {config['encoder']['_target_'].rpartition('.')[2]}, {_decoders(config)}\n\n{text}\n"


def _front(module: VisionModule, figures: Mapping[str, float]) -> dict[str, Any]:
    tasks = [head.task.name for _, head in module.named_heads()]
    return {
        "library_name": "lightning_vision",
        "pipeline_tag": PIPELINES[tasks[0]],
        "tags": ["lightning_vision", "pytorch", *dict.fromkeys(tasks)],
        "metrics": [key.removeprefix("test/") for key in _overall(figures)],
    }


def _decoders(config: Mapping[str, Any]) -> str:
    from lightning_vision.outputs import outputs_of

    return ", ".join(node["decoder"]["_target_"].rpartition(".")[2] for node in outputs_of(config).values())


def _summary(module: VisionModule, config: Mapping[str, Any]) -> str:
    count = sum(p.numel() for p in module.parameters())
    tasks = ", ".join(f"{name}: {head.task.name}" for name, head in module.named_heads())
    several = len(module.named_heads()) > 1
    geometry = module.geometry
    return (
        f"A model for {tasks if several else module.task.name}, of {count / 1e6:.2f} million parameters, trained with "
        f"lightning_vision on images of {geometry.height} x {geometry.width} pixels and {geometry.num_channels} "
        f"channels."
    )


def _data(module: VisionModule, config: Mapping[str, Any], images: Images) -> str:
    data = config["data"]
    source = data["_target_"].rpartition(".")[2]
    named = data.get("path") or data.get("name")
    lines = [f"- {Path(str(named)).name if named else 'built in'} ({source})"]
    if images.counts is not None:
        lines.append("- " + ", ".join(f"{count} {split}" for split, count in images.counts.items()))
    for name, head in module.named_heads():
        classes = head.task.target.class_names
        shown = ", ".join(classes[:MOST_CLASSES]) + (", …" if len(classes) > MOST_CLASSES else "")
        of = f"{name}: " if len(module.named_heads()) > 1 else ""
        lines.append(f"- {of}{len(classes)} classes: {shown}" if classes else f"- {of}no classes")
    return "\n".join(lines)


def _overall(figures: Mapping[str, float]) -> list[str]:
    """Keys of the test's overall figures: not of classes, not the ends of intervals."""
    ends = {key.rpartition("/")[0] for key in figures if key.rpartition("/")[2] in ENDS}
    return [key for key in figures if key.startswith("test/") and (key.count("/") == 1 or key in ends)]


def _figure_lines(figures: Mapping[str, float]) -> str:
    overall = _overall(figures)
    if not overall:
        return "None are known: its run folder holds no figures of this checkpoint."
    rows = ["| figure (test split) | value | 95 % interval |", "|---|---|---|"]
    for key in overall:
        low, high = (figures.get(f"{key}/{end}") for end in ENDS)
        interval = f"{low:.4g} to {high:.4g}" if low is not None and high is not None else ""
        rows.append(f"| {key.removeprefix('test/')} | {figures[key]:.4g} | {interval} |")
    return "\n".join(rows)


def _use(report: Mapping[str, Any]) -> str:
    outputs = ", ".join(f"`{name}`" for name in report["outputs"])
    lines = [
        "```python",
        "import lightning_vision as lv",
        'model = lv.load("FOLDER")  # this folder',
        'predictions = lv.predict("FOLDER", "photos/")',
        "```",
    ]
    for name, known in report.get("files", {}).items():
        lines += ["", f"`{name}` (in the folder above, not uploaded): takes {known['takes']}; outputs {outputs}."]
        lines += [known["use"]] if "use" in known else []
    size, resize = report["image_size"], report["resize"]
    lines += [
        "",
        f"Images are brought to {size[0]} x {size[1]} pixels ({resize['method']}, {resize['filter']}, antialiased) and "
        "given as uint8; the normalisation is inside.",
    ]
    return "\n".join(lines)


def _training(config: Mapping[str, Any], run: Path | None) -> str:
    table = None if run is None else run / "metrics.csv"
    epochs = None
    if table is not None and table.is_file():
        epochs = max(0, len(table.read_text(encoding="utf-8").splitlines()) - 1)
    trained = f"{epochs} of at most {config['epochs']} epochs" if epochs else f"at most {config['epochs']} epochs"
    optimizer = config["optimizer"]
    name = optimizer["_target_"].rpartition(".")[2]
    return (
        f"{trained}, batch size {config['batch_size']}, {name} with a learning rate "
        f"of {optimizer['lr']}, seed {config['seed']}. Everything else stands in `config.yaml`."
    )


def _limitations(module: VisionModule, report: Mapping[str, Any], figures: Mapping[str, float]) -> str:
    size = report["image_size"]
    lines = [f"- Trained on images of {size[0]} x {size[1]} pixels: others were not tried."]
    lines += [f"- `{name}` takes {known['takes']}." for name, known in report.get("files", {}).items()]
    for name, _ in module.named_heads():
        prefix = f"test/{module.prefix(name)}"
        for figure in OF_CLASSES:
            classes = [c for c in module.head(name).task.target.class_names if f"{prefix}{figure}/{c}" in figures]
            if classes:
                weak = sorted(classes, key=lambda c: figures[f"{prefix}{figure}/{c}"])[:MOST_WEAK]
                shown = ", ".join(f"{c} ({figures[f'{prefix}{figure}/{c}']:.2f})" for c in weak)
                lines.append(f"- Weakest classes by {figure.replace('_', ' ')}: {shown}.")
                break
    if not figures:
        lines.append("- How good it is was not written down.")
    return "\n".join(lines)
