"""Each family against TorchVision's own model, and the code that some of them need."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lightning_vision.encoders.base import pad_to_multiple
from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.encoders.torchvision_families import FAMILIES, find_model
from lightning_vision.encoders.torchvision_maxvit import MaxVit, PartitionAttention
from lightning_vision.encoders.torchvision_vit import VisionTransformer
from lightning_vision.errors import ConfigError
from lightning_vision.types import IMAGENET_STATS

SMALLEST = {"convnext": "tiny", "regnet": "y_400mf", "resnet": "18", "vit": "b_32"}
AUXILIARY = ("googlenet", "inceptionv3")
FIXED_SIZE = ("maxvit", "vit")


def smallest(family: str) -> str:
    return SMALLEST.get(family, next(iter(FAMILIES[family])))


@torch.no_grad()
def unlike_new(model: nn.Module) -> Any:
    """A model in which nothing is zero or one, as in a trained one; in eval mode."""
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.numel() == max(value.shape, default=0):
            value.add_(0.1 * torch.randn_like(value))
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    for linear in last:
        nn.init.normal_(linear.weight, std=0.05)
    return model.eval()


def torchvisions(family: str, variant: str) -> Any:
    """TorchVision's own model, with auxiliary classifiers and the scaling inside that come with its weights."""
    arguments = {"aux_logits": True, "transform_input": True, "init_weights": False} if family in AUXILIARY else {}
    return unlike_new(models.get_model(find_model(family, variant).builder, **arguments))


