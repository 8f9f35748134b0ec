"""A few training images of each class, to see how much a model learns from how little."""

from __future__ import annotations

import numpy as np

from lightning_vision.data.index import Problem, SampleIndex
from lightning_vision.errors import ConfigError, listed


def few_shot(index: SampleIndex, images_per_class: int, seed: int) -> SampleIndex:
    """Keep so many training rows of each class, drawn by the seed, and all rows of the other splits.

    A class with fewer rows keeps all of them; labels of no class (``data.unknown``) count as one more class.

    Args:
        index: The samples; their main target is one label each.
        images_per_class: Training rows of each class.
        seed: Of the draw.

    Raises:
        ConfigError: The main target is no label.
    """
    if index.label is None:
        kinds = {"mask": "masks", "labels": "sets of labels", "label": "labels"}
        kind = "no target" if index.target is None else kinds[index.target.kind]
        raise ConfigError(
            "images_per_class is for data with one label an image.",
            given=f"images_per_class={images_per_class} with {kind}",
            override=["images_per_class=null", "task=classification, for one label an image"],
        )
    generator = np.random.default_rng(seed)
    train = index.rows("train")
    drawn = generator.permutation(train)
    kept = [drawn[index.label[drawn] == label][:images_per_class] for label in np.unique(index.label[train])]
    others = [index.rows("val"), index.rows("test")]
    found = index.take(np.sort(np.concatenate([*kept, *others])))
    names = index.target.class_names if index.target else ()
    counts = np.bincount(index.label[train], minlength=len(names))[: len(names)]
    few = [f"{name} ({count})" for name, count in zip(names, counts.tolist(), strict=True) if count < images_per_class]
    if few:
        message = (
            f"images_per_class={images_per_class} is more than some classes have, which keep all: {listed(few, 8)}"
        )
        found.problems = (*found.problems, Problem("note", message))
    return found
