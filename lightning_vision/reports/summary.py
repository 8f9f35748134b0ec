"""The summary of a model: what it consists of, how fast it learns, what it costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_vision.reports.files import whole_file
from lightning_vision.reports.table import Table, show_tables
from lightning_vision.reports.text import shorten

if TYPE_CHECKING:
    from lightning_vision.reports.architecture import Part, Rate, Row
    from lightning_vision.tuning.cost import Cost
    from lightning_vision.types import Geometry

WIDEST = 32  # characters of a name, so that a line has at most 100


@dataclass
class Summary:
    """What a model consists of and costs.

    Args:
        geometry: The images.
        classes: Number of classes of each output, by name.
        parts: Encoder, necks, decoders, and losses with weights.
        rates: Learning rates.
        optimizer: Name of the optimizer.
        cost: Memory and time, unless nothing was measured.
    """

    geometry: Geometry
    classes: dict[str, int]
    parts: list[Part]
    rates: list[Rate]
    optimizer: str
    cost: Cost | None = None

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(part.total.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        """Of these, how many are trained."""
        return sum(part.total.trained for part in self.parts)

    @property
    def multiply_adds(self) -> int:
        """Of a forward pass of one image."""
        return sum(part.total.multiply_adds for part in self.parts)

    @property
    def title(self) -> str:
        """What goes in and what comes out."""
        g = self.geometry
        several = f"{g.num_inputs} images of " if g.num_inputs > 1 else ""
        channels = "1 channel" if g.num_channels == 1 else f"{g.num_channels} channels"
        counts = {name: f"{count} classes" if count else "no labels" for name, count in self.classes.items()}
        single = len(counts) == 1
        classes = ", ".join(text if single else f"{name} {text}" for name, text in counts.items())
        return f"{several}{g.height} x {g.width} pixels, {channels}; {classes}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        totals = {"parameters": self.parameters, "trained": self.trained, "multiply_adds": self.multiply_adds}
        return asdict(self) | totals

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def write(self, path: Path) -> None:
        """Write the JSON to a file, which appears whole or not at all.

        Raises:
            DataError: The folder cannot be written.
        """
        with whole_file(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    def show_model(self) -> None:
        """Print what the model consists of and how fast it learns."""
        show_tables([self._model(), *([self._learning()] if self.rates else [])])

    def show_cost(self) -> None:
        """Print memory and time."""
        if self.cost is not None:
            print()
            show_tables([_cost(self.cost)])

    def _model(self) -> Table:
        head = ["", "stride", "channels", "map", "parameters", "trained", "mult-adds"]
        rows = []
        for part in self.parts:
            of = f" of {part.output}" if part.output else ""
            name = shorten(f"{part.role}{of}: {part.kind}", WIDEST)
            rows.append([name, "", "", "", *_counts(part.total)])
            rows += [[shorten(f"  {row.name}", WIDEST), *_shape(row), *_counts(row)] for row in part.rows]
        rows.append(["total", "", "", "", *_counts_of(self.parameters, self.trained, self.multiply_adds)])
        return self.title, head, rows, "mult-adds: of one image, in convolutions, matrix products and attention"

    def _learning(self) -> Table:
        rows = []
        for rate in self.rates:
            lr = f"{rate.lr:.3g}" if rate.layers == 1 else f"{rate.lr:.3g} to {rate.lowest:.3g}"
            layers = str(rate.layers) if rate.layers > 1 else ""
            rows.append([rate.name.replace("_", " "), lr, layers, f"{rate.weight_decay:g}", f"{rate.parameters:,}"])
        head = ["learning rates", "rate", "layers", "weight decay", "parameters"]
        return f"optimizer: {self.optimizer}", head, rows, ""


def _cost(cost: Cost) -> Table:
    size, timed = cost.batch_size, cost.timed_batch_size
    fewer = f" of {timed} images" if timed < size else ""
    rows = [
        ["weights", nbytes(cost.weights), ""],
        ["gradients", nbytes(cost.gradients), ""],
        ["state of the optimizer", nbytes(cost.optimizer), ""],
        ["activations kept for the backward pass", nbytes(cost.activations), ""],
        ["most at once, weights and optimizer included", nbytes(cost.peak), ""],
    ]
    times = [("forward pass", cost.forward), ("training step", cost.step), ("... of cached features", cost.cached_step)]
    rows += [[f"{name}{fewer}", duration(s), f"{_rate(timed / s)} images/s"] for name, s in times if s is not None]
    note = "memory of tensors, counted during a step with noise for images"
    if timed < size:
        note += f", extended from {timed}: {size} do not fit"
    free = "" if cost.free is None else f", {nbytes(cost.free)} free"
    return f"{size} images on {cost.device}, {cost.precision}{free}", ["", "", ""], rows, note


def _shape(row: Row) -> list[str]:
    stride = "" if row.stride is None else f"{row.stride:.3g}"
    channels = "" if row.channels is None else str(row.channels)
    return [stride, channels, "" if row.size is None else f"{row.size[0]} x {row.size[1]}"]


def _counts(row: Row) -> list[str]:
    return _counts_of(row.parameters, row.trained, row.multiply_adds)


def _counts_of(parameters: int, trained: int, multiply_adds: int) -> list[str]:
    return [f"{parameters:,}", share(trained, parameters), scaled_count(multiply_adds)]


def share(part: int, whole: int) -> str:
    """A share in words: all is ``all``, and nothing less is."""
    if not whole:
        return ""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(max(100 * part / whole, 0.01), 99.9):.3g} %"


def nbytes(count: int) -> str:
    """Bytes with three digits: 950 B, 12.3 MiB."""
    return _scaled(count, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def duration(seconds: float) -> str:
    """Seconds with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _rate(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def scaled_count(count: float) -> str:
    """A count with three digits: 950, 12.3 k, 4.10 G."""
    return _scaled(count, 1000, ("", " k", " M", " G", " T"))


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    i = 0
    while count >= 999.5 and i + 1 < len(units):
        count, i = count / base, i + 1
    digits = 0 if not i or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f}{units[i]}" if count else ""
