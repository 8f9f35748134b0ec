"""TorchVision's classification models: their variants, and where each is cut into stages. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from lightning_vision.annotations import spelled
from lightning_vision.errors import ConfigError, listed, nearest
from lightning_vision.types import HALF_STATS, PixelStats

# Families with stochastic depth.
STOCHASTIC = ("convnext", "efficientnet", "efficientnetv2", "maxvit", "swin_transformer")


@dataclass(frozen=True)
class Model:
    """What has to be known about one model.

    Modules are dotted names; ``features[2:4]`` are items 2 and 3 of a sequence.

    Args:
        builder: Name of the function in ``torchvision.models``.
        first_conv: The convolution that sees the image.
        head: What turns the embedding into logits, run in order. Not kept, and dropped from a file of weights, unless
            the classifier is asked for.
        stages: For each level of the pyramid the modules that lead to it, run in order.
        strides: Pixels per cell of each level.
        embed: Modules between the pooled last map and the embedding, such as the first layers of a deep classifier.
        pool: Cells a side of the pooled map.
        trunk: How the modules are run: stage by stage, or by code of their own (``torchvision.TRUNKS``).
        channels_last: Maps inside are ``(B, H, W, C)``.
        head_sees_map: The head's layers are convolutions, run before pooling.
        multiple: Images are padded to a multiple of this: what the model would drop at the right and bottom, or needs.
        min_size: Smallest height and width, in pixels.
        build: Further arguments of the builder.
        dropped: Modules of a file of weights that are of no use here: classifiers of inner layers, for training only.
        renamed: Regular expressions and replacements for names in a file: older layouts, and layers replaced here.
        stats: Statistics of the pixels, where they are not those that the weights' preprocessing states.
    """

    builder: str
    first_conv: str
    head: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...] = ()
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    embed: tuple[str, ...] = ()
    pool: int = 1
    trunk: Literal["stages", "maxvit", "swin", "vit"] = "stages"
    channels_last: bool = False
    head_sees_map: bool = False
    multiple: int = 1
    min_size: int = 1
    build: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    stats: PixelStats | None = None


def _cut(*ends: int) -> tuple[tuple[str, ...], ...]:
    """Cut the sequence ``features`` into stages that end at ``ends``."""
    return tuple((f"features[{start}:{end}]",) for start, end in zip((0, *ends), ends, strict=False))


def _models(builders: Mapping[str, str], **settings: Any) -> dict[str, Model]:
    return {variant: Model(builder, **settings) for variant, builder in builders.items()}


def _resnets(builders: Mapping[str, str]) -> dict[str, Model]:
    return _models(
        builders,
        stages=(("conv1", "bn1", "relu"), ("maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",)),
        first_conv="conv1",
        head=("fc",),
    )


def _efficientnet(builder: str, end: int = 9) -> Model:
    return Model(builder, "features.0.0", ("classifier",), _cut(2, 3, 4, 6, end))


def _vgg(builder: str, convolutions: tuple[int, ...], modules: int) -> Model:
    """Return a VGG with so many convolutions, each of so many modules, in front of each pooling.

    The finest level is that of stride 2; what comes before has the full size of the image.
    """
    poolings = list(accumulate(convolutions, lambda at, count: at + 1 + count * modules, initial=-1))[1:]
    return Model(
        builder,
        stages=_cut(*poolings[1:], poolings[-1] + 1),
        first_conv="features.0",
        embed=("flatten", "classifier[0:6]"),
        head=("classifier.6",),
        pool=7,
        multiple=32,
    )


def _vit(builder: str, patch: int, **build: Any) -> Model:
    """Return a vision transformer: four maps of one stride."""
    return Model(
        builder,
        first_conv="conv_proj",
        head=("heads",),
        strides=(patch,) * 4,
        trunk="vit",
        multiple=patch,
        build=build,
        renamed=(
            (r"\.mlp\.linear_1\.", ".mlp.0."),  # as the published files have it
            (r"\.mlp\.linear_2\.", ".mlp.3."),
            (r"\.self_attention\.in_proj_(weight|bias)$", r".self_attention.in_proj.\1"),
        ),
    )


def _dense_stage(block: int) -> tuple[str, ...]:
    """Return what leads from one dense block behind the norm and activation that follow the next."""
    before, behind = f"features.transition{block - 1}", f"features.transition{block}"
    # The last activation has no module of its own.
    norm = (f"{behind}.norm", f"{behind}.relu") if block < 4 else ("features.norm5", "features.relu0")
    pool = (f"{before}.conv", f"{before}.pool") if block > 1 else ("features.pool0",)
    return (*pool, f"features.denseblock{block}", *norm)


_EFFICIENTNET_V2 = {
    "s": _efficientnet("efficientnet_v2_s", end=8),
    "m": _efficientnet("efficientnet_v2_m"),
    "l": _efficientnet("efficientnet_v2_l"),
}

FAMILIES: dict[str, dict[str, Model]] = {
    "alexnet": {
        "base": Model(
            "alexnet",
            stages=_cut(2, 5, 12, 13),
            strides=(4, 8, 16, 32),
            first_conv="features.0",
            embed=("flatten", "classifier[0:6]"),
            head=("classifier.6",),
            pool=6,
            min_size=63,
        )
    },
    "convnext": _models(
        {v: f"convnext_{v}" for v in ("tiny", "small", "base", "large")},
        stages=_cut(2, 4, 6, 8),
        strides=(4, 8, 16, 32),
        first_conv="features.0.0",
        embed=("classifier[0:2]",),
        head=("classifier.2",),
        multiple=32,
    ),
    "densenet": _models(
        {v: f"densenet{v}" for v in ("121", "161", "169", "201")},
        stages=(
            ("features.conv0", "features.norm0", "features.relu0"),
            *(_dense_stage(block) for block in (1, 2, 3, 4)),
        ),
        first_conv="features.conv0",
        head=("classifier",),
        multiple=32,
        renamed=((r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2."),),  # as the published files have it
    ),
    "efficientnet": {
        **{f"b{i}": _efficientnet(f"efficientnet_b{i}") for i in range(8)},
        **{f"v2_{variant}": model for variant, model in _EFFICIENTNET_V2.items()},
    },
    "efficientnetv2": _EFFICIENTNET_V2,
    # GoogLeNet's and Inception's weights come from TensorFlow, with pixels from -1 to 1. TorchVision normalises pixels
    # with ImageNet's statistics and undoes that inside (transform_input); here they are scaled from -1 to 1 at once.
    # Without init_weights, torch's own initialisation: TorchVision's makes Inception overflow in half precision.
    "googlenet": {
        "base": Model(
            "googlenet",
            stages=(
                ("conv1",),
                ("maxpool1", "conv2", "conv3"),
                ("maxpool2", "inception3a", "inception3b"),
                ("maxpool3", *(f"inception4{i}" for i in "abcde")),
                ("maxpool4", "inception5a", "inception5b"),
            ),
            first_conv="conv1.conv",
            head=("dropout", "fc"),
            min_size=15,
            build={"aux_logits": False, "init_weights": False},
            dropped=("aux1", "aux2"),
            stats=HALF_STATS,
        )
    },
    "inceptionv3": {
        "base": Model(
            "inception_v3",
            stages=(
                ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
                ("maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
                ("maxpool2", *(f"Mixed_5{i}" for i in "bcd")),
                tuple(f"Mixed_6{i}" for i in "abcde"),
                tuple(f"Mixed_7{i}" for i in "abc"),
            ),
            first_conv="Conv2d_1a_3x3.conv",
            head=("dropout", "fc"),
            min_size=75,
            build={"aux_logits": False, "init_weights": False},
            dropped=("AuxLogits",),
            stats=HALF_STATS,
        )
    },
    "maxvit": {
        "t": Model(
            "maxvit_t",
            stages=(("stem",), *((f"blocks.{i}",) for i in range(4))),
            first_conv="stem.0.0",
            embed=("flatten", "classifier[2:5]"),
            head=("classifier.5",),
            trunk="maxvit",
            multiple=32,
        )
    },
    "mnasnet": _models(
        {v: f"mnasnet{v}" for v in ("0_5", "0_75", "1_0", "1_3")},
        stages=(("layers[0:8]",), ("layers[8:9]",), ("layers[9:10]",), ("layers[10:12]",), ("layers[12:17]",)),
        first_conv="layers.0",
        head=("classifier",),
    ),
    # The last map is the 1280 channels that the classifier pools, as other segmentation libraries have it.
    "mobilenetv2": {"base": Model("mobilenet_v2", "features.0.0", ("classifier",), _cut(2, 4, 7, 14, 19))},
    "mobilenetv3": {
        variant: Model(
            f"mobilenet_v3_{variant}",
            stages=stages,
            first_conv="features.0.0",
            embed=("flatten", "classifier[0:3]"),
            head=("classifier.3",),
        )
        for variant, stages in (("small", _cut(1, 2, 4, 9, 13)), ("large", _cut(2, 4, 7, 13, 17)))
    },
    "regnet": _models(
        {
            f"{kind}_{size}": f"regnet_{kind}_{size}"
            for kind, sizes in (
                ("x", ("1_6gf", "16gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
                ("y", ("128gf", "16gf", "1_6gf", "32gf", "3_2gf", "400mf", "800mf", "8gf")),
            )
            for size in sizes
        },
        stages=(("stem",), *((f"trunk_output.block{i}",) for i in (1, 2, 3, 4))),
        first_conv="stem.0",
        head=("fc",),
    ),
    "resnet": _resnets({v: f"resnet{v}" for v in ("18", "34", "50", "101", "152")}),
    "resnext": _resnets({v: f"resnext{v}" for v in ("50_32x4d", "101_32x8d", "101_64x4d")}),
    "shufflenet_v2": _models(
        {v: f"shufflenet_v2_{v}" for v in ("x0_5", "x1_0", "x1_5", "x2_0")},
        stages=(("conv1",), ("maxpool",), ("stage2",), ("stage3",), ("stage4", "conv5")),
        first_conv="conv1.0",
        head=("fc",),
    ),
    # The classifier is a convolution: the embedding is the average of the map that it sees.
    "squeezenet": {
        variant: Model(
            f"squeezenet{variant}",
            stages=stages,
            strides=(2, 4, 8, 16),
            first_conv="features.0",
            head=("classifier",),
            head_sees_map=True,
            min_size=min_size,
        )
        for variant, stages, min_size in (("1_0", _cut(2, 6, 11, 13), 21), ("1_1", _cut(2, 5, 8, 13), 17))
    },
    # Any size: the model itself pads its windows, and its maps when it halves them.
    "swin_transformer": _models(
        {v: f"swin_{v}" for v in ("t", "s", "b", "v2_t", "v2_s", "v2_b")},
        stages=(("features[0:2]",), ("features[2:4]",), ("features[4:6]",), ("features[6:8]", "norm")),
        strides=(4, 8, 16, 32),
        first_conv="features.0.0",
        head=("head",),
        trunk="swin",
        channels_last=True,
        multiple=4,
    ),
    "vgg": {
        f"{layers}{suffix}": _vgg(f"vgg{layers}{suffix}", convolutions, modules)
        for layers, convolutions in (
            ("11", (1, 1, 2, 2, 2)),
            ("13", (2, 2, 2, 2, 2)),
            ("16", (2, 2, 3, 3, 3)),
            ("19", (2, 2, 4, 4, 4)),
        )
        for suffix, modules in (("", 2), ("_bn", 3))
    },
    "vit": {
        "b_16": _vit("vit_b_16", 16),
        "b_32": _vit("vit_b_32", 32),
        "l_16": _vit("vit_l_16", 16),
        "l_32": _vit("vit_l_32", 32),
        "h_14": _vit("vit_h_14", 14, image_size=518),
    },
    "wide_resnet": _resnets({v: f"wide_resnet{v}" for v in ("50_2", "101_2")}),
}


def families(node: Mapping[str, Any]) -> list[str]:
    """Return all families."""
    return list(FAMILIES)


def variants(node: Mapping[str, Any]) -> list[str]:
    """Return the variants of the family that the config node names; none if it names no known family."""
    return list(FAMILIES.get(str(node.get("family")), ()))


def find_model(family: str, variant: str | int) -> Model:
    """Return a model by family and variant.

    Underscores and dots do not count: Hydra may turn ``50_2`` into 502, and ``0_5`` may be typed as 0.5.

    Raises:
        ConfigError: If there is no such family, or if it has no such variant.
    """
    if family not in FAMILIES:
        raise ConfigError(
            "TorchVision has no such family.",
            given=family,
            expected=listed(FAMILIES),
            nearest=nearest(family, FAMILIES),
        )
    known = FAMILIES[family]
    # Exact names first: without underscores x_1_6gf and x_16gf are the same.
    plain = {spelled(name): model for name, model in known.items()}
    found = known.get(str(variant)) or plain.get(spelled(variant))
    if found is None:
        raise ConfigError(
            f"{family} has no such variant.",
            given=f"encoder.model_variant={variant}",
            expected=listed(known),
            nearest=nearest(str(variant), known),
            override=f"encoder.model_variant={next(iter(known))}",
        )
    return found
