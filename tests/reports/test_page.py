"""The page of a run: one file, nothing in it that a name could break, read as a browser reads it."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.reports import markup
from lightning_vision.reports.page import Figure, Page, Section, render, write_page
from lightning_vision.reports.per_class import ClassTable, write_per_class
from lightning_vision.reports.scored import Picture

EVIL = "<b>&\"'</script><script>alert(1)</script>"
VOID = {"meta", "img", "link", "br", "input", "hr"}


class Read(HTMLParser):
    """Elements with their attributes, and the text; ends must match what was begun."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open and self.open[-1] not in ("script", "style") else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page(tmp_path: Path, word: str = EVIL) -> Page:
    chart, photo = tmp_path / "chart.png", tmp_path / "photo.png"
    Image.new("RGB", (200, 100), "white").save(chart)
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    classes = ClassTable(word, "pixels", {word: 12345.0, "grün": 0.0}, {"iou": {word: 0.5, "grün": float("nan")}})
    figures = [Figure("mean_iou", 0.25, (0.2, 0.3), True), Figure(word, float("nan")), Figure("loss", 12.5)]
    pictures = [Picture(chart, word, word), Picture(photo, "Photographs", "ä\udcff.jpg")]
    facts = [("Data", word), ("Nothing", ""), ("Path", "/" + "x" * 90)]
    return Page(word, word, word, facts, [Section(word, figures, classes, pictures)], word, [("torch", "2")])


def test_names_of_any_kind_are_text(tmp_path: Path) -> None:
    read = Read(render(page(tmp_path)))
    assert len(read.all("script")) == 1, "the page's own alone"
    assert [b for b in read.all("b") if not b.get("style", "").startswith("left:")] == []  # type: ignore[union-attr]
    assert read.text.count(EVIL) >= 8
    assert read.all("img")[0]["alt"] == f"{EVIL}. {EVIL}"
    assert "grün" in read.text
    assert "12\u202f345" in read.text
    assert "Nothing" not in read.text
    assert not any(key.startswith("on") for _, attributes in read.found for key in attributes)


def test_the_page_is_one_file(tmp_path: Path) -> None:
    write_page(page(tmp_path), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    read = Read(text)
    assert read.all("link") == []
    sources = [str(image["src"]) for image in read.all("img")]
    assert [source.partition(";")[0] for source in sources] == ["data:image/png", "data:image/jpeg"]
    assert all(image["alt"] and image["width"] for image in read.all("img"))
    assert not any("src" in attributes for attributes in read.all("script"))
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text


def test_tables_without_script(tmp_path: Path) -> None:
    read = Read(render(page(tmp_path, "plain")))
    cells = [attributes.get("data-value") for attributes in read.all("td") if "data-value" in attributes]
    assert cells == ["12345", "0.5", "0", ""]
    for part in ("0.250", "95 % interval 0.200 – 0.300", "0.2000 – 0.3000", "12.5000"):
        assert part in read.text


def test_figures_beyond_one_have_no_line() -> None:
    assert "range" not in markup.headline("loss", 3.5, (3.0, 4.0))
    assert "left:25.0%" in markup.headline("iou", 0.25, None)


@pytest.mark.parametrize("several", [False, True])
def test_the_table_of_classes(several: bool, tmp_path: Path) -> None:
    tables = [ClassTable("mask", "pixels", {"a,b": 3.0, "c": 0.0}, {"iou": {"a,b": 1 / 3, "c": float("nan")}})]
    if several:
        tables.append(ClassTable("label", "images", {"x": 2.0}, {"accuracy": {"x": 1.0}}))
    write_per_class(tables, tmp_path / "per_class.csv")
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["a,b", "c", *(["x"] if several else [])]
    assert [row["iou"] for row in rows[:2]] == ["0.333333", ""]
    assert rows[0]["support"] == "3"
    assert [row.get("output") for row in rows] == (["mask", "mask", "label"] if several else [None, None])
