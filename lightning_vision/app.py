"""The way from a composed config to the action that it names."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from omegaconf import DictConfig

from lightning_vision.config import ACTIONS
from lightning_vision.errors import ConfigError, listed


def run(cfg: DictConfig) -> float | None:
    """Carry out ``cfg.action``; return the monitored figure of a fit, for sweeps.

    Raises:
        ConfigError: There is no such action.
    """
    if cfg.action not in ACTIONS:
        actions = listed(ACTIONS)
        raise ConfigError("Unknown action.", given=f"action={cfg.action}", expected=actions, override="action=fit")
    return cast("float | None", import_module(f"lightning_vision.actions.{cfg.action}").run(cfg))
