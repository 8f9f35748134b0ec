from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from lightning_vision.reports.confusion import confusion_figure, percent, plot_confusion, short_count


def cells(figure):
    return {tuple(int(v) for v in t.get_position()): t.get_text() for t in figure.axes[0].texts}


def test_cells_hold_row_shares_and_counts():
    figure = confusion_figure(np.array([[30, 10], [0, 20000]]), ["a", "b"])
    # Positions are (column, row): the column is the prediction.
    assert cells(figure) == {(0, 0): "75%\n30", (1, 0): "25%\n10", (1, 1): "100%\n20.0k"}
    image = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_allclose(image, [[0.75, 0.25], [0, 1]])
    assert figure.axes[0].get_title() == "100.0 % of 20.0k right"
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("prediction", "truth")


def test_a_class_without_targets_is_masked_and_empty():
    figure = confusion_figure(np.array([[0, 0], [1, 1]]), ["a", "b"])
    image = figure.axes[0].get_images()[0].get_array()
    assert image.mask.tolist() == [[True, True], [False, False]]
    assert set(cells(figure)) == {(0, 1), (1, 1)}


def test_nothing_counted(tmp_path):
    plot_confusion(np.zeros((3, 3), np.int64), ["a", "b", "c"], tmp_path / "c.png")
    assert confusion_figure(np.zeros((3, 3)), ["a", "b", "c"]).axes[0].get_title() == "no targets"


@pytest.mark.parametrize(("classes", "with_text"), [(1, True), (20, True), (21, False), (100, False)])
def test_any_number_of_classes_is_readable(tmp_path, classes, with_text):
    names = [f"class {i}" for i in range(classes)]
    matrix = np.eye(classes, dtype=np.int64) * 5
    plot_confusion(matrix, names, tmp_path / "c.png")
    figure = confusion_figure(matrix, names)
    assert len(cells(figure)) == (classes if with_text else 0)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == names
    with Image.open(tmp_path / "c.png") as picture:
        assert max(picture.size) < 2600


def test_labels_of_a_hundred_classes_do_not_overlap():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = confusion_figure(np.eye(100), [f"class {i}" for i in range(100)])
    FigureCanvasAgg(figure).draw()
    ax = figure.axes[0]
    tops = sorted((box.y0, box.y1) for box in (t.get_window_extent() for t in ax.get_yticklabels()))
    assert all(upper[0] > lower[1] - 1 for lower, upper in pairwise(tops))
    sides = sorted((box.x0, box.x1) for box in (t.get_window_extent() for t in ax.get_xticklabels()))
    assert all(right[0] > left[1] - 1 for left, right in pairwise(sides))


def test_beyond_a_hundred_classes_not_every_one_is_named():
    figure = confusion_figure(np.eye(250), [str(i) for i in range(250)])
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == [str(i) for i in range(0, 250, 3)]


def test_odd_names_are_drawn(tmp_path):
    names = ["a" * 60, "Äpfel & Öl", "日本", "$x", "_hidden", "two\nlines"]
    plot_confusion(np.eye(6), names, tmp_path / "c.png")
    labels = [t.get_text() for t in confusion_figure(np.eye(6), names).axes[0].get_yticklabels()]
    assert labels == ["a" * 10 + "…" + "a" * 9, "Äpfel & Öl", "2 □□", "$x", "_hidden", "two lines"]


def test_matrix_and_names_must_fit():
    with pytest.raises(ValueError, match=r"2 class names need a matrix \(2, 2\), got \(3, 3\)"):
        confusion_figure(np.eye(3), ["a", "b"])


@pytest.mark.parametrize(("share", "text"), [(0, "0%"), (0.001, "<1%"), (0.126, "13%"), (0.9999, ">99%"), (1, "100%")])
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(7, "7"), (9999, "9999"), (12345, "12.3k"), (123456, "123k"), (4_123_000, "4.1M"), (2.5e9, "2.5G")],
)
def test_short_count(count, text):
    assert short_count(count) == text
