"""Packages that are not installed with the project: their absence is an error that names the extra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from lightning_vision.errors import ConfigError


def require(extra: str, *packages: str, needs: str, given: object = None, instead: Sequence[str] = ()) -> None:
    """Refuse to go on without packages of an extra. They are looked for, not imported.

    Args:
        extra: The extra's name in pyproject.toml.
        *packages: What is imported of it.
        needs: What needs it, such as "Parquet files need": the beginning of the error's sentence.
        given: What was given.
        instead: Overrides that work without it.

    Raises:
        ConfigError: One of the packages is not installed.
    """
    for package in packages:
        found = find_spec(package)
        # A folder of that name, such as the wandb/ of earlier runs, is found as well, as a package without a file.
        if found is None or found.origin is None:
            raise ConfigError(
                f"{needs} the package {package}.",
                given=given,
                override=[f"pip install 'lightning_vision[{extra}]'", *instead],
            )
