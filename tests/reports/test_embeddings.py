from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_vision.reports.embeddings import (
    embeddings_figure,
    neighbours,
    neighbours_figure,
    principal_components,
)

RNG = np.random.default_rng(0)


def directions(count: int, length: int = 6) -> np.ndarray:
    vectors = RNG.standard_normal((count, length))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("count", "length"), [(40, 6), (5, 30)])
def test_components_are_those_of_an_eigendecomposition(count: int, length: int) -> None:
    vectors = directions(count, length)
    points, shares = principal_components(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    expected = (vectors - vectors.mean(0)) @ axes[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(shares, values[::-1][:2] / values.sum(), atol=1e-9)
    turned, _ = principal_components(vectors[::-1])
    np.testing.assert_allclose(turned[::-1], points, atol=1e-9)


@pytest.mark.parametrize("vectors", [np.ones((1, 4)), np.ones((3, 4)), directions(2), directions(4, 1)])
def test_components_of_hardly_anything(vectors: np.ndarray) -> None:
    points, shares = principal_components(vectors)
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()
    assert np.isfinite(shares).all()


def test_neighbours_are_sorted_and_begin_with_the_query() -> None:
    vectors = directions(30)
    queries = np.array([0, 7, 29])
    shown, cosines = neighbours(vectors, queries, 5)
    assert shown[:, 0].tolist() == [0, 7, 29]
    for query, line, values in zip(queries, shown, cosines, strict=True):
        others = sorted((i for i in range(30) if i != query), key=lambda i: -float(vectors[query] @ vectors[i]))
        assert line[1:].tolist() == others[:5]
        np.testing.assert_allclose(values[1:], vectors[line[1:]] @ vectors[query])
    assert (cosines[:, 0] == 1).all()
    few, _ = neighbours(vectors[:3], np.array([1]), 5)
    assert sorted(few[0].tolist()) == [0, 1, 2]


def test_the_map_has_a_colour_and_a_name_for_each_class() -> None:
    classes = RNG.integers(0, 3, 50)
    classes[:4] = -1
    figure = embeddings_figure(
        (RNG.standard_normal((50, 2)), np.array([0.5, 0.25])), classes, ("$a", "b", "never", "c")
    )
    (ax,) = figure.axes
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["no class", "$a", "b", "never"]
    assert "50 %" in ax.get_xlabel()
    assert sum(len(c.get_offsets()) for c in ax.collections) == 50
    assert len({tuple(c.get_facecolor()[0]) for c in ax.collections}) == 4  # type: ignore[index]
    figure.canvas.draw()


def test_the_map_without_labels_and_with_very_many() -> None:
    points = RNG.standard_normal((90, 2))
    figure = embeddings_figure((points, np.zeros(2)), np.full(90, -1), ())
    assert figure.axes[0].get_legend() is None
    assert len(figure.axes[0].collections[0].get_offsets()) == 90
    many = embeddings_figure((points, np.zeros(2)), np.arange(90), tuple(f"class {i}" for i in range(90)))
    legend = many.axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 30
    assert legend.get_title().get_text() == "and 60 more classes"
    assert sum(len(c.get_offsets()) for c in many.axes[0].collections) == 90


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_neighbours_are_marked_right_or_wrong(channels: int) -> None:
    images = RNG.integers(0, 256, (2, 3, 8, 12, channels), dtype=np.uint8)
    classes, cosines = np.array([[0, 0, 1], [-1, 0, -1]]), np.array([[1, 0.9, 0.5], [1, 0.25, 0]])
    figure = neighbours_figure(images, classes, cosines, ("cat $", "dog"))
    figure.canvas.draw()
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["cat $", "✓ cat $ 0.90", "✗ dog 0.50", "query", "cat $ 0.25", "0.00"]
    shown = figure.axes[1].images[0].get_array()
    assert shown is not None
    assert np.array_equal(np.asarray(shown)[..., 0], images[0, 1, ..., 0])


def test_a_model_that_gives_no_numbers_has_no_pictures(tmp_path) -> None:
    from types import SimpleNamespace

    from lightning_vision.head import HeadOutput
    from lightning_vision.reports import embeddings

    hidden = torch.randn(4, 3)

    def predict(rows: np.ndarray) -> tuple[dict[str, torch.Tensor], HeadOutput]:
        vectors = hidden[torch.from_numpy(rows)]
        return {"index": torch.from_numpy(rows)}, HeadOutput(vectors, vectors)

    scored = SimpleNamespace(
        spread=lambda count: np.arange(4),
        predict=predict,
        data=SimpleNamespace(eval_batch_size=3),
        head=SimpleNamespace(
            task=SimpleNamespace(target=SimpleNamespace(class_names=("a",), num_classes=1)),
            target=lambda batch: batch["index"] // 3,
        ),
        plots=tmp_path,
    )
    hidden[1] = torch.nan
    rows, vectors, classes = embeddings.embed(scored, np.arange(4))  # type: ignore[arg-type]
    assert rows.tolist() == [0, 2, 3]
    assert classes.tolist() == [0, 0, -1], "an id that is no class is none"
    np.testing.assert_allclose(vectors, torch.nn.functional.normalize(hidden[[0, 2, 3]].double()).numpy())
    hidden[:] = torch.inf
    embeddings.draw(scored)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_components_of_many_long_vectors_are_those_of_a_full_decomposition() -> None:
    vectors = RNG.standard_normal((300, 200)) * np.linspace(3, 0.1, 200)
    points, shares = principal_components(vectors)
    centred = vectors - vectors.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), rtol=0.01)
    for i in range(2):
        assert abs(np.corrcoef(points[:, i], centred @ axes[i])[0, 1]) > 0.98


def test_wrong_ones_are_ringed_and_classes_beyond_the_legend_drawn_at_once() -> None:
    classes = np.arange(400) % 200
    wrong = np.zeros(400, bool)
    wrong[:7] = True
    names = [f"c{i}" for i in range(200)]
    figure = embeddings_figure((RNG.standard_normal((400, 2)), np.array([0.5, 0.2])), classes, names, wrong, " of test")
    (ax,) = figure.axes
    sizes = [len(points.get_offsets()) for points in ax.collections]
    assert sizes == [400 - 60, *[2] * 30, 7]
    assert "400 images of test" in ax.get_title()
    assert "7 that were predicted wrongly" in ax.get_title()