@contextmanager
def undrawn() -> Iterator[None]:
    """Networks whose weights are loaded next are not filled with random numbers first."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("normal_", "trunc_normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def without_last_layer(family: str, plain: Any) -> Any:
    """The same model with the identity in place of its last layer."""
    if family == "squeezenet":
        plain.classifier = nn.AdaptiveAvgPool2d(1)
    else:
        name = [n for n, m in plain.named_modules() if isinstance(m, nn.Linear) and not n.startswith(("aux", "Aux"))][
            -1
        ]
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, nn.Identity())
    return plain


@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_logits_are_torchvisions(family: str) -> None:
    torch.manual_seed(0)
    variant = smallest(family)
    plain = torchvisions(family, variant)
    state = plain.state_dict()
    with undrawn():
        encoder = TorchvisionEncoder(family, variant, use_pretrained=False, keep_head=True).eval()
        grey = TorchvisionEncoder(family, variant, use_pretrained=False, num_channels=1).eval()
    encoder.load_pretrained_state(state, "memory")
    grey.load_pretrained_state(state, "memory")
    assert len(encoder.head_classes) == 1000
    assert not any(name.startswith(find_model(family, variant).head) for name in grey.model.state_dict())
    side = models.get_model_weights(find_model(family, variant).builder)["DEFAULT"].transforms().crop_size[0]
    pixels = torch.rand(1, 3, side, side)

    def normalised(stats: Any) -> Tensor:
        mean, std = (torch.tensor(values)[:, None, None] for values in (stats.mean, stats.std))
        return (pixels - mean) / std

    x, y = normalised(IMAGENET_STATS), normalised(encoder.pixel_stats)
    with torch.no_grad():
        logits = plain(x)
        embedding = without_last_layer(family, plain)(x).flatten(1)
        assert logits.std() > 1e-3, "logits of nothing"
        torch.testing.assert_close(encoder.classify(y), logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(encoder.embed(y), embedding, atol=1e-5, rtol=1e-4)
        small = torch.randn(2, 1, max(75, encoder.min_size[0]), 97)
        expected = encoder.embed(small.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey.embed(small), expected, atol=1e-4, rtol=1e-3)
        if family not in (*FIXED_SIZE, *AUXILIARY):
            padded = pad_to_multiple(small.expand(-1, 3, -1, -1), encoder.multiple)
            torch.testing.assert_close(expected, plain(padded).flatten(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "variant"),
    [("alexnet", "base"), ("squeezenet", "1_0"), ("squeezenet", "1_1"), ("googlenet", "base"), ("inceptionv3", "base")],
)
def test_the_smallest_size_is_the_true_one(family: str, variant: str) -> None:
    encoder = TorchvisionEncoder(family, variant, use_pretrained=False).eval()
    (side, _) = encoder.min_size
    with torch.no_grad():
        assert all(m.isfinite().all() for m in encoder.pyramid(torch.randn(1, 3, side, side)))
        with pytest.raises(ConfigError, match=f"at least {side} x {side} pixels"):
            encoder.embed(torch.randn(1, 3, side - 1, side))
        with pytest.raises(RuntimeError, match=r"too small|greater than actual input"):
            encoder.model.levels(torch.randn(1, 3, side - 1, side))


@pytest.mark.parametrize("family", ["alexnet", "squeezenet", "googlenet", "inceptionv3"])
def test_cells_lie_where_their_stride_says_without_padding_inside(family: str) -> None:
    """The centre of what a cell sees is at most one cell away from the pixels that it stands for."""
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(family, smallest(family), use_pretrained=False).eval()
    size = 298
    x = torch.randn(1, 3, 128, size, requires_grad=True)
    for cells, stride in list(zip(encoder.pyramid(x), encoder.info.strides, strict=True))[-3:]:
        for column in torch.linspace(0.3, 0.7, 4).mul(cells.shape[-1]).long().tolist():
            (gradient,) = torch.autograd.grad(cells[0, :, 1, column].square().sum(), x, retain_graph=True)
            weight = gradient.square().sum((0, 1, 2))
            seen = (weight * (torch.arange(size) + 0.5)).sum() / weight.sum()
            assert abs(seen / stride - (column + 0.5)) < 1


def test_vgg_has_a_level_in_front_of_each_pooling() -> None:
    for variant in FAMILIES["vgg"]:
        with torch.device("meta"):
            features = models.get_model(find_model("vgg", variant).builder, init_weights=False).features
        poolings = [i for i, module in enumerate(features) if isinstance(module, nn.MaxPool2d)]
        ends = [*poolings[1:], len(features)]
        stages = [f"features[{start}:{end}]" for start, end in zip([0, *ends], ends, strict=False)]
        assert [name for (name,) in find_model("vgg", variant).stages] == stages


class TestVit:
    def network(self, **settings: Any) -> models.VisionTransformer:
        torch.manual_seed(0)
        small = {"image_size": 64, "patch_size": 16, "num_layers": 4, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
        return unlike_new(models.VisionTransformer(**{**small, **settings}))

    def test_another_size_interpolates_the_positions(self) -> None:
        plain, larger = self.network(), self.network(image_size=112)
        state = plain.state_dict()
        table = state["encoder.pos_embedding"]
        grid = F.interpolate(
            table[:, 1:].transpose(1, 2).reshape(1, 8, 4, 4),
            (7, 7),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        state["encoder.pos_embedding"] = torch.cat([table[:, :1], grid.reshape(1, 8, 49).transpose(1, 2)], 1)
        larger.load_state_dict(state)
        trunk = VisionTransformer(plain, find_model("vit", "b_16"), keep_head=True).eval()
        x = torch.randn(2, 3, 112, 112)
        torch.testing.assert_close(trunk.classify(trunk.levels(x)), larger(x), atol=1e-5, rtol=1e-5)
        tokens = torch.cat([larger.class_token.expand(2, -1, -1), larger._process_input(x)], 1)
        last = larger.encoder(tokens)[:, 1:].transpose(1, 2).reshape(2, 8, 7, 7)
        torch.testing.assert_close(trunk.pyramid(trunk.levels(x))[-1], last, atol=1e-5, rtol=1e-5)

    def test_maps_come_from_spread_depths(self) -> None:
        trunk = VisionTransformer(self.network(num_layers=12), find_model("vit", "b_16"), keep_head=False).eval()
        assert trunk._depths == [3, 6, 9, 12]
        x = torch.randn(1, 3, 32, 80)
        maps = trunk.pyramid(trunk.levels(x))
        assert [tuple(m.shape) for m in maps] == [(1, 8, 2, 5)] * 4
        trunk.encoder.layers[9] = nn.Identity()
        changed = trunk.pyramid(trunk.levels(x))
        assert [torch.equal(a, b) for a, b in zip(maps, changed, strict=True)] == [True, True, True, False]

    def test_weights_of_another_size_and_of_older_layouts_are_converted(self) -> None:
        trunk = VisionTransformer(self.network(), find_model("vit", "b_16"), keep_head=True)
        state = self.network(image_size=96).state_dict()
        for old, new in (("mlp.0", "mlp.linear_1"), ("mlp.3", "mlp.linear_2")):
            state = {name.replace(old, new): value for name, value in state.items()}
        converted = trunk.convert(state)
        assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in trunk.state_dict().items()}


def test_older_names_of_densenet_are_known() -> None:
    encoder = TorchvisionEncoder("densenet", "121", use_pretrained=False)
    state = models.densenet121().state_dict()
    older = {
        n.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in n
        else n: v
        for n, v in state.items()
    }
    assert older.keys() != state.keys()
    encoder.load_pretrained_state(older, "memory")
    name = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(encoder.model.get_parameter(name), state[name])


class TestMaxVit:
    def network(self, side: int, window: int) -> models.MaxVit:
        torch.manual_seed(0)
        network = models.MaxVit((side, side), 8, window, [8, 8, 16, 16], [1, 1, 1, 1], 8, 0.0)
        return unlike_new(network)

    def test_another_size_interpolates_the_biases(self) -> None:
        plain, smaller = self.network(224, 7), self.network(96, 3)
        state = plain.state_dict()
        for name, value in smaller.state_dict().items():
            if name.endswith("relative_position_index"):
                state[name] = value
            elif name.endswith("relative_position_bias_table"):
                heads = value.shape[1]
                table = state[name].T.reshape(1, heads, 13, 13)
                table = F.interpolate(table, (5, 5), mode="bicubic", antialias=True, align_corners=False)
                state[name] = table.reshape(heads, 25).T
        smaller.load_state_dict(state)
        trunk = MaxVit(plain, find_model("maxvit", "t"), keep_head=True).eval()
        x = torch.randn(2, 3, 96, 96)
        torch.testing.assert_close(trunk.classify(trunk.levels(x)), smaller(x), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", ["window", "grid"])
    def test_partitions_of_an_oblong_map(self, kind: str) -> None:
        """Four partitions of 2 x 3 cells: only the cells of one's own partition matter."""
        layer = next(
            m
            for m in self.network(224, 7).modules()
            if type(m).__name__ == "PartitionAttentionLayer" and m.partition_type == kind and m.n_partitions == 2
        )
        attention = PartitionAttention(layer).eval()
        x = torch.randn(1, 16, 4, 6, requires_grad=True)
        y = attention(x)
        for row in range(4):
            for column in range(6):
                (gradient,) = torch.autograd.grad(y[0, :, row, column].square().sum(), x, retain_graph=True)
                seen = set(map(tuple, gradient[0].abs().sum(0).nonzero().tolist()))
                if kind == "window":
                    expected = {
                        (r, c) for r in range(4) for c in range(6) if r // 2 == row // 2 and c // 3 == column // 3
                    }
                else:
                    expected = {(r, c) for r in range(4) for c in range(6) if r % 2 == row % 2 and c % 2 == column % 2}
                assert seen == expected


def test_no_builder_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for family in AUXILIARY:
            TorchvisionEncoder(family, "base", use_pretrained=False)
