"""The setting ``save``: what is written beside the table of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override

if TYPE_CHECKING:
    from lightning_vision.head import Head

EMBEDDINGS = "embeddings"


def check_save(settings: Mapping[str, Any], heads: Sequence[tuple[str, Head]]) -> tuple[str, ...] | None:
    """What is asked for; None = what each task writes by default.

    Args:
        settings: The config; older ones do not know the setting.
        heads: The outputs of the model, by name.

    Raises:
        ConfigError: No output of the model has it, or not of images that are cut into tiles.
    """
    save = settings.get("save")
    if save is None:
        return None
    asked = tuple(dict.fromkeys([save] if isinstance(save, str) else save))
    # The embedding is the encoder's, whatever the outputs are.
    known = [*dict.fromkeys(what for _, head in heads for what in head.task.saves if what != EMBEDDINGS), EMBEDDINGS]
    if unknown := [what for what in asked if what not in known]:
        kept = [what for what in asked if what in known]
        raise ConfigError(
            f"A model for {listed(dict.fromkeys(head.task.name for _, head in heads))} has no {unknown[0]} to save.",
            given=override("save", list(asked)),
            expected=listed(known),
            override=override("save", kept or None),
        )
    if settings.get("tile") is not None and "probabilities" in asked:
        raise ConfigError(
            "In tiles an image is never seen as a whole, so that there are no probabilities of all its pixels.",
            given=f"{override('save', list(asked))} {override('tile', settings['tile'])}",
            override=[override("save", [what for what in asked if what != "probabilities"]), "tile=null"],
        )
    return asked
