"""``report.html``: a run on one page, in one file that needs no other and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from lightning_vision.metrics.bootstrap import DRAWS
from lightning_vision.reports import markup
from lightning_vision.reports.files import whole_file
from lightning_vision.reports.per_class import ClassTable
from lightning_vision.reports.scored import Picture

# The browser itself refuses whatever is not in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
INTERVALS = f"Intervals: what the middle 95 % of {DRAWS} draws of the images with replacement span (bootstrap)."


@dataclass(frozen=True)
class Figure:
    """An overall figure.

    Args:
        name: Its name, without the split.
        value: NaN where it is not defined.
        interval: Ends of its 95 % interval.
        first: Whether it is one of those that are seen first.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    first: bool = False


@dataclass(frozen=True)
class Section:
    """What is said of one output, or of all together.

    Args:
        title: Heading.
        figures: Its overall figures.
        classes: Figures of its classes.
        pictures: In the order in which they are looked at.
    """

    title: str
    figures: Sequence[Figure] = ()
    classes: ClassTable | None = None
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """All that stands on the page.

    Args:
        kicker: What kind of report it is, above the title.
        title: The model and the data.
        subtitle: When and where.
        facts: Data, model, checkpoint.
        sections: One an output.
        config: The config as YAML.
        versions: Name and version of what it was made with.
    """

    kicker: str
    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    config: str
    versions: Sequence[tuple[str, str]] = field(default=())


def write_page(page: Page, out: Path) -> None:
    """Write the page.

    Raises:
        DataError: The file cannot be written.
    """
    with whole_file(out) as temporary:
        temporary.write_text(render(page), encoding="utf-8")


def render(page: Page) -> str:
    """Return the page as HTML."""
    style, script = (
        files("lightning_vision.reports").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    versions = " · ".join(f"{name} {version}" for name, version in page.versions)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{markup.text(page.title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<p class="kicker">{markup.text(page.kicker)}</p>
<h1>{markup.text(page.title)}</h1>
<p class="sub">{markup.text(page.subtitle)}</p>
{markup.facts(page.facts)}
</header>
{"".join(map(_section, page.sections))}
<section>
<h2>How it was made</h2>
<details><summary>Config</summary><pre>{markup.text(page.config)}</pre></details>
</section>
<footer>{markup.text(versions)}</footer>
</main>
<script>
{script}</script>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = [f"<section><h2>{markup.text(section.title)}</h2>"]
    first = [markup.headline(f.name, f.value, f.interval) for f in section.figures if f.first]
    if first:
        parts.append(f'<div class="headlines">{"".join(first)}</div>')
    tables = []
    if section.figures:
        rows = [(f.name, f.value, f.interval) for f in section.figures]
        note = f'<p class="note">{INTERVALS}</p>' if any(f.interval for f in section.figures) else ""
        tables.append(f"<div><h3>All figures</h3>{markup.figure_table(rows)}{note}</div>")
    if section.classes is not None:
        table = section.classes
        tables.append(f"<div><h3>Classes</h3>{markup.class_table(table.counted, table.support, table.figures)}</div>")
    if tables:
        parts.append(f'<div class="tables">{"".join(tables)}</div>')
    parts += map(_picture, section.pictures)
    return "\n".join([*parts, "</section>\n"])


def _picture(picture: Picture) -> str:
    alt = f"{picture.title}. {picture.text}"
    caption = f"<figcaption>{markup.text(picture.text)}</figcaption>" if picture.text else ""
    image = markup.picture(picture.path, alt)
    return f'<figure><h3>{markup.text(picture.title)}</h3>{caption}<div class="picture">{image}</div></figure>'
