"""A TorchVision model, run stage by stage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from lightning_vision.encoders.maps import average_to_grid
from lightning_vision.encoders.torchvision_families import Model


class Stages(nn.Module):
    """The modules of a model under their own names, so that a file of weights fits.

    Only they are taken over: the model's ``forward`` gives no maps, and some classes refuse weights that come without
    TorchVision's version number, as those in safetensors do.

    Args:
        model: A model of ``torchvision.models``.
        spec: Where it is cut.
        keep_head: Whether to keep what turns the embedding into logits.
    """

    def __init__(self, model: nn.Module, spec: Model, keep_head: bool) -> None:
        super().__init__()
        self.spec = spec
        self.flatten = nn.Flatten()
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, module in model.named_children():
            self.add_module(name, module)
        self._stages = [self._expand(names) for names in spec.stages]
        self._embed = self._expand(spec.embed)
        self._head = self._expand(spec.head) if keep_head else []
        for name in () if keep_head else spec.head:
            parent, _, last = name.rpartition(".")
            delattr(self.get_submodule(parent), last)

    def levels(self, x: Tensor) -> Any:
        """Run the network: return what the methods below take, here the map ``(B, C, H, W)`` behind each stage."""
        maps = []
        for names in self._stages:
            x = self._run(names, x)
            maps.append(x.movedim(-1, 1) if self.spec.channels_last else x)
        return maps

    def pyramid(self, levels: Any) -> list[Tensor]:
        """Return the maps ``(B, C, H, W)``, fine to coarse."""
        maps: list[Tensor] = levels
        return maps

    def embed(self, levels: Any) -> Tensor:
        """Return the input ``(B, D)`` of the last linear layer."""
        return self._pool(levels[-1])

    def classify(self, levels: Any) -> Tensor:
        """Return the logits."""
        return self._run(self._head, levels[-1] if self.spec.head_sees_map else self.embed(levels)).flatten(1)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bring weights as they are published to the names and shapes of these modules."""
        for pattern, replacement in self.spec.renamed:
            state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
        return state

    def _pool(self, x: Tensor) -> Tensor:
        side = self.spec.pool
        x = x.mean((2, 3), keepdim=True) if side == 1 else average_to_grid(x, (side, side))
        return self._run(self._embed, x).flatten(1)

    def _run(self, names: Iterable[str], x: Tensor) -> Tensor:
        # Looked up on each call: adapters replace modules, and copies of the encoder must use their own.
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def _expand(self, names: Iterable[str]) -> list[str]:
        """Write out ``features[2:4]`` as the names of the items."""
        expanded = []
        for name in names:
            match = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", name)
            if match is None:
                expanded.append(name)
            else:
                items = [item for item, _ in self.get_submodule(match[1]).named_children()]
                expanded += [f"{match[1]}.{item}" for item in items[int(match[2]) : int(match[3])]]
        return expanded
