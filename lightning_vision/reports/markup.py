"""Pieces of an HTML page that is one file: escaped text, tables, pictures inside the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from lightning_vision.reports.table import HEADS, figure

# Photographs take a tenth of a PNG as JPEG; charts, whose lines JPEG blurs, are small as PNG.
JPEG_QUALITY = 84
MOST_COLOURS = 256
LONG = 40  # characters that fit beside others


def text(value: object) -> str:
    """Text for between tags and inside quoted attributes; bytes of file names that are no UTF-8 become marks."""
    readable = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return escape(readable, quote=True)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and what they are, without those that are empty."""
    # Long ones, such as paths, have the width of two.
    items = "".join(
        f"<div class={'wide' if len(value) > LONG else 'short'}><dt>{text(term)}</dt><dd>{text(value)}</dd></div>"
        for term, value in pairs
        if value
    )
    return f'<dl class="facts">{items}</dl>'


def picture(path: Path, alt: str) -> str:
    """A picture with its bytes inside the page."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    # Of few colours it is a chart, and otherwise it has photographs in it.
    chart = image.resize((image.width // 4 or 1, image.height // 4 or 1), Image.Resampling.NEAREST)
    if chart.getcolors(chart.width * chart.height // 40 + MOST_COLOURS) is not None:
        kind, data = "png", path.read_bytes()
    else:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
        kind, data = "jpeg", buffer.getvalue()
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<img src="{source}" width="{image.width}" height="{image.height}" alt="{text(alt)}">'


def figure_table(rows: Sequence[tuple[str, float, tuple[float, float] | None]]) -> str:
    """A table of figures by name, with their 95 % intervals."""
    head = '<tr><th scope="col">figure</th><th scope="col">value</th><th scope="col">95 % interval</th></tr>'
    lines = [
        f'<tr><th scope="row">{text(name)}</th><td>{figure(value)}</td>'
        f"<td>{f'{figure(ends[0])} – {figure(ends[1])}' if ends else ''}</td></tr>"
        for name, value, ends in rows
    ]
    return (
        f'<div class="scroll"><table class="figures"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def class_table(counted: str, support: Mapping[str, float], figures: Mapping[str, Mapping[str, float]]) -> str:
    """A table of the classes that a click on its heads sorts; a bar behind each share."""
    heads = ["class", counted, *(HEADS.get(name, name) for name in figures)]
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    lines = []
    for name, count in support.items():
        cells = [_cell(values.get(name, math.nan)) for values in figures.values()]
        row = f'<th scope="row">{text(name)}</th><td data-value="{count:.0f}">{_grouped(count)}</td>'
        lines.append(f"<tr>{row}{''.join(cells)}</tr>")
    body = "".join(lines)
    return (
        f'<div class="scroll"><table class="classes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(value: float) -> str:
    if math.isnan(value):
        return '<td data-value="">–</td>'
    bar = f' style="--share:{100 * value:.1f}%"' if 0 <= value <= 1 else ""
    return f'<td class="share" data-value="{value:.6g}"{bar}>{value:.3f}</td>'


def _grouped(count: float) -> str:
    """A count with thin spaces between the thousands."""
    return f"{count:,.0f}".replace(",", "\u202f")


def headline(name: str, value: float, ends: tuple[float, float] | None) -> str:
    """A figure as what is seen first, with its interval as a band on a line from 0 to 1."""
    shown = "–" if math.isnan(value) else f"{value:.3f}"
    band = below = ""
    if ends is not None:
        low, high = (min(1.0, max(0.0, end)) for end in ends)
        below = f"95 % interval {ends[0]:.3f} – {ends[1]:.3f}"
        band = f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
    if 0 <= value <= 1:
        band = f'<span class="range" aria-hidden="true">{band}<b style="left:{100 * value:.1f}%"></b></span>'
    words = " ".join(HEADS.get(word, word) for word in name.split("_"))
    return f'<div class="headline"><h3>{text(words)}</h3><p>{shown}</p>{band}<small>{below}</small></div>'
