"""What ``tile``, ``overlap`` and ``tta`` come to for a model; no torch import."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lightning_vision.data.placement import Size
from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override

KEYS = ("tile", "overlap", "tta")
# Axes of images (B, C, H, W).
FLIPS = {"horizontal_flip": -1, "vertical_flip": -2}
SCALES = (0.75, 1.25)
OVERLAP = 0.25


def check_choices(settings: Mapping[str, Any], typed: Collection[str]) -> None:
    """Refuse what means nothing for any model.

    Raises:
        ConfigError: An overlap of no tiles, or a view that is there already.
    """
    if "overlap" in typed and settings.get("tile") is None:
        raise ConfigError(
            "There is no overlap without tiles.",
            given=override("overlap", settings["overlap"]),
            expected="the size of the tiles as well",
            override=["tile=512 " + override("overlap", settings["overlap"]), "leave overlap out"],
        )
    tta = settings.get("tta")
    if isinstance(tta, list | tuple):
        again = [view for i, view in enumerate(tta) if view == 1 or view in tta[:i]]
        if again:
            kept = [view for i, view in enumerate(tta) if view != 1 and view not in tta[:i]]
            raise ConfigError(
                "The image as it is is always among the views, and a view counts once.",
                given=override("tta", list(tta)),
                expected="flips and scales other than 1, each once",
                override=override("tta", kept or None),
            )


def tile_size(tile: int | Sequence[int], input_size: Size) -> Size:
    """Height and width of a tile.

    Args:
        tile: Both, or the longer one: the tile then has the shape of the model's input, so that nothing is distorted.
        input_size: Height and width of the model's input.
    """
    if not isinstance(tile, int):
        height, width = tile
        return height, width
    longer = max(input_size)
    height, width = (max(1, round(tile * side / longer)) for side in input_size)
    return height, width


def views(tta: str | Sequence[str | float] | None, augmentation: Mapping[str, Any] | None) -> tuple[str | float, ...]:
    """The views that are predicted beside the image as it is.

    Args:
        tta: The setting. ``flips``: the flips that the model was trained with, or the horizontal one if there were
            none: an image that is upside down helps a model that has seen such images, and no other.
        augmentation: Of its training, by name.
    """
    if tta is None:
        return ()
    if tta == "scales":
        return SCALES
    if tta != "flips":
        return tuple(tta)
    targets = [str(node.get("_target_", "")).lower() for node in (augmentation or {}).values() if node]
    trained = [name for name in FLIPS if any(target.endswith(f"random{name.replace('_', '')}") for target in targets)]
    return tuple(trained or ["horizontal_flip"])


def without_masks(tile: Any, tasks: Mapping[str, str]) -> ConfigError:
    """The error where no output predicts masks; ``tasks``: the task of each output by its name."""
    return ConfigError(
        "Tiles are for models that predict masks; of all others, each image has one prediction.",
        given=f"{override('tile', tile)}, and a model for {listed(tasks.values())}",
        expected="a model for segmentation",
        override="tile=null",
    )
