from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from torchvision import models

from lightning_vision.checks import check, plain
from lightning_vision.config import compose
from lightning_vision.encoders.torchvision_families import FAMILIES, families, find_model, variants
from lightning_vision.options import load_option

# Family, default and options as the document on image encoders lists them; then the builder in TorchVision. The
# document names EfficientNetV2 without a section of its own, and no options of VGG.
DOCUMENTED = """
alexnet          | base     | base                                 | alexnet
convnext         | base     | tiny, small, base, large             | convnext_{}
densenet         | 121      | 121, 161, 169, 201                   | densenet{}
efficientnet     | b0       | b0, b1, b2, b3, b4, b5, b6, b7, v2_s, v2_m, v2_l | efficientnet_{}
efficientnetv2   | s        | s, m, l                              | efficientnet_v2_{}
googlenet        | base     | base                                 | googlenet
inceptionv3      | base     | base                                 | inception_v3
maxvit           | t        | t                                    | maxvit_{}
mnasnet          | 0_5      | 0_5, 0_75, 1_0, 1_3                  | mnasnet{}
mobilenetv2      | base     | base                                 | mobilenet_v2
mobilenetv3      | small    | small, large                         | mobilenet_v3_{}
regnet           | x_1_6gf  | x_1_6gf, x_16gf, x_32gf, x_3_2gf, x_400mf, x_800mf, x_8gf, y_128gf, y_16gf, y_1_6gf, \
y_32gf, y_3_2gf, y_400mf, y_800mf, y_8gf | regnet_{}
resnet           | 50       | 18, 34, 50, 101, 152                 | resnet{}
resnext          | 50_32x4d | 50_32x4d, 101_32x8d, 101_64x4d       | resnext{}
shufflenet_v2    | x0_5     | x0_5, x1_0, x1_5, x2_0               | shufflenet_v2_{}
squeezenet       | 1_0      | 1_0, 1_1                             | squeezenet{}
swin_transformer | t        | t, s, b                              | swin_{}
vgg              | 11       | 11, 13, 16, 19, 11_bn, 13_bn, 16_bn, 19_bn | vgg{}
vit              | b_16     | b_16, b_32, l_16, l_32, h_14         | vit_{}
wide_resnet      | 50_2     | 50_2, 101_2                          | wide_resnet{}
"""
ROWS = [[cell.strip() for cell in line.split("|")] for line in DOCUMENTED.strip().splitlines()]
OPTIONS = [
    pytest.param(family, option, builder.format(option), id=f"{family}-{option}")
    for family, _, options, builder in ROWS
    for option in options.split(", ")
]


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return plain(compose())


def test_all_documented_families_are_there() -> None:
    assert families({}) == sorted(row[0] for row in ROWS)


@pytest.mark.parametrize(("family", "default"), [row[:2] for row in ROWS])
def test_the_default_is_the_documented_one(family: str, default: str) -> None:
    assert compose([f"encoder={family}"])["encoder"]["model_variant"] == default


@pytest.mark.parametrize(("family", "option", "builder"), OPTIONS)
def test_every_documented_option_can_be_typed(family: str, option: str, builder: str, base: dict[str, Any]) -> None:
    """What Hydra's grammar makes of the word (50_2 is the number 502, 1_0 is 10) is accepted and found."""
    node = load_option("encoder", family)
    value = OverridesParser.create().parse_override(f"encoder.model_variant={option}").value()
    check({**base, "encoder": {**node, "model_variant": value}}, {"encoder": family})
    assert find_model(node["family"], value).builder == builder


@pytest.mark.parametrize(("family", "option"), [("wide_resnet", "50_2"), ("mnasnet", "0_75"), ("vgg", "19_bn")])
def test_a_typed_option_reaches_the_config(family: str, option: str) -> None:
    encoder = compose([f"encoder={family}", f"encoder.model_variant={option}"])["encoder"]
    assert find_model(encoder["family"], encoder["model_variant"]) == find_model(family, option)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_variant_has_default_weights_of_the_size_it_is_built_for(family: str) -> None:
    for variant in variants({"family": family}):
        model = find_model(family, variant)
        meta = models.get_model_weights(model.builder)["DEFAULT"].meta
        assert len(meta["categories"]) == 1000
        if family == "vit":
            assert meta["min_size"] == (model.build.get("image_size", 224),) * 2


def test_underscores_do_not_count_where_they_tell_nothing_apart() -> None:
    assert find_model("resnet", 50).builder == "resnet50"
    assert find_model("wide_resnet", 502).builder == "wide_resnet50_2"
    assert find_model("regnet", "x_1_6gf").builder == "regnet_x_1_6gf"
    assert find_model("regnet", "x_16gf").builder == "regnet_x_16gf"
