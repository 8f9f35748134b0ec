"""What a decoder may say that it takes and returns. No torch import: it is asked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_vision.errors import ConfigError, listed, nearest

# As the attributes of ``Decoder`` explain them.
KINDS = {
    "consumes": ("embedding", "pyramid", "logits"),
    "output": ("label", "mask", "score", "embedding"),
}


def check_kinds(name: str, constants: Mapping[str, Any], prefix: str = "") -> None:
    """Refuse a decoder whose ``consumes`` or ``output`` is none of those that there are.

    Args:
        name: Of its class.
        constants: What the class says of itself.
        prefix: What stands before the decoder's setting in a config.

    Raises:
        ConfigError: One of the two is missing or unknown.
    """
    for attribute, valid in KINDS.items():
        said = constants.get(attribute)
        if said not in valid:
            raise ConfigError(
                f"{name} says in {attribute!r} what no decoder can be.",
                given=f"{attribute} = {said!r} of {name}" if said is not None else f"{name} without {attribute}",
                expected=f"{attribute} = one of {listed(valid)}, as plain text in the class",
                nearest=nearest(str(said), valid),
                override=f"{prefix}decoder=unet",
            )
