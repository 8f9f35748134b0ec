"""Repeats of training images: what the root settings come to, and where they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_vision.assembly import build_data
from lightning_vision.config import compose
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import Geometry


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def test_images_are_repeated_only_where_they_are_augmented(table: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)nothing is augmented.*try: +repeats=1"):
        resolve(compose(["data=table", "augmentation=none", "repeats=3"], {"data.path": str(table)}))


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({}, 3), ({"repeats": 3}, 3), ({"num_items_per_epoch": 25}, 6), ({"repeats": 2, "num_items_per_epoch": 4}, 1)],
)
def test_steps_of_an_epoch(settings: dict[str, Any], steps: int) -> None:
    files = PackedStrings.from_strings(f"/f/{i}.png" for i in range(20))
    index = SampleIndex(files, np.repeat([0, 1, 2], [10, 6, 4]).astype(np.uint8))
    data = build_data(index, Geometry(2, 2, 3), Preprocessing(), {"batch_size": 4, "seed": 0, **settings})
    assert len(data.train_dataloader()) == steps
    assert len(data.train_rows_dataloader()) == 3
    assert [len(loader) for loader in (data.val_dataloader(), data.test_dataloader()) if loader] == [2, 1]
    assert len(data.predict_dataloader()) == 5
