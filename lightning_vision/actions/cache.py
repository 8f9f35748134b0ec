"""The action cache: the decoded pixels on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from lightning_vision import runfolder
from lightning_vision.actions.arguments import composed
from lightning_vision.resolve import resolve
from lightning_vision.types import SPLITS


def run(cfg: DictConfig) -> None:
    """Carry out the action."""
    cache(cfg)


def cache(config: DictConfig | Sequence[str] | None = None, **choices: Any) -> None:
    """Look after the decoded pixels on the disk, as the setting ``cache`` says.

    ``build`` decodes every image of the data into the stores that a fit with ``preprocessing.mode=lazy_cached`` and the
    same settings reads; what is there already is not decoded again. ``list`` prints what is there, with sizes;
    ``clear`` removes what no process has open.

    Raises:
        ConfigError: A setting is wrong.
        DataError: The data cannot be used, or there is no room on the disk.
    """
    from lightning_vision.data.cache import clear, entries, render

    cfg = composed(config, choices, "cache")
    folder = cfg.preprocessing.lazy_cache_dir
    if cfg.cache == "list":
        print(render(entries(folder), folder))
    elif cfg.cache == "clear":
        print(clear(folder))
    else:
        _build_cache(cfg)


def _build_cache(cfg: DictConfig) -> None:
    from lightning_vision.assembly import build_data
    from lightning_vision.data.cache import entries, render

    cfg = cfg.copy()
    cfg.preprocessing.mode = "lazy_cached"
    plan = resolve(cfg)
    runfolder.tell(plan.index.problems)
    data = build_data(plan.index, plan.geometry, plan.preprocessing, plan.config)
    try:
        bad = [image for split in SPLITS if plan.index.counts()[split] for image in data.prepare(split)]
        folders = data.store_folders
    finally:
        data.teardown()
    folder = plan.preprocessing.lazy_cache_dir
    print(render([entry for entry in entries(folder) if entry.folder in folders], folder))
    runfolder.left_out(bad)
    print("read by a fit with the same settings and preprocessing.mode=lazy_cached")
