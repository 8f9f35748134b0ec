"""The error for a path of data that does not exist: it says what lies where the path should be."""

from __future__ import annotations

import os
from collections.abc import Callable

from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.overrides import override


def is_saved_dataset(folder: str) -> bool:
    """Whether a folder was written by ``save_to_disk`` of Hugging Face's datasets."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("state.json", "dataset_dict.json"))


def no_such_path(key: str, given: str, expected: str, fits: Callable[[str], bool]) -> ConfigError:
    """Word the error.

    Args:
        key: The setting that holds the path, such as ``data.path``.
        given: The path as it was given.
        expected: What it should lead to.
        fits: Whether a path that exists would do.
    """
    path = os.path.abspath(os.path.expanduser(given))
    folder = os.path.dirname(path)
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        present = sorted(name for name in os.listdir(folder) if fits(os.path.join(folder, name)))
    except PermissionError:
        present = []
    near = nearest(os.path.relpath(path, folder), present)
    other = os.path.join(folder if os.path.isabs(given) else os.path.relpath(folder), near) if near else None
    other = os.path.normpath(other) if other else None
    return ConfigError(
        f"{path} does not exist",
        given=f"{key}={given}",
        expected=f"{expected}; in {folder} there is {listed(present, 10) or 'none'}",
        nearest=other,
        override=override(key, other) if other else None,
    )
