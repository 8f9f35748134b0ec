"""What a notebook shows of a run."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from lightning_vision.module import VisionModule
from lightning_vision.reports.grid import show
from lightning_vision.reports.notebook import Plots, figures_html
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.sheet import GAP, MARGIN


def module(*names: str) -> VisionModule:
    """As much of a model as the tables ask for."""
    head = SimpleNamespace(task=SimpleNamespace(class_figures=("iou", "dice")))
    heads = [(name, head) for name in names]
    prefix = (lambda name: f"{name}/") if len(names) > 1 else (lambda name: "")
    return cast(VisionModule, SimpleNamespace(named_heads=lambda: heads, prefix=prefix))


def test_figures_are_tables_of_all_and_of_each_class() -> None:
    metrics = {
        "epochs": 2.0,
        "test/mean_iou": 0.5,
        "test/mean_iou/ci95_low": 0.4,
        "test/mean_iou/ci95_high": 0.6,
        "test/iou/<sky>/blue": 0.25,
        "test/dice/<sky>/blue": 0.4,
    }
    page = figures_html(metrics, module("mask"))
    assert "<tr><td>test/mean_iou</td><td>0.5000</td><td>0.4000 to 0.6000</td></tr>" in page
    assert "<tr><td>&lt;sky&gt;/blue</td><td>0.2500</td><td>0.4000</td></tr>" in page
    assert "<th>class</th><th>IoU</th><th>dice</th>" in page
    assert page.count("<table>") == page.count("</table>") == 2
    assert "ci95" not in page


def test_classes_of_several_outputs_have_tables_of_their_own() -> None:
    page = figures_html({"test/left/iou/a": 0.1, "test/right/iou/b": 0.2}, module("left", "right"))
    assert page.index("class of left") < page.index("<td>a</td>") < page.index("class of right")
    assert "<td>test/" not in page


def test_plots_by_name(tmp_path: Path) -> None:
    (tmp_path / "mask").mkdir()
    for name, width in (("curves.png", 3), ("mask/confusion.png", 5)):
        Image.new("RGB", (width, 2)).save(tmp_path / name)
    plots = Plots(tmp_path)
    assert list(plots) == ["curves", "mask/confusion"]
    assert len(plots) == 2
    assert plots["mask/confusion"].size == (5, 2)
    assert repr(plots) == "Plots(curves, mask/confusion)"
    with pytest.raises(KeyError, match="there is curves, mask/confusion"):
        plots["confusion"]
    assert not Plots(tmp_path / "none")


def test_a_grid_holds_the_images(tmp_path: Path) -> None:
    red, grey = np.zeros((60, 60, 3), np.uint8), np.full((30, 60), 90, np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    page = show([tmp_path / "red.png", grey, Image.fromarray(red)], columns=2, size=60)
    pixels = np.asarray(page)
    assert page.size == (2 * MARGIN + 2 * 60 + GAP, 2 * MARGIN + 2 * 60 + GAP)
    assert (pixels[MARGIN : MARGIN + 60, MARGIN : MARGIN + 60] == (200, 0, 0)).all()
    assert (pixels[MARGIN : MARGIN + 30, MARGIN + 60 + GAP : -MARGIN] == 90).all()
    assert (pixels[MARGIN + 60 + GAP : -MARGIN, MARGIN : MARGIN + 60] == (200, 0, 0)).all()
    with_captions = show([red, red], ["one", "two"], columns=2, size=60)
    assert (np.asarray(with_captions)[MARGIN + 60 : -MARGIN] < 255).any()
    buffer = io.BytesIO()
    with_captions.save(buffer, "PNG")
    assert buffer.getvalue()


def test_masks_lie_over_their_images_with_a_legend() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[:20], mask[30:] = 1, 255
    page = np.asarray(show([image, image], masks=[mask, None], class_names=["ground", "sky"], columns=2, size=40))
    top = page.shape[0] - MARGIN - 40
    tile = page[top : top + 40, MARGIN : MARGIN + 40].astype(int)
    for part, colour in ((tile[:20], class_palette(2)[1]), (tile[20:30], class_palette(2)[0])):
        np.testing.assert_allclose(part - (np.array(colour) + 100) / 2, 0, atol=1)
    assert (tile[30:] == 100).all()
    assert (page[top : top + 40, -MARGIN - 40 : -MARGIN] == 100).all()
    assert top > MARGIN + 20  # room for the legend
    green = np.asarray(show([image], masks=[mask * 0], class_names=["ground"], palette=[(0, 255, 0)], alpha=1, size=40))
    np.testing.assert_allclose(green[-MARGIN - 1, MARGIN], (0, 255, 0), atol=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": []}, "no images"),
        ({"captions": ["one", "two"]}, "1 images, but 2 captions"),
        ({"masks": [np.zeros((4, 4), int)]}, "class_names"),
        ({"masks": [np.zeros((5, 4), int)], "class_names": ["a"]}, "differ in size"),
    ],
)
def test_what_cannot_be_shown(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        show(**{"images": [np.zeros((4, 4), np.uint8)]} | given)
