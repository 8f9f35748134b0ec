"""The pictures that an action is asked for with the setting ``plots``, one or a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_vision.errors import ConfigError, listed


def asked_pictures(plots: Any, action: str, drawn: Sequence[str]) -> list[str]:
    """Return the names of pictures, each once.

    Args:
        plots: The setting.
        action: Name of the action.
        drawn: The pictures that it draws.

    Raises:
        ConfigError: It does not draw one of them.
    """
    asked = [plots] if isinstance(plots, str) else list(dict.fromkeys(plots or ()))
    for name in asked:
        if name not in drawn:
            raise ConfigError(
                f"{action} does not draw this picture.",
                given=f"plots={name}",
                expected=f"plots={' or '.join(drawn)}: {listed(drawn)}" if len(drawn) > 1 else f"plots={drawn[0]}",
                override=[f"plots={drawn[0]}", "plots=null"],
            )
    return asked
