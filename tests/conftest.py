"""What all tests share: the data folder, one thread, and a Hydra that no test leaves changed."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Stores of decoded pixels and embeddings do not pile up in the user's own cache folder.
_CACHE = tempfile.TemporaryDirectory(prefix="lightning_vision-tests-")
os.environ["LIGHTNING_VISION_CACHE"] = _CACHE.name

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import hypothesis  # noqa: E402 - after the environment is set
import pytest  # noqa: E402
import yaml  # noqa: E402

# A config is made of a dozen files. OmegaConf parses them with this class; libyaml's takes a tenth of the time.
if yaml.__with_libyaml__:
    yaml.SafeLoader = yaml.CSafeLoader  # type: ignore[misc]

# How long an example takes says more about the other processes of the machine than about the code.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not given."""
    folder = os.environ.get("LIGHTNING_VISION_DATA")
    if not folder:
        pytest.skip("LIGHTNING_VISION_DATA names no folder of data sets")
    return Path(folder)


@pytest.fixture(autouse=True)
def _figures_are_built_but_not_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the time of a tiny fit would go into the layout of its figures.

    They are drawn in tests/reports, under the marker ``pictures``, and in fits of fixtures with a wider scope.
    """
    figures = sys.modules.get("matplotlib.figure")
    if figures is None or "reports" in request.path.parts or request.node.get_closest_marker("pictures"):
        return
    saved = figures.Figure.savefig

    def save_empty(self: object, *arguments: object, **settings: object) -> None:
        saved(figures.Figure(figsize=(1, 1)), *arguments, **settings)

    monkeypatch.setattr(figures.Figure, "savefig", save_empty)


@pytest.fixture(autouse=True)
def _hydra_left_alone() -> Iterator[None]:
    yield
    if "hydra" in sys.modules:
        from hydra.core.global_hydra import GlobalHydra
        from hydra.core.hydra_config import HydraConfig

        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        # The next run would drop the file of this one's log without closing it.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.FileHandler):
                handler.close()
