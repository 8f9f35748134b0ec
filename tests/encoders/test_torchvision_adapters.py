"""LoRA on layers whose weights are read, not called."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from lightning_vision.encoders.adapters import AdapterSpec, attach_adapter, default_targets
from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.encoders.torchvision_swin import WindowAttention

pytest.importorskip("peft")


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("swin_transformer", "t"),
        ("swin_transformer", "v2_t"),
        ("vit", "b_32"),
        ("maxvit", "t"),
        ("mobilenetv3", "small"),
    ],
)
def test_every_addition_has_an_effect(family: str, variant: str) -> None:
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(family, variant, use_pretrained=False, adapter={"r": 2})
    outputs = [encoder.embed(x := torch.randn(1, 3, 64, 64)), *encoder.pyramid(x)]
    torch.stack([(o * torch.randn_like(o)).sum() for o in outputs]).sum().backward()
    additions = {n: p for n, p in encoder.named_parameters() if "lora_B" in n}
    assert additions
    for name, parameter in additions.items():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2, nn.MultiheadAttention])
def test_weights_that_are_read_hold_the_additions(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    if kind is nn.MultiheadAttention:
        layer, names, inputs = kind(8, 2, batch_first=True), ["out_proj"], [torch.randn(2, 5, 8)] * 3
    else:
        layer, names, inputs = WindowAttention(kind(8, [4, 4], [2, 2], 2)), ["qkv", "proj"], [torch.randn(2, 9, 6, 8)]
    merged, adapted = copy.deepcopy(layer).eval(), nn.ModuleList([layer]).eval()
    attach_adapter(adapted, AdapterSpec(r=2, alpha=6, target_modules=tuple(names)))
    with torch.no_grad():
        for name in names:
            lora = layer.get_submodule(name)
            nn.init.normal_(lora.lora_B["default"].weight)
            addition = lora.lora_B["default"].weight @ lora.lora_A["default"].weight * 6 / 2
            merged.get_submodule(name).weight += addition
        output, expected = layer(*inputs), merged(*inputs)
    torch.testing.assert_close(output, expected)


def test_a_convolutional_network_is_adapted_in_front_of_its_classifier() -> None:
    convolutions = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]
    classifier = [nn.Linear(4, 4), nn.Linear(4, 4)]
    assert default_targets(nn.Sequential(*convolutions, *classifier)) == ["4", "5", "0", "2", "3"]
    assert default_targets(nn.Sequential(*convolutions[:3], *classifier)) == ["3", "4"]
