"""Every notebook runs from its first cell to its last, and what it stores can be read without running."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, PARAMETERS, cleaned, run

# A run in the tests does the same with less: the names are those of each notebook's cell with the tag `parameters`.
LESS: dict[str, dict[str, Any]] = {
    "01_quick_start": {"EPOCHS": 1, "IMAGES": 60},
    "02_your_own_data": {"EPOCHS": 1},
    "03_pretrained_encoders": {"PROBE_EPOCHS": 2, "TUNE_EPOCHS": 1, "IMAGE_SIZE": 32, "PROBE_IMAGES": [15]},
    "04_segmentation": {"EPOCHS": 1, "IMAGES": 60, "DECODERS": ["segformer", "linear"], "LOSSES": ["ce_dice"]},
    "05_add_an_encoder_and_a_decoder": {"EPOCHS": 1, "IMAGES": 60, "PAIRS": [("residual", "hypercolumn")]},
    "06_reading_results": {"EPOCHS": 1, "IMAGES": 60, "SWEEP_EPOCHS": 1, "RATES": "1e-3"},
}
MOST_BYTES = 1_500_000
NOT_TO_STORE = {
    "a path of a machine": re.compile(r"(?<![\w.<~/])/(home|root|tmp|work|mnt|Users|usr|var|opt)/\w"),
    "a point in time": re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d"),
    "an address": re.compile(r"0x[0-9a-f]{6,}"),
    "a progress bar": re.compile(r"\r|it/s\b"),
    "a warning": re.compile(r"\w+Warning\b|\bwarning:", re.IGNORECASE),
}


def ids(path: Path) -> str:
    return path.stem


def texts(notebook: Any) -> list[str]:
    """What the outputs of a notebook say."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [o.text for o in outputs if o.output_type == "stream"] + [
        text for o in outputs for kind, text in o.get("data", {}).items() if kind.startswith("text/")
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = run(path, tmp_path, LESS[path.stem], 600, LIGHTNING_VISION_DATA="")
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_encoders_are_compared_on_photographs(data_root: Path, tmp_path: Path) -> None:
    (path,) = [path for path in NOTEBOOKS if path.stem == "03_pretrained_encoders"]
    run(path, tmp_path, LESS[path.stem], 600, LIGHTNING_VISION_DATA=str(data_root))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_outputs_are_stored(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MOST_BYTES
    for cell in notebook.cells:
        if cell.cell_type == "code":
            outputs = [o.output_type for o in cell.outputs]
            assert "error" not in outputs, cell.source
            assert bool(outputs) >= shows(cell.source), (
                f"nothing is stored of\n{cell.source}\npython -m tests.notebooks"
            )
            assert not [o for o in cell.outputs if o.get("name") == "stderr"], cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_outputs_are_of_no_machine_and_no_time(path: Path) -> None:
    for text in texts(nbformat.read(path, as_version=4)):
        for what, pattern in NOT_TO_STORE.items():
            found = pattern.search(text)
            assert found is None, f"{what} is stored: {text[max(0, found.start() - 60) : found.end() + 60]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids)
def test_parameters_are_of_the_notebook(path: Path) -> None:
    (cell,) = [c for c in nbformat.read(path, as_version=4).cells if PARAMETERS in c.metadata.get("tags", ())]
    names = {target.id for node in ast.parse(cell.source).body for target in getattr(node, "targets", ())}
    assert set(LESS[path.stem]) <= names


def test_a_bar_that_a_command_drew_is_not_stored() -> None:
    bar = "\x1b[?25lwork \x1b[90m━\x1b[0m 0/3\r\x1b[2Kwork ━ 3/3\n\x1b[1A\x1b[2K3 images\r\n\x1b[32mdone\x1b[0m\r\n"
    output = nbformat.v4.new_output("stream", name="stdout", text=bar + "in /tmp/here/runs")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("!x", outputs=[output])])
    (cell,) = cleaned(notebook, {"/tmp/here/": ""}).cells
    assert cell.outputs[0].text == "3 images\ndone\nin runs"
    assert not NOT_TO_STORE["a progress bar"].search(cell.outputs[0].text)


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(LESS)


def shows(source: str) -> bool:
    """Whether a cell shows something: it ends with an expression, prints, or is a command line."""
    if source.startswith(("!", "%%")):
        return True
    code = "\n".join(line for line in source.splitlines() if not line.startswith(("!", "%")))
    body = ast.parse(code).body
    last = body[-1] if body else None
    calls = {getattr(node.func, "id", "") for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    returns = isinstance(last, ast.Expr) and not silent(last.value)
    return returns or "print" in calls


def silent(value: ast.expr) -> bool:
    """Whether an expression has nothing to show: a call for what it does."""
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in SILENT


SILENT = {"mkdir", "to_csv", "touch"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 + 1", True),
        ("x = 1", False),
        ("x = 1\nprint(x)", True),
        ("!ls", True),
        ("%%writefile a.py\nx = 1", True),
        ("fig.tight_layout()", True),
        ("Path('a').mkdir()", False),
        ("for x in y:\n    pass", False),
    ],
)
def test_which_cells_show_something(source: str, expected: bool) -> None:
    assert shows(source) is expected
