"""The classifier that came with the encoder's pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from lightning_vision.decoders.base import Decoder
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import FeatureInfo

if TYPE_CHECKING:
    from lightning_vision.encoders.base import Encoder


class PretrainedDecoder(Decoder):
    """Keeps the original classifier of a pretrained encoder, so that it predicts without any training.

    The classes of the data are found among the classifier's by name. Where they are as many, and no name stands at
    another place among the classifier's, they are taken to be the same in the same order. Fine-tuning trains the
    classifier with the encoder, as a part of it.

    Args:
        info: What the encoder tells about its features.
        num_classes: Number of classes.
        class_names: Classes to choose from, names or a file with one a line. None: those of the data, or all that the
            classifier has where there are no data (``predict``).

    Raises:
        ConfigError: A class of the data is none of the classifier's, or several of them.
    """

    consumes: ClassVar[str] = "logits"
    output: ClassVar[str] = "label"
    ready: ClassVar[bool] = True

    kept: Tensor

    def __init__(self, info: FeatureInfo, num_classes: int, class_names: list[str] | str | None = None) -> None:
        super().__init__(info, num_classes)
        self.register_buffer("kept", torch.arange(num_classes))

    def start(self, encoder: Encoder, class_names: Sequence[str]) -> None:
        """Find the classes among those of the classifier."""
        if tuple(class_names) == encoder.head_classes:
            return  # also where a name stands for two of them
        places: dict[str, list[int]] = {}
        for position, name in enumerate(encoder.head_classes):
            places.setdefault(_plain(name), []).append(position)
        missing = [name for name in class_names if len(places.get(_plain(name), ())) != 1]
        if not missing:
            self.kept = torch.tensor([places[_plain(name)][0] for name in class_names])
            return
        in_order = all(position in places.get(_plain(name), [position]) for position, name in enumerate(class_names))
        if len(class_names) != len(encoder.head_classes) or not in_order:
            raise ConfigError(
                "The pretrained classifier does not know all classes of the data by these names.",
                given=f"{len(class_names)} classes, among them {listed(missing, 5)}",
                expected=f"some of its {len(encoder.head_classes)} classes by name, or as many in its order; it has "
                f"{listed(encoder.head_classes, 5)}",
                nearest=nearest(missing[0], encoder.head_classes),
                override="decoder=classifier",
            )

    def forward(self, features: Tensor | list[Tensor], size: tuple[int, int]) -> Tensor:
        """Return logits ``(B, num_classes)`` out of those of the classifier, ``(B, N)``."""
        if not isinstance(features, Tensor):
            raise ConfigError("The pretrained classifier gives logits, not maps.")
        return features[:, self.kept]


def _plain(name: str) -> str:
    """Spell a name as it is compared: the libraries write the classes of ImageNet with spaces or underscores."""
    return name.replace("_", " ").lower()
