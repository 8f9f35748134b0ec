from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from lightning_vision.errors import DataError
from lightning_vision.reports.curves import Best, curves_figure, plot_curves, read_metrics

SPARSE = """epoch,step,lr-AdamW,train/loss,val/loss,val/mean_iou,val/iou/sky,test/mean_iou
,0,0.1,,,,,
,5,0.2,,,,,
0,9,,,2.0,0.25,0.5,
0,9,,1.5,,,,
,10,0.3,,,,,
1,19,,,1.0,0.75,0.5,
1,19,,0.5,,,,
2,29,,,1.5,0.5,0.5,
2,29,,nan,,,,
3,30,,,,,,0.7
"""


def write(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    return path


def lines(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def test_sparse_rows_become_series(tmp_path):
    series = read_metrics(write(tmp_path, SPARSE))
    np.testing.assert_array_equal(series["val/mean_iou"].x, [0, 1, 2])
    np.testing.assert_array_equal(series["val/mean_iou"].y, [0.25, 0.75, 0.5])
    np.testing.assert_array_equal(series["train/loss"].y, [1.5, 0.5, np.nan])
    # Steps 0 to 9 are epoch 0, drawn from -0.5 to 0.5.
    np.testing.assert_allclose(series["lr-AdamW"].x, [-0.4, 0.1, 0.6])


def test_panels_and_the_marked_best_epoch(tmp_path):
    series = read_metrics(write(tmp_path, SPARSE))
    figure = curves_figure(series, "val/mean_iou", "max")
    assert [ax.get_title() for ax in figure.axes] == ["loss", "metrics", "learning rate"]
    assert figure.get_suptitle() == "best val/mean_iou = 0.75 at epoch 1"
    loss, metrics, rate = figure.axes
    assert {"train/loss", "val/loss"} <= set(lines(loss))
    assert {"val/mean_iou", "_best epoch", "_best value"} == set(lines(metrics))
    assert {"lr-AdamW", "_best epoch"} == set(lines(rate))
    for ax in figure.axes:
        assert list(lines(ax)["_best epoch"].get_xdata()) == [1, 1]
    assert lines(metrics)["_best value"].get_xydata().tolist() == [[1, 0.75]]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1


def test_mode_min_and_first_of_equals(tmp_path):
    path = write(tmp_path, "epoch,step,val/loss\n0,1,2\n1,2,1\n2,3,1\n3,4,nan\n")
    assert plot_curves(path, tmp_path / "a" / "b.png", "val/loss", "min") == Best(1, 1)
    with Image.open(tmp_path / "a" / "b.png") as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).min() < 100, "something is drawn"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.png"], "no temporary file stays"


@pytest.mark.parametrize(
    ("text", "monitor", "title"),
    [
        ("epoch,step,train/loss\n0,9,3\n", "val/loss", "val/loss was not logged"),
        ("epoch,step,val/loss\n0,9,nan\n1,19,inf\n", "val/loss", "val/loss has no finite value"),
        ("epoch,step,lr-a$b$,val/f_1\n,0,.1,\n0,9,,.7\n", "val/f_1", "best val/f_1 = 0.7 at epoch 0"),
        ("epoch,step,val/準確\n0,9,1\n", "val/準確", "best val/□□ = 1 at epoch 0"),
    ],
)
def test_odd_runs_are_drawn(tmp_path, text, monitor, title):
    path = write(tmp_path, text)
    assert curves_figure(read_metrics(path), monitor, "min").get_suptitle() == title
    plot_curves(path, tmp_path / "curves.png", monitor, "min")
    assert (tmp_path / "curves.png").stat().st_size > 0


@pytest.mark.parametrize("text", ["", "epoch,step,val/loss\n"])
def test_a_run_without_metrics_says_so(tmp_path, text):
    figure = curves_figure(read_metrics(write(tmp_path, text)), "val/loss", "min")
    assert [t.get_text() for t in figure.texts] == ["no metrics were logged"]
    assert plot_curves(tmp_path / "metrics.csv", tmp_path / "c.png", "val/loss", "min") is None


def test_a_single_epoch_and_lonely_values_have_dots(tmp_path):
    rows = "".join(f"{e},{e},{'nan' if e in (4, 6) else 1}\n" for e in range(60))
    for text in ("epoch,step,val/loss\n0,9,1\n", "epoch,step,val/loss\n" + rows):
        figure = curves_figure(read_metrics(write(tmp_path, text)), "val/loss", "min")
        assert lines(figure.axes[0])["val/loss"].get_marker() == "o"


def test_several_values_an_epoch_are_spread_by_step(tmp_path):
    series = read_metrics(write(tmp_path, "epoch,step,val/loss\n0,4,4\n0,9,3\n1,14,2\n1,19,1\n"))
    np.testing.assert_allclose(series["val/loss"].x, [0, 0.5, 1, 1.5])
    np.testing.assert_array_equal(series["val/loss"].y, [4, 3, 2, 1])


def test_a_resumed_run_counts_the_later_row_and_starts_where_it_starts(tmp_path):
    text = "epoch,step,lr-x,val/loss\n,50,1,\n5,59,,3\n,60,1,\n6,69,,2\n6,69,,1\n"
    series = read_metrics(write(tmp_path, text))
    np.testing.assert_array_equal(series["val/loss"].x, [5, 6])
    np.testing.assert_array_equal(series["val/loss"].y, [3, 1])
    np.testing.assert_allclose(series["lr-x"].x, [4.6, 5.6])


def test_losses_of_several_magnitudes_get_a_logarithmic_axis(tmp_path):
    path = write(tmp_path, "epoch,step,val/loss,val/accuracy\n0,1,1000,.001\n1,2,1,.9\n")
    loss, metrics = curves_figure(read_metrics(path), "val/loss", "min").axes
    assert (loss.get_yscale(), metrics.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize("text", [None, "epoch,step,val/loss\n0,1,many\n", "epoch,step\n0,1,2,3\n"])
def test_unreadable_metrics_are_named(tmp_path, text):
    path = tmp_path / "metrics.csv" if text is None else write(tmp_path, text)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        plot_curves(path, tmp_path / "c.png", "val/loss", "min")


def test_pyplot_is_left_alone(tmp_path):
    plot_curves(write(tmp_path, SPARSE), tmp_path / "c.png", "val/loss", "min")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
