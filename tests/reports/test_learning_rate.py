"""The picture of the search for a learning rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.reports.learning_rate import _CHOSEN, plot_learning_rate
from lightning_vision.tuning.learning_rate import Curve


@pytest.mark.parametrize("chosen", [1e-3, None])
def test_the_chosen_rate_is_marked(chosen: float | None, tmp_path: Path) -> None:
    rates = [10 ** (-6 + i / 10) for i in range(60)]
    losses = [1.0] * 20 + [1.0 - 0.04 * i for i in range(20)] + [0.2 + 5.0**i for i in range(20)]
    plot_learning_rate(Curve(rates, losses, chosen), tmp_path / "plots" / "lr.png")
    pixels = np.asarray(Image.open(tmp_path / "plots" / "lr.png").convert("RGB"), np.int64)
    colour = [int(_CHOSEN[i : i + 2], 16) for i in (1, 3, 5)]
    marked = np.argwhere((abs(pixels - colour) < 8).all(2))
    assert (len(marked) > 50) == (chosen is not None)
    if chosen is not None:  # half of the axis, of 6 decades
        assert abs(np.bincount(marked[:, 1]).argmax() / pixels.shape[1] - 0.54) < 0.06
