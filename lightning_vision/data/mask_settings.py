"""What the user says about masks, in the settings of the data and in those of preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_vision.data.class_names import split_colors
from lightning_vision.data.mask_colors import hex_color, parse_colors
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, listed
from lightning_vision.overrides import override
from lightning_vision.types import MaskValues, Palette

if TYPE_CHECKING:
    from lightning_vision.data.sources.base import TargetSettings


@dataclass(frozen=True)
class MaskSettings:
    """What the user said about masks.

    Args:
        class_names: Names in the order of the ids, or None.
        num_classes: Number of classes, or None.
        num_classes_key: The setting that says so.
        ignore_index: Id of pixels that do not count, or None.
        mask_values: What the values mean; ``auto`` = found in the files.
        colors: Colours in the order of the ids, or None = found in the files; for ``color``.
        palette: Colours for drawing, or None = those of the files; for all else.
        binarize: Grey masks of two classes are cut at ``THRESHOLD``.
        ignore_unseen: A colour that is no class does not count.
    """

    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    num_classes_key: str = "data.num_classes"
    ignore_index: int | None = None
    mask_values: Literal["auto"] | MaskValues = "auto"
    colors: Palette | None = None
    palette: Palette | None = None
    binarize: bool = False
    ignore_unseen: bool = False


def mask_settings(
    names: tuple[str, ...] | None, settings: TargetSettings, preprocessing: Preprocessing
) -> MaskSettings:
    """Bring together what data and preprocessing say about masks.

    Args:
        names: What ``read_class_names`` returned.
        settings: Those of the source.
        preprocessing: Its ``infer_image_num_classes``, ``num_classes`` and ``unseen_color`` count.

    Raises:
        ConfigError: Two settings contradict each other, or a colour is none.
    """
    names, palette = split_colors(names)
    colors = None if settings.colors is None else parse_colors(settings.colors)
    infer, kind = preprocessing.infer_image_num_classes, settings.mask_values
    by_color = infer or colors is not None or kind == "color"
    if by_color and kind not in ("auto", "color"):
        unset = ["preprocessing.infer_image_num_classes=false"] if infer else []
        unset = [" ".join([*unset, *(["data.colors=null"] if colors is not None else [])])]
        raise ConfigError(
            "two settings contradict each other: whether colours are the classes",
            given=f"data.mask_values={kind}, and "
            + (
                "preprocessing.infer_image_num_classes=true" if infer else f"data.colors of {len(colors or ())} colours"
            ),
            override=["data.mask_values=auto", *unset],
        )
    if by_color and palette is not None and colors not in (None, palette):
        raise ConfigError(
            "data.colors contradicts the colours in the file of data.class_names",
            given=listed(map(hex_color, colors or ()), 12),
            expected=listed(map(hex_color, palette), 12),
            override="data.colors=null",
        )
    ignore_unseen = preprocessing.unseen_color == "ignore"
    if ignore_unseen and not by_color:
        raise ConfigError(
            "preprocessing.unseen_color is about masks whose colours are the classes, and these hold class ids",
            given="preprocessing.unseen_color=ignore",
            expected="error, or masks that are read by their colours",
            override=[
                "preprocessing.unseen_color=error",
                "preprocessing.infer_image_num_classes=true  (every colour is a class)",
                f"{override('data.colors', ['#000000', '#ff0000'])}  (of each class)",
            ],
        )
    count, other = preprocessing.num_classes, settings.num_classes
    if count is not None and other is not None and count != other:
        raise ConfigError(
            "preprocessing.num_classes contradicts data.num_classes",
            given=f"preprocessing.num_classes={count}, data.num_classes={other}",
            override=[f"data.num_classes={count}", f"preprocessing.num_classes={other}"],
        )
    return MaskSettings(
        class_names=names,
        num_classes=other if count is None else count,
        num_classes_key="data.num_classes" if count is None else "preprocessing.num_classes",
        ignore_index=settings.ignore_index,
        mask_values="color" if by_color else kind,
        colors=(colors or palette) if by_color else None,
        palette=palette,
        binarize=count == 2,
        ignore_unseen=ignore_unseen,
    )
