"""TorchVision's architectures with few channels and blocks: the large ones cost tests seconds for each step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torchvision import models
from torchvision.models import convnext, efficientnet, inception, resnet, vgg

CLASSES = 1000


class _SlimBlock(resnet.Bottleneck):
    """A bottleneck without the fourfold width behind it."""

    expansion = 1


def _resnet(groups: int, width: int) -> nn.Module:
    return models.ResNet(_SlimBlock, [1, 1, 1, 1], groups=groups, width_per_group=width)


def _alexnet() -> nn.Module:
    conv, relu, pool = nn.Conv2d, nn.ReLU, partial(nn.MaxPool2d, 3, 2)
    features = [conv(3, 8, 11, 4, 2), relu(), pool(), conv(8, 16, 5, padding=2), relu(), pool()]
    features += [conv(16, 16, 3, padding=1), relu(), conv(16, 16, 3, padding=1), relu()]
    features += [conv(16, 16, 3, padding=1), relu(), pool()]
    head = [nn.Dropout(), nn.Linear(16 * 6 * 6, 32), relu(), nn.Dropout(), nn.Linear(32, 32), relu()]
    return _features_and_classifier(nn.Sequential(*features), nn.Sequential(*head, nn.Linear(32, CLASSES)))


def _vgg11() -> nn.Module:
    features = vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 16, 16, "M", 32, 32, "M"])
    head = [nn.Linear(32 * 7 * 7, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(), nn.Dropout()]
    return _features_and_classifier(features, nn.Sequential(*head, nn.Linear(32, CLASSES)))


def _features_and_classifier(features: nn.Module, classifier: nn.Module) -> nn.Module:
    # The library's own classes would draw a hundred million weights of the classifier first.
    return nn.ModuleDict({"features": features, "classifier": classifier})


def _convnext() -> nn.Module:
    blocks = [convnext.CNBlockConfig(width, out, 1) for width, out in ((8, 16), (16, 32), (32, 64), (64, None))]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.1)


def _efficientnet_v2() -> nn.Module:
    fused, plain = efficientnet.FusedMBConvConfig, efficientnet.MBConvConfig
    early = [fused(1, 3, 1, 8, 8, 1), fused(4, 3, 2, 8, 8, 1), fused(4, 3, 2, 8, 16, 1)]
    late = [plain(4, 3, 2, 16, 16, 1), plain(6, 3, 1, 16, 16, 1), plain(6, 3, 2, 16, 32, 1)]
    return models.EfficientNet([*early, *late], dropout=0.2, last_channel=64)


def _slim_conv(inputs: int, outputs: int, **settings: Any) -> nn.Module:
    # All widths of Inception V3 are multiples of 16.
    return inception.BasicConv2d(inputs if inputs == 3 else inputs // 16, outputs // 16, **settings)


def _inception_v3() -> nn.Module:
    kinds = (inception.InceptionA, inception.InceptionB, inception.InceptionC)
    blocks = [partial(kind, conv_block=_slim_conv) for kind in (*kinds, inception.InceptionD, inception.InceptionE)]
    model = models.Inception3(
        aux_logits=False, init_weights=False, inception_blocks=[_slim_conv, *blocks, inception.InceptionAux]
    )
    model.fc = nn.Linear(2048 // 16, CLASSES)
    return model


def _vit(patch: int) -> nn.Module:
    return models.VisionTransformer(
        image_size=224, patch_size=patch, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32
    )


NARROW: dict[str, Callable[[], nn.Module]] = {
    "alexnet": _alexnet,
    "convnext_tiny": _convnext,
    "densenet121": lambda: models.DenseNet(growth_rate=8, block_config=(2, 2, 2, 2), num_init_features=16),
    "efficientnet_v2_s": _efficientnet_v2,
    "inception_v3": _inception_v3,
    "maxvit_t": lambda: models.MaxVit((224, 224), 8, 7, [8, 16, 16, 32], [1, 1, 1, 1], 8, 0.2),
    "resnext50_32x4d": lambda: _resnet(groups=4, width=4),
    "swin_t": lambda: models.SwinTransformer([4, 4], 16, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7], stochastic_depth_prob=0.2),
    "vgg11": _vgg11,
    "vit_b_16": lambda: _vit(16),
    "vit_b_32": lambda: _vit(32),
    "wide_resnet50_2": lambda: _resnet(groups=1, width=8),
}
_FULL = models.get_model


def narrow_model(name: str, **arguments: object) -> nn.Module:
    """Stand in for ``torchvision.models.get_model``: the same modules under the same names, with random weights.

    Those that are not listed are small enough, and built as they are.
    """
    return NARROW[name]() if name in NARROW else _FULL(name, **arguments)
