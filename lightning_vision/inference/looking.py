"""How a model looks at images while it predicts or is tested: as they are, in tiles, from several views."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from lightning_vision.errors import ConfigError, listed
from lightning_vision.inference.choices import OVERLAP, tile_size, views, without_masks
from lightning_vision.inference.tiled import has_mask
from lightning_vision.inference.tiling import Tiling
from lightning_vision.inference.tta import TestTimeAugmentation
from lightning_vision.overrides import override

if TYPE_CHECKING:
    from lightning_vision.module import VisionModule


class Look:
    """A context in which a model predicts in tiles and from several views (``tile``, ``overlap``, ``tta``).

    Args:
        module: The model.
        settings: The config of the checkpoint, with what was typed beside it. Older ones know none of the three.

    Raises:
        ConfigError: The model cannot.
    """

    def __init__(self, module: VisionModule, settings: Mapping[str, Any]) -> None:
        self.module = module
        self.tiling = _tiling(module, settings)
        self.test_time = _test_time(module, settings)

    def __enter__(self) -> Self:
        self.module.tiling, self.module.test_time = self.tiling, self.test_time
        if self.module.global_rank == 0:
            for line in self.lines():
                print(line)
        return self

    def __exit__(self, *_: object) -> None:
        self.module.tiling = self.module.test_time = None

    def lines(self) -> list[str]:
        """What it is, in words; nothing where images are predicted as they are."""
        lines = []
        geometry = self.module.geometry
        if self.tiling is not None:
            tile, seen = (f"{h} x {w}" for h, w in (self.tiling.tile, (geometry.height, geometry.width)))
            scale = "" if tile == seen else f", seen at {seen}"
            lines.append(f"tiles of {tile} pixels{scale}, overlap {self.tiling.overlap:g}, of images that are larger")
        if self.test_time is not None:
            lines.append(f"test-time augmentation: the image as it is, {listed(self.test_time.views)}")
        return lines

    def scored(self, called: str) -> str:
        """Which figures of a test are of tiles, in words; empty where none is.

        Args:
            called: The name of the figures, as in ``test/loss``.
        """
        if self.tiling is None:
            return ""
        name = next(name for name, head in self.module.named_heads() if has_mask(head))
        figure = f"{called}/{self.module.prefix(name)}mean_iou_original"
        return f"{figure} is of tiles; all other figures, tables and pictures are of whole images at the model's size"

    def figures(self) -> dict[str, float]:
        """What it is, in numbers, to stand beside the figures of a test."""
        found: dict[str, float] = {}
        if self.test_time is not None:
            found["tta_views"] = 1.0 + len(self.test_time.views)
        if self.tiling is not None:
            height, width = self.tiling.tile
            found |= {"tile_height": float(height), "tile_width": float(width), "tile_overlap": self.tiling.overlap}
        return found


def _tiling(module: VisionModule, settings: Mapping[str, Any]) -> Tiling | None:
    tile = settings.get("tile")
    if tile is None:
        return None
    if not any(has_mask(head) for _, head in module.named_heads()):
        raise without_masks(tile, {name: head.task.name for name, head in module.named_heads()})
    size = (module.geometry.height, module.geometry.width)
    return Tiling(tile_size(tile, size), settings.get("overlap", OVERLAP))


def _test_time(module: VisionModule, settings: Mapping[str, Any]) -> TestTimeAugmentation | None:
    found = views(settings.get("tta"), module.config.get("augmentation"))
    if not found:
        return None
    if module.average_horizontal_flips and "horizontal_flip" in found:
        others = [view for view in found if view != "horizontal_flip"]
        raise ConfigError(
            "This model averages each image with its mirror image already: a horizontal flip would change nothing.",
            given=f"{override('tta', settings['tta'])}, and a checkpoint with average_horizontal_flips=true",
            override=override("tta", others or "scales"),
        )
    least = module.encoder.min_size
    sides = (module.geometry.height, module.geometry.width)
    smallest = max(m / side for side, m in zip(sides, least, strict=True))
    too_small = [view for view in found if not isinstance(view, str) and view < smallest]
    if too_small:
        raise ConfigError(
            "At this scale the images are smaller than the encoder can take.",
            given=f"tta={too_small[0]} of {sides[0]} x {sides[1]} pixels",
            expected=f"at least {least[0]} x {least[1]} pixels",
            override=override("tta", [view for view in found if view not in too_small] or None),
        )
    return TestTimeAugmentation(found)
