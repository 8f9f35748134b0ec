"""The data that travel between the rooms. No torch import: configuration and data checks use these too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

TargetKind = Literal["label", "labels", "mask"]
MaskValues = Literal["index", "binary", "threshold", "color"]
Color = tuple[int, int, int]
Palette = tuple[Color, ...]
Split = Literal["train", "val", "test"]
# In a set of labels: nobody knows whether it belongs there.
UNKNOWN = 255
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Batch(TypedDict):
    """What a loader yields.

    ``image`` uint8 ``(B, C, H, W)``, or in its place ``features`` of the embedding cache, each ``(B, *shape)``;
    ``target`` int64 ``(B,)`` class ids, uint8 ``(B, C)`` sets of labels (1 yes, 0 no, 255 unknown) or uint8
    ``(B, H, W)`` class maps, or float32 where images were mixed (see ``augmentation.mixing.mix_target``), absent when
    there is no target; ``targets``: those of further outputs, by name; ``index``
    int64 ``(B,)``: the row of each sample in the SampleIndex; ``blank`` bool ``(B,)``: the samples that could not be
    decoded, only in a batch that has some and where ``preprocessing.on_bad_image`` keeps them as black images.
    """

    image: NotRequired[Tensor]
    features: NotRequired[list[Tensor]]
    target: NotRequired[Tensor]
    targets: NotRequired[dict[str, Tensor]]
    index: Tensor
    blank: NotRequired[Tensor]


@dataclass(frozen=True)
class FeatureInfo:
    """What an encoder tells before it runs.

    Args:
        channels: Channels of each map that ``pyramid`` returns, fine to coarse.
        strides: Pixels of the input per cell of each map, same order, never decreasing. Equal strides mean an encoder
            of one scale (ViT, mixer), whose maps a neck turns into a pyramid.
        embed_dim: Length of the vector that ``embed`` returns.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    embed_dim: int

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.strides) or not self.channels:
            raise ValueError(f"channels {self.channels} and strides {self.strides} must name the same levels")
        if any(a > b for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise ValueError(f"strides must not decrease from fine to coarse, got {self.strides}")

    @property
    def one_scale(self) -> bool:
        """True if all maps have one stride, so that a decoder of several scales needs a neck."""
        return len(set(self.strides)) == 1 and self.strides[0] > 1


@dataclass(frozen=True)
class PixelStats:
    """Mean and standard deviation per channel of pixels scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, num_channels: int) -> PixelStats:
        """Return the statistics for another number of channels.

        One channel takes the average of all; two (grey and alpha) and four (RGB and alpha) keep the colour statistics
        and give every further channel mean 0.5 and standard deviation 0.5.
        """
        n = len(self.mean)
        if num_channels == n:
            return self
        grey = PixelStats((sum(self.mean) / n,), (sum(self.std) / n,))
        head = grey if num_channels < n else self
        extra = num_channels - len(head.mean)
        return PixelStats(head.mean + (0.5,) * extra, head.std + (0.5,) * extra)

    def repeated(self, count: int) -> PixelStats:
        """Return the statistics of ``count`` images whose channels lie behind each other."""
        return PixelStats(self.mean * count, self.std * count)


IMAGENET_STATS = PixelStats((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF_STATS = PixelStats((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class TargetSpec:
    """What is predicted: saved in every checkpoint, and compared with the data of test and predict by name.

    Args:
        kind: ``label``: one class an image; ``labels``: any number of classes an image; ``mask``: one class a pixel.
        class_names: Name of every class, the position is the class id.
        ignore_index: Id of pixels that are left out of loss and metrics, or None.
        mask_values: How the pixels of a mask file name classes: ``index`` (the value is the class id, palette PNGs
            included), ``binary`` (0 is class 0, 255 is class 1), ``threshold`` (below 128 is class 0, the rest class
            1), or ``color`` (the position of the pixel's colour in ``palette`` is the class id).
        palette: RGB triples in the order of the ids, for drawing; with ``color`` the colours in the files, which may
            have one more than there are classes: that of ``ignore_index``.
        ignore_unseen: With ``color``: a colour that is not in the palette becomes ``ignore_index``. It is an error
            otherwise.
    """

    kind: TargetKind
    class_names: tuple[str, ...]
    ignore_index: int | None = None
    mask_values: MaskValues = "index"
    palette: Palette | None = None
    ignore_unseen: bool = False

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored value."""
        return len(self.class_names)

    def meaning(self) -> dict[str, Any]:
        """Plain data of what decides the class ids: not the names, and no palette that is for drawing."""
        data = self.to_dict() | {"class_names": self.num_classes}
        return data if self.mask_values == "color" else data | {"palette": None}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as a checkpoint holds it."""
        data = asdict(self)
        data["class_names"] = list(self.class_names)
        data["palette"] = None if self.palette is None else [list(c) for c in self.palette]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TargetSpec:
        """Rebuild from ``to_dict``."""
        palette = data["palette"]
        return cls(
            kind=data["kind"],
            class_names=tuple(data["class_names"]),
            ignore_index=data["ignore_index"],
            mask_values=data["mask_values"],
            palette=None if palette is None else tuple((int(r), int(g), int(b)) for r, g, b in palette),
            ignore_unseen=data.get("ignore_unseen", False),
        )


@dataclass(frozen=True)
class Geometry:
    """What every image is brought to.

    Args:
        height: Pixels.
        width: Pixels.
        num_channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA.
        num_inputs: Images a sample. They lie behind each other along the channels of a batch.
    """

    height: int
    width: int
    num_channels: int
    num_inputs: int = 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of a sample, with the channels of all of its images."""
        return (self.num_inputs * self.num_channels, self.height, self.width)


@dataclass(frozen=True)
class Between:
    """Bounds of a number, for ``Annotated[float, Between(0, 1)]``; None means no bound, ``open`` excludes them."""

    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True)
class Below:
    """A number less than another argument's, or equal to it, for ``Annotated[float, Below("max")]``."""

    other: str
    or_equal: bool = False


@dataclass(frozen=True)
class Ordered:
    """Numbers none of which is less than the one before, for ``Annotated[tuple[float, float], Ordered()]``."""


@dataclass(frozen=True)
class Odd:
    """An odd integer, for ``Annotated[int, Between(1), Odd()]``."""


@dataclass(frozen=True)
class OptionsFrom:
    """Valid values come from a torch-free function: ``Annotated[str, OptionsFrom("package.module.function")]``.

    The function takes the whole config node (a plain dict) and returns the valid strings, compared with underscores
    ignored, because Hydra reads ``50_2`` as the integer 502. An empty answer means that any value is valid.
    """

    function: str
