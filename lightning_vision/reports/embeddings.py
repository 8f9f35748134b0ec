"""The pictures of embeddings: a map of a split, and the nearest neighbours of some images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from lightning_vision.reports.files import save_figure
from lightning_vision.reports.palette import class_palette
from lightning_vision.reports.scored import Picture, Scored
from lightning_vision.reports.sheet import RIGHT, UNKNOWN, WRONG, as_rgb
from lightning_vision.reports.text import FAMILY, class_label, drawable, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_ROWS = 2000  # images that are embedded for the pictures, whatever the size of the split
MAP = "Each point is an image; images that the model finds alike lie close together, as far as two directions can show."
NEAREST = "Left an image, then those whose embeddings are most alike, with their cosine; green: of the same class."
WORST = "Images whose nearest neighbours are mostly of other classes, those that are most alike to them first."
QUERIES = 8
NEIGHBOURS = 5
_MAX_LEGEND = 30
# Rows or lengths up to which all axes are decomposed; else so many are looked for in so many steps.
EXACT, SUBSPACE, ITERATIONS = 128, 12, 12
_MARKERS = "osD^vPX"  # colours repeat to the eye behind the first seven classes, shapes tell on
_NONE = "#8A8A92"  # of an image without a class
_NAME_LENGTH = 22


def draw(scored: Scored) -> list[Picture]:
    """Write ``embeddings.png``, ``neighbours.png`` and, with labels, ``worst.png``."""
    names = scored.head.task.target.class_names
    rows, vectors, classes = embed(scored, scored.spread(MAX_ROWS))
    if not len(rows):
        return []
    figure = embeddings_figure(principal_components(vectors), classes, names)
    save_figure(figure, scored.plots / "embeddings.png")
    pictures = [Picture(scored.plots / "embeddings.png", "Map of the embeddings", MAP)]
    spread = np.unique(np.linspace(0, len(rows) - 1, QUERIES).round().astype(int))
    sheets = [("neighbours.png", "Nearest neighbours", NEAREST, spread)]
    if len(strangers := among_strangers(vectors, classes)):
        sheets.insert(0, ("worst.png", "The worst images", WORST, strangers[:QUERIES]))
    for file, title, text, queries in sheets:
        shown, cosines = neighbours(vectors, queries, NEIGHBOURS)
        images = scored.shown(scored.data.batch(rows[shown.ravel()]))
        images = images.reshape(*shown.shape, *images.shape[1:])
        save_figure(neighbours_figure(images, classes[shown], cosines, names), scored.plots / file)
        pictures.append(Picture(scored.plots / file, title, text))
    return pictures


def among_strangers(vectors: Floats, classes: Ints) -> Ints:
    """Positions of the vectors whose nearest neighbours are mostly of other classes; the most alike to those first.

    Args:
        vectors: ``(N, D)`` of length 1.
        classes: ``(N,)`` class ids, -1 for none.
    """
    known = np.flatnonzero(classes >= 0)
    if len(known) < 2:
        return known[:0]
    shown, cosines = neighbours(vectors[known], np.arange(len(known)), NEIGHBOURS)
    other = classes[known][shown[:, 1:]] != classes[known][:, None]
    strangeness = (other * (1 + cosines[:, 1:])).sum(1)
    lost = np.flatnonzero(other.mean(1) > 0.5)
    found: Ints = known[lost[np.argsort(-strangeness[lost], kind="stable")]]
    return found


def plot_embeddings(
    vectors: torch.Tensor, predicted: torch.Tensor, truth: torch.Tensor, names: Sequence[str], split: str, out: Path
) -> None:
    """Draw what a classifier's last layer got, coloured by the true class; those that it got wrong have a ring.

    Args:
        vectors: ``(N, D)``; rows that are no numbers are left out.
        predicted: Class ids ``(N,)``.
        truth: Class ids ``(N,)``; those that are no class count as none.
        names: Name of every class.
        split: Name of the split, for the title.
        out: PNG file to write; its folder is made.

    Raises:
        DataError: The picture cannot be written.
    """
    finite = vectors.isfinite().all(1)
    if not finite.any():
        return
    classes = truth[finite].long().numpy()
    classes = np.where((classes < 0) | (classes >= len(names)), -1, classes)
    wrong = (predicted[finite].numpy() != classes) & (classes >= 0)
    components = principal_components(vectors[finite].double().numpy())
    save_figure(embeddings_figure(components, classes, names, wrong, f" of {split}"), out)


def embed(scored: Scored, rows: Ints) -> tuple[Ints, Floats, Ints]:
    """Return rows of the index, the direction of the encoder's embedding of each and its class.

    Images that cannot be decoded are left out where ``preprocessing.on_bad_image`` says so, and so is what a model gave
    that is no number.

    Returns:
        Rows ``(N,)``; float64 ``(N, D)`` of length 1; class ids ``(N,)``, -1 for none.
    """
    kept, vectors, classes = [rows[:0]], [np.empty((0, 1))], [rows[:0]]
    size = scored.data.eval_batch_size
    for start in range(0, len(rows), size):
        batch, output = scored.predict(rows[start : start + size])
        assert output.hidden is not None
        finite = output.hidden.isfinite().all(1)
        target = scored.head.target(batch)
        ids = torch.full((len(finite),), -1) if target is None else target
        kept.append(batch["index"][finite].numpy())
        vectors.append(F.normalize(output.hidden[finite].double(), dim=1).numpy())
        classes.append(ids[finite].long().numpy())
    known = np.concatenate(classes)
    known[known >= scored.head.task.target.num_classes] = -1
    return np.concatenate(kept), np.concatenate(vectors[1:] or vectors), known


def principal_components(vectors: Floats) -> tuple[Floats, Floats]:
    """Return the first two principal components of vectors ``(N, D)``, ``(N, 2)``, and their shares of the variance.

    Each component points to where its largest coefficient is positive, so that one set has one picture.
    """
    centred = vectors - vectors.mean(0)
    axes, squares = _leading_axes(centred)
    count = min(2, len(axes))
    axes = axes[:count]
    axes = axes * np.sign(axes[np.arange(count), np.abs(axes).argmax(1)])[:, None]
    points, shares = np.zeros((len(vectors), 2)), np.zeros(2)
    points[:, :count] = centred @ axes.T
    shares[:count] = squares[:count] / max(float((centred**2).sum()), np.finfo(float).tiny)
    return points, shares


def _leading_axes(centred: Floats) -> tuple[Floats, Floats]:
    """The first principal axes of centred vectors, and the sum of squares along each.

    Of many long vectors by subspace iteration (Halko et al. 2011, section 4.4), which takes a few products of matrices
    where a decomposition of all axes takes seconds.
    """
    if min(centred.shape) > EXACT:
        basis = np.random.default_rng(0).standard_normal((centred.shape[1], SUBSPACE))
        for _ in range(ITERATIONS):
            basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
        _, singular, within = np.linalg.svd(centred @ basis, full_matrices=False)
        return within @ basis.T, singular**2
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    return axes, singular**2


def neighbours(vectors: Floats, queries: Ints, count: int) -> tuple[Ints, Floats]:
    """Return the positions ``(Q, 1 + count)`` of some vectors with those most like each behind it, and their cosines.

    Args:
        vectors: ``(N, D)`` of length 1.
        queries: ``(Q,)`` positions.
        count: Neighbours of each, fewer where there are fewer vectors.
    """
    cosines = vectors[queries] @ vectors.T
    cosines[np.arange(len(queries)), queries] = np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : 1 + count]
    return order, np.minimum(np.take_along_axis(cosines, order, 1), 1.0)


def embeddings_figure(
    components: tuple[Floats, Floats],
    classes: Ints,
    class_names: Sequence[str],
    wrong: NDArray[np.bool_] | None = None,
    of: str = "",
) -> Figure:
    """Draw points ``(N, 2)`` in the colours of their classes, with another shape for every seven classes.

    Args:
        components: From ``principal_components``.
        classes: ``(N,)`` class ids, -1 for none.
        class_names: Name of every class; none where there are no labels.
        wrong: ``(N,)``: what was predicted wrongly, to get a ring; None where nothing was predicted.
        of: Where the images are from, for the title.
    """
    from matplotlib.figure import Figure

    points, shares = components
    figure = Figure(figsize=(8.5, 6.5), layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    colours = [tuple(v / 255 for v in c) for c in class_palette(len(class_names), dark_background=False)]
    ids, counts = np.unique(classes[classes >= 0], return_counts=True)
    largest = set(ids[np.argsort(-counts, kind="stable")][:_MAX_LEGEND].tolist())
    size = max(5.0, min(30.0, 6000 / len(points)))
    rest = np.isin(classes, ids[~np.isin(ids, list(largest))]) if len(ids) else classes < 0
    if rest.any():  # at once: a thousand classes would take seconds one by one
        shades = [colours[i] if i >= 0 else _NONE for i in classes[rest].tolist()]
        ax.scatter(points[rest, 0], points[rest, 1], size, shades, linewidths=0, alpha=0.8, label="_rest")
    for i in [-1, *sorted(largest)] if len(ids) else []:
        of_class = points[classes == i]
        if len(of_class):
            label = "no class" if i < 0 else shorten(class_label(i, class_names[i]), _NAME_LENGTH)
            shape = _MARKERS[i // len(_MARKERS) % len(_MARKERS)] if i >= 0 else "o"
            colour = _NONE if i < 0 else colours[i]
            ax.scatter(
                of_class[:, 0], of_class[:, 1], size, [colour], marker=shape, linewidths=0, alpha=0.8, label=label
            )
    heading = f"embeddings of {len(points)} images{of}: first two principal components"
    if wrong is not None and wrong.any():
        ringed = points[wrong]
        ax.scatter(ringed[:, 0], ringed[:, 1], 2.6 * size, "none", edgecolors="#222222", linewidths=0.9, label="_wrong")
        heading += f"\n{len(ringed)} that were predicted wrongly have a ring"
    ax.set_title(heading, fontsize=10, family=FAMILY)
    ax.set_xlabel(f"{100 * shares[0]:.0f} % of the variance", fontsize=9, family=FAMILY)
    ax.set_ylabel(f"{100 * shares[1]:.0f} % of the variance", fontsize=9, family=FAMILY)
    ax.tick_params(labelsize=8)
    ax.grid(True, color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ids):
        more = len(ids) - len(largest)
        title = f"and {more} more classes" if more > 0 else None
        legend = ax.legend(
            loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, edgecolor="none", title=title, title_fontsize=8
        )
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            handle.set_sizes([30])  # type: ignore[union-attr]
            text.set_parse_math(False)  # a "$" in a name is no formula
            text.set_fontfamily(FAMILY)
    return figure


def neighbours_figure(images: NDArray[np.uint8], classes: Ints, cosines: Floats, class_names: Sequence[str]) -> Figure:
    """Draw a line for each query: its image, then its neighbours, green with a tick where they have its class.

    Args:
        images: ``(Q, K, H, W, C)`` uint8, the query first.
        classes: ``(Q, K)`` class ids, -1 for none.
        cosines: ``(Q, K)``, of each image with its query.
        class_names: Name of every class.
    """
    from matplotlib.figure import Figure

    lines, columns = classes.shape
    height, width = images.shape[2:4]
    cell = 1.65
    size = (columns * cell + 0.3, lines * (cell * min(2.0, height / width) + 0.3) + 0.5)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle("images, and those whose embeddings are most alike (cosine)", fontsize=11, family=FAMILY)
    for ax, place in zip(figure.subplots(lines, columns, squeeze=False).flat, np.ndindex(lines, columns), strict=True):
        own, query, is_query = int(classes[place]), int(classes[place[0], 0]), place[1] == 0
        name = shorten(class_label(own, class_names[own]), 14) if own >= 0 else ""
        colour, mark = UNKNOWN, ""
        if not is_query and own >= 0 and query >= 0:
            colour, mark = (RIGHT, "✓ ") if own == query else (WRONG, "✗ ")
        text = name or "query" if is_query else f"{mark}{name} {cosines[place]:.2f}".strip()
        shade = tuple(v / 255 for v in colour)
        ax.imshow(as_rgb(images[place]), aspect="equal", interpolation="antialiased")
        ax.set_title(
            drawable(text),
            fontsize=8,
            family=FAMILY,
            color=shade,
            pad=3,
            parse_math=False,
            weight="bold" if is_query else "normal",
        )
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set(color=shade, linewidth=2.5 if is_query else 1.5)
    return figure
