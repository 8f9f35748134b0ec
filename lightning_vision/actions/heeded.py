"""Which action heeds which setting, so that none is typed in vain; no torch import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.config import Settings
from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override

_LOOK = ("check", "summary")
# Root settings that do nothing but in these actions; all others are of a model or of its data.
HEEDED = {
    "source": ("predict",),
    "save": ("predict",),
    "table": ("predict",),
    "frame_step": ("predict",),
    "split": ("test",),
    "tile": ("test", "predict"),
    "overlap": ("test", "predict"),
    "tta": ("test", "predict"),
    "format": ("export",),
    "push": ("export",),
    "quick": _LOOK,
    "report": _LOOK,
    "plots": _LOOK,
    "cache": ("cache",),
}
CHECKPOINT = "checkpoint=RUN/checkpoints/best.ckpt"
# What else these actions need.
NEEDS = {"predict": (CHECKPOINT, "source=photos/"), "test": (CHECKPOINT,), "export": (CHECKPOINT,)}


def refuse_unheeded(settings: Mapping[str, Any], action: str) -> None:
    """Refuse settings that would change nothing.

    Args:
        settings: The composed config.
        action: Name of the action, or ``build``.

    Raises:
        ConfigError: A setting of other actions is not at its default.
    """
    unheeded = [key for key, actions in HEEDED.items() if action not in actions and _is_set(settings, key)]
    if not unheeded:
        return
    actions = HEEDED[unheeded[0]]
    together = [key for key in unheeded if HEEDED[key] == actions]
    given = [override(key, _plain(settings[key])) for key in together]
    needs = [word for word in NEEDS.get(actions[0], ()) if word.partition("=")[0] not in together]
    raise ConfigError(
        f"{action} does not heed {listed(together)}: only {' and '.join(actions)} can.",
        given=" ".join(given),
        override=[
            " ".join([actions[0], *needs, *given]),
            " ".join(override(key, getattr(Settings, key)) for key in together),
        ],
    )


def _is_set(settings: Mapping[str, Any], key: str) -> bool:
    default = getattr(Settings, key)
    return bool(settings.get(key, default) != default)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else list(value)
