"""Which layer of an encoder each parameter lies in."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torchvision import models
from transformers import Dinov2Config, Dinov2Model

from lightning_vision.depth import parameter_layers


def named(network: nn.Module) -> list[set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    layers = [[names[id(parameter)] for parameter in layer] for layer in parameter_layers(network)]
    flat = [name for layer in layers for name in layer]
    assert sorted(flat) == sorted(names.values()), "every parameter lies in one layer"
    return [set(layer) for layer in layers]


def prefixes(network: nn.Module, parts: int) -> list[set[str]]:
    return [{".".join(name.split(".")[:parts]) for name in layer} for layer in named(network)]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_of_timms_models_they_are_timms(name: str) -> None:
    model = timm.create_model(name, num_classes=0)
    wrapped = nn.ModuleDict({"model": model})
    layers = parameter_layers(wrapped)
    scale = {id(p): 0.5 ** (len(layers) - 1 - i) for i, layer in enumerate(layers) for p in layer}
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    theirs = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert scale == theirs
    assert len(layers) > 3


def test_of_a_residual_network_they_are_its_blocks() -> None:
    with torch.device("meta"):
        model = models.resnet18()
    del model.fc
    blocks = [{f"layer{stage}.{block}"} for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert prefixes(nn.ModuleDict({"model": model}), 3)[1:] == [{f"model.{b}" for b in block} for block in blocks]
    assert named(model)[0] == {"conv1.weight", "bn1.weight", "bn1.bias"}


def test_of_stages_they_are_the_blocks_inside() -> None:
    with torch.device("meta"):
        model = models.convnext_tiny().features
    found = prefixes(model, 2)
    stages = [[f"{2 * i + 1}.{block}" for block in range(n)] for i, n in enumerate((3, 3, 9, 3))]
    assert [layer for layer in found if len(layer) == 1] == [{block} for stage in stages for block in stage]
    assert len(found) == 3 + 3 + 9 + 3 + 4, "the stem and three downsamplings stand between"


def test_of_branches_side_by_side_they_are_the_whole() -> None:
    with torch.device("meta"):
        model = models.googlenet(init_weights=False, aux_logits=False)
    found = prefixes(model, 1)
    assert found[:3] == [{"conv1"}, {"conv2"}, {"conv3"}]
    assert found[3] == {"inception3a"}
    assert len(found) == 3 + 9 + 1


def test_of_bare_layers_they_are_each_weight_with_its_norm() -> None:
    parts = [
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3),
    ]
    model = nn.ModuleDict({"features": nn.Sequential(*parts), "norm": nn.LayerNorm(4)})
    assert prefixes(model, 2) == [
        {"features.0", "features.1"},
        {"features.3", "features.4"},
        {"features.5"},
        {"norm.weight", "norm.bias"},
    ]


def test_of_a_transformer_they_are_embeddings_blocks_and_the_norm() -> None:
    config = Dinov2Config(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, image_size=28)
    found = named(nn.ModuleDict({"model": Dinov2Model(config)}))
    assert len(found) == 5
    assert all("embeddings" in name for name in found[0])
    for i, layer in enumerate(found[1:4]):
        assert all(f"layer.{i}." in name or f"layers.{i}." in name for name in layer)
    assert found[4] == {"model.layernorm.weight", "model.layernorm.bias"}


def test_a_network_around_one_of_timm_loses_no_parameter() -> None:
    network = nn.Sequential(timm.create_model("test_resnet", pretrained=False, num_classes=8), nn.Linear(8, 4))
    found = [id(p) for layer in parameter_layers(network) for p in layer]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
