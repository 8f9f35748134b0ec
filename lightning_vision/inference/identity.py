"""All that predictions depend on, as plain data: whether a run goes on behind another one's rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import lightning_vision
from lightning_vision.data.index import SampleIndex
from lightning_vision.settings import OF_PREDICT, OWN_PREPROCESSING, PLACES

# When and where something is computed, and what is told of it.
_NO_MATTER = (*PLACES, *OF_PREDICT, "callbacks", "logger", "data", "seed")
_DECIDES = ("on_bad_image", "unseen_color")


def about(module: nn.Module, images: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a prediction.

    Args:
        module: The model, by all of its weights.
        images: What tells these images from others.
        settings: The config; what changes no prediction is left out.
    """
    kept = {key: value for key, value in settings.items() if key not in _NO_MATTER}
    kept["preprocessing"] = {
        key: value
        for key, value in kept.get("preprocessing", {}).items()
        if key not in OWN_PREPROCESSING or key in _DECIDES
    }
    versions = {"torch": torch.__version__, "lightning_vision": lightning_vision.__version__}
    return {"model": weights_digest(module), **images, "versions": versions, **dict(_flat(kept))}


def weights_digest(module: nn.Module) -> str:
    """Digest of the names and values of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def images_digest(index: SampleIndex) -> str:
    """Digest of the paths of all images, in their order, with the size and the time of change of each file."""
    digest = hashlib.blake2b(digest_size=16)
    for column in index.images:
        digest.update(column.offsets.data)
        digest.update(column.data.data)
        for path in column:
            try:
                found = os.stat(path)
            except (OSError, ValueError):  # it is told as unreadable when its turn comes
                digest.update(b"none ")
            else:
                digest.update(b"%d %d " % (found.st_size, found.st_mtime_ns))
    return digest.hexdigest()


def file_identity(path: str) -> list[Any]:
    """What tells a file from another, or from what it was before: path, size and time of change."""
    found = os.stat(path)
    return [path, found.st_size, found.st_mtime_ns]


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
