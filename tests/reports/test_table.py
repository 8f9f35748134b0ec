from __future__ import annotations

import io

from rich.console import Console

from lightning_vision.reports.table import figure, final_table, plain_tables

NAN = float("nan")
PER_CLASS = {"iou": {"sky": 0.5, "a [bold] road": NAN}, "accuracy": {"sky": 1.0, "a [bold] road": 0.25}}


def test_plain_text_when_not_a_terminal():
    out = io.StringIO()
    final_table({"test/mean_iou": 0.51234, "test/images": 7}, PER_CLASS, "test", Console(file=out, width=20))
    assert out.getvalue() == (
        "test\n"
        "  figure          value\n"
        "  test/mean_iou  0.5123\n"
        "  test/images         7\n"
        "\n"
        "per class\n"
        "  class             IoU  accuracy\n"
        "  sky            0.5000    1.0000\n"
        "  a [bold] road       -    0.2500\n"
    )


def test_a_terminal_gets_a_drawn_table_of_its_width():
    out = io.StringIO()
    names = {"iou": {"x" * 100: 0.125, "sky": 0.5}, "dice": {"x" * 100: 0.25, "sky": 0.75}}
    final_table({"test/mean_iou": 0.5}, names, "test", Console(file=out, force_terminal=True, width=40, no_color=True))
    text = out.getvalue()
    assert "─" in text
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert all(len(line) <= 40 for line in plain.splitlines())
    assert all(value in plain for value in ("0.1250", "0.2500", "0.7500")), "figures are never cut"
    assert plain.count("x") >= 100, "names are folded, not cut"


def test_markup_in_names_is_text():
    out = io.StringIO()
    final_table({}, PER_CLASS, "[red]", Console(file=out, force_terminal=True, width=60))
    assert "a [bold] road" in out.getvalue()
    assert "[red]" in out.getvalue()


def test_names_that_the_output_cannot_encode():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    final_table({"日本": 0.5}, None, "t", Console(file=file))
    file.flush()
    assert b"??" in raw.getvalue()


def test_no_classes_no_second_table():
    assert "per class" not in plain_tables({"a": 1.0}, {})
    assert "per class" not in plain_tables({"a": 1.0}, {"iou": {}})


def test_of_many_classes_the_worst_are_shown():
    values = {f"c{i}": 1 - i / 100 for i in range(100)} | {"absent": NAN}
    text = plain_tables({}, {"iou": values})
    assert text.splitlines()[-1].strip() == "the worst 40 of 101 classes"
    assert "c99 " in text
    assert "c60 " in text
    assert "c59 " not in text


def test_figures():
    assert [figure(v) for v in (NAN, 3, 0.0, 0.12345, 1e-5, 123456789.0)] == [
        "-",
        "3",
        "0.0000",
        "0.1235",
        "1e-05",
        "1.23e+08",
    ]
