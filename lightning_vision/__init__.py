"""Train on images: any encoder with any decoder, composed by Hydra, run by PyTorch Lightning.

The public names are imported when they are first used, so that ``import lightning_vision`` costs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_vision.actions.cache import cache
    from lightning_vision.actions.check import check
    from lightning_vision.actions.export import export
    from lightning_vision.actions.fit import fit
    from lightning_vision.actions.models import build, load
    from lightning_vision.actions.predict import predict
    from lightning_vision.actions.summary import summary
    from lightning_vision.actions.test import test
    from lightning_vision.config import compose, instantiate
    from lightning_vision.errors import CheckpointError, ConfigError, DataError
    from lightning_vision.reports.grid import show

_HOME = {
    "compose": "config",
    "instantiate": "config",
    "build": "actions.models",
    "fit": "actions.fit",
    "test": "actions.test",
    "predict": "actions.predict",
    "load": "actions.models",
    "show": "reports.grid",
    "export": "actions.export",
    "cache": "actions.cache",
    "check": "actions.check",
    "summary": "actions.summary",
    "ConfigError": "errors",
    "DataError": "errors",
    "CheckpointError": "errors",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "build",
    "cache",
    "check",
    "compose",
    "export",
    "fit",
    "instantiate",
    "load",
    "predict",
    "show",
    "summary",
    "test",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    """Return the installed version; in a checkout that is not installed, that of pyproject.toml."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lightning_vision")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])
