"""What a network returns for images of which size, found out by running it on black ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_vision.errors import ConfigError

# Sides in pixels: multiples of the usual strides and patches.
SIDES = (64, 240, 224, 512)


@dataclass(frozen=True)
class Findings:
    """What a network returns.

    Args:
        channels: Channels of each map, fine to coarse, or the length of the vector.
        strides: Pixels per cell of each map; empty for a vector.
        multiple: What the sides of an image must be a multiple of.
        least: Smallest side in pixels, before padding to that multiple.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int = 1
    least: int = 1


class Prober:
    """Runs a network on black images.

    Args:
        run: Images ``(1, C, H, W)`` to maps ``(1, C_i, H_i, W_i)``, fine to coarse, or to one vector ``(1, D)``.
        num_channels: Channels of the images.
        name: Name of the network, for messages.
    """

    def __init__(self, run: Callable[[Tensor], list[Tensor]], num_channels: int, name: str) -> None:
        self.run = run
        self.num_channels = num_channels
        self.name = name
        self.error: Exception | None = None

    def at(self, height: int, width: int) -> list[Tensor] | None:
        """Return the features of one image, None if the network cannot be run on this size."""
        try:
            with torch.no_grad():
                return self.run(torch.zeros(1, self.num_channels, height, width))
        except ConfigError:
            raise
        except Exception as error:  # a network may raise anything at a size that it does not take
            self.error = error
            return None

    def one_size(self, height: int, width: int) -> Findings:
        """Return what a network that takes one size returns for it.

        Raises:
            ConfigError: It does not take that size, or its maps are not laid out in square cells.
        """
        features = self.at(height, width)
        if features is None:
            raise self._cannot_run(f"{height} x {width} pixels", "encoder.image_size=null")
        channels = tuple(f.shape[1] for f in features)
        if features[0].ndim == 2:
            return Findings(channels, ())
        strides = tuple(round(height / m.shape[-2]) for m in features)
        if strides != tuple(round(width / m.shape[-1]) for m in features):
            raise self._not_square(features)
        return Findings(channels, strides)

    def any_size(self) -> Findings:
        """Return what a network that takes many sizes returns.

        Raises:
            ConfigError: It does not, or its maps do not grow with the image.
        """
        unfit: list[Tensor] = []
        for side in SIDES:
            runs = [features for n in (1, 2, 3) if (features := self.at(n * side, n * side)) is not None]
            if len(runs) < 3:
                continue
            strides = _strides(runs, side)
            if strides is None:
                unfit = unfit or runs[0]
                continue
            divisors = (d for d in range(1, side + 1) if side % d == 0)
            multiple = next((d for d in divisors if self._grows(runs[0], strides, side, d)), side)
            return Findings(tuple(f.shape[1] for f in runs[0]), strides, multiple, self._least(side, multiple))
        if unfit:
            raise self._not_square(unfit)
        raise self._cannot_run("several sizes", "encoder.image_size=224")

    def _grows(self, before: list[Tensor], strides: tuple[int, ...], side: int, step: int) -> bool:
        """Whether an image that is larger by a step gives maps that are larger by the cells that this needs."""
        features = self.at(side + step, side + step)
        return features is not None and all(
            m.shape[-1] - b.shape[-1] == -(-(side + step) // s) - side // s
            for m, b, s in zip(features, before, strides, strict=False)
        )

    def _least(self, works: int, multiple: int) -> int:
        low, high = 0, -(-works // multiple)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.at(middle * multiple, middle * multiple) is None else (low, middle)
        return (high - 1) * multiple + 1

    def _cannot_run(self, sizes: str, override: str) -> ConfigError:
        return ConfigError(
            f"{self.name} cannot be run on images of {sizes}: {self.error}",
            given=f"images of {self.num_channels} channels",
            expected="a module that takes images of any size, or the one size that it takes",
            override=override,
        )

    def _not_square(self, features: Sequence[Tensor]) -> ConfigError:
        return ConfigError(
            f"The features of {self.name} do not lie over the image in square cells.",
            given=", ".join(f"{tuple(m.shape)}" for m in features),
            expected="maps (B, C, H / s, W / s) with a whole number s for each, or vectors of one length, at any size",
            override="encoder.image_size=224",
        )


def _strides(runs: Sequence[list[Tensor]], side: int) -> tuple[int, ...] | None:
    """Return the strides by which the maps grow from one to two and to three sides, None if there are no such."""
    if len({len(run) for run in runs}) > 1 or len({run[0].ndim for run in runs}) > 1:
        return None
    if runs[0][0].ndim == 2:
        return () if len({run[0].shape[1] for run in runs}) == 1 else None
    strides = []
    for first, second, third in zip(*runs, strict=True):
        steps = {b.shape[i] - a.shape[i] for a, b in ((first, second), (second, third)) for i in (-2, -1)}
        step = steps.pop()
        if steps or step < 1 or side % step:
            return None
        strides.append(side // step)
    return tuple(strides)
