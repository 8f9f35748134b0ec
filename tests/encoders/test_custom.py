from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_vision import config
from lightning_vision.config import compose, instantiate
from lightning_vision.encoders.base import Encoder
from lightning_vision.encoders.custom import CustomEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder
from lightning_vision.testing.encoders import TinyEncoder
from lightning_vision.types import IMAGENET_STATS, FeatureInfo


class Halving(nn.Module):
    """Maps of strides 2, 4, 8 in any order and wrapping; sizes are rounded up."""

    def __init__(self, wrap: Callable[[list[Tensor]], Any] = list, channels: int = 3) -> None:
        super().__init__()
        self.wrap = wrap
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in ((channels, 4), (4, 8), (8, 6))
        )

    def forward(self, x: Tensor) -> Any:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.wrap(maps)


class Hourglass(nn.Module):
    """One map of stride 1, but two poolings inside, so that sides must be a multiple of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(8, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.cat([x, F.interpolate(F.max_pool2d(x, 4), scale_factor=4)], 1))


class Valid(nn.Module):
    """A map that loses its border: kernels and pooling without padding, stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Patches(nn.Module):
    """Patches of 14 pixels; other sizes are refused."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 14, 14)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % 14 == x.shape[-2] % 14 == 0, "no multiple of the patch"
        return self.conv(x)


class Vector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


class OneSize(nn.Module):
    """Learned positions for images of 32 x 48 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.positions = nn.Conv2d(3, 6, 8, 8), nn.Parameter(torch.randn(6, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.positions


@pytest.mark.parametrize(
    ("module", "arguments", "info", "multiple", "least"),
    [
        (Halving, {}, FeatureInfo((4, 8, 6), (2, 4, 8), 6), 1, 1),
        (Hourglass, {}, FeatureInfo((5,), (1,), 5), 4, 1),
        (Valid, {}, FeatureInfo((4,), (2,), 4), 2, 9),
        (Patches, {}, FeatureInfo((6,), (14,), 6), 14, 1),
        (OneSize, {"image_size": [32, 48]}, FeatureInfo((6,), (8,), 6), 1, 1),
    ],
)
def test_what_a_module_returns_is_found_out(
    module: type[nn.Module], arguments: dict[str, Any], info: FeatureInfo, multiple: int, least: int
) -> None:
    torch.manual_seed(0)

    def build(**changes: Any) -> CustomEncoder:
        return CustomEncoder(**{"module": module(), **arguments, **changes})

    encoder = build()
    assert encoder.info == info
    assert (encoder.multiple, encoder.min_size) == (multiple, (least, least))
    check_encoder(encoder, build)


@pytest.mark.parametrize("wrap", [tuple, lambda maps: maps[::-1], lambda maps: dict(zip("abc", maps, strict=True))])
def test_maps_come_in_any_order_and_wrapping(wrap: Callable[[list[Tensor]], Any]) -> None:
    module = Halving(wrap)
    encoder = CustomEncoder(module).eval()
    assert encoder.info == FeatureInfo((4, 8, 6), (2, 4, 8), 6)
    x = torch.randn(2, 3, 37, 50)
    maps = encoder.pyramid(x)
    module.wrap = list
    for found, expected in zip(maps, module(x), strict=True):
        assert torch.equal(found, expected)
    assert torch.equal(encoder.embed(x), maps[-1].mean((2, 3)))


def test_one_map_is_one_level() -> None:
    assert CustomEncoder(Halving(lambda maps: maps[1])).info == FeatureInfo((8,), (4,), 8)


def test_a_vector_is_an_embedding_without_maps() -> None:
    encoder = CustomEncoder(Vector()).eval()
    x = torch.randn(2, 3, 30, 41)
    assert torch.equal(encoder.embed(x), encoder.module(x))
    assert encoder.info.embed_dim == 7
    with pytest.raises(ConfigError, match="decoder=classifier"):
        encoder.pyramid(x)


def test_one_size_is_what_the_module_sees() -> None:
    encoder = CustomEncoder(OneSize(), image_size=(32, 48)).eval()
    x = torch.randn(1, 3, 64, 96)
    small = F.interpolate(x, (32, 48), mode="bilinear", align_corners=False, antialias=True)
    expected = encoder.module(small)
    assert torch.equal(encoder.embed(x), expected.mean((2, 3)))
    torch.testing.assert_close(encoder.pyramid(x)[0], F.interpolate(expected, (8, 12), mode="bilinear"))


def test_small_images_are_refused_with_the_smallest_size() -> None:
    with pytest.raises(ConfigError, match="at least 9 x 9"):
        CustomEncoder(Valid()).embed(torch.zeros(1, 3, 8, 20))


def test_the_first_convolution_is_fitted_to_the_channels() -> None:
    torch.manual_seed(0)
    module = Halving()
    kernels = module.stages[0][0].weight.clone()  # type: ignore[index]
    rgb = CustomEncoder(Halving()).eval()
    rgb.module.load_state_dict(module.state_dict())
    grey = CustomEncoder(module, num_channels=1).eval()
    assert torch.equal(grey.module.get_parameter("stages.0.0.weight"), kernels.sum(1, keepdim=True))
    x = torch.randn(1, 1, 40, 40)
    torch.testing.assert_close(grey.embed(x), rgb.embed(x.expand(-1, 3, -1, -1)))


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = Halving()
    save_file(trained.state_dict(), tmp_path / "mine.safetensors")
    x = torch.randn(1, 1, 40, 40)
    expected = CustomEncoder(trained).eval().embed(x.expand(-1, 3, -1, -1))
    encoder = CustomEncoder(Halving(), num_channels=1, use_pretrained=True, weights=str(tmp_path), trainable=False)
    torch.testing.assert_close(encoder.embed(x), expected)
    assert encoder.weights_origin == str(tmp_path)
    with pytest.raises(ConfigError, match="not those of this encoder"):
        CustomEncoder(Vector(), use_pretrained=True, weights=str(tmp_path))


def test_the_statistics_of_the_pixels() -> None:
    assert CustomEncoder(Vector()).pixel_stats == IMAGENET_STATS
    encoder = CustomEncoder(Vector(), mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 2.0])
    assert encoder.pixel_stats.mean == (0.1, 0.2, 0.3)
    assert encoder.pixel_stats.std == (1.0, 1.0, 2.0)


class Returning(nn.Module):
    def __init__(self, output: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Any:
        return self.output(x)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (Returning(lambda x: x.flatten(2)), {}, r"\(1, 3, 4096\) for \(1, 3, 64, 64\)"),
        (Returning(lambda x: []), {}, "nothing for"),
        (Returning(lambda x: [x, x.mean((2, 3))]), {}, "something else"),
        (Returning(lambda x: ["map"]), {}, "str for"),
        (Returning(lambda x: None), {}, "NoneType"),
        (Returning(lambda x: F.adaptive_avg_pool2d(x, 7)), {}, "square cells"),
        (Returning(lambda x: x[..., ::2]), {}, "square cells"),
        (Returning(lambda x: x[..., ::2]), {"image_size": 32}, "square cells"),
        (Returning(lambda x: x.mean(1).flatten(1)), {}, "square cells"),
        (nn.Sequential(nn.Flatten(), nn.Linear(27, 3)), {}, "encoder.image_size=224"),
        (OneSize(), {"image_size": 32}, "cannot be run on images of 32 x 32 pixels: The size of tensor"),
        (TinyEncoder(), {}, "encoder._target_=lightning_vision.testing.encoders.TinyEncoder"),
        ({"width": 3}, {}, "_target_"),
        ("os.path.join", {}, "names a target that a config may not build"),
        ({"_target_": "torch.nn.functional.relu"}, {}, "may not build"),
        ({"_target_": "torch.nn.Conv2d", "in_chanels": 3}, {}, "in_chanels"),
        (Vector(), {"mean": [0.5]}, "a number for each channel"),
        (Vector(), {"std": [0.5, 0.5, 0.0]}, "those of std above 0"),
    ],
)
def test_what_does_not_meet_the_contract_is_refused(module: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CustomEncoder(module, **arguments)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed package of the user's, with a module in it."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "from torch import nn\n"
        "class Backbone(nn.Sequential):\n"
        "    def __init__(self, width: int = 4) -> None:\n"
        "        super().__init__(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(config, "plugins", lambda: {name: tmp_path})
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(name, None)


def test_a_class_is_named_on_the_command_line(plugin: str) -> None:
    for word, width in ((f"{plugin}.Backbone", 4), (f"{{_target_:{plugin}.Backbone,width:6}}", 6)):
        cfg = compose(["encoder=custom", f"encoder.module={word}", "encoder.num_channels=1"])
        encoder = instantiate(cfg.encoder, Encoder)
        assert encoder.info == FeatureInfo((2 * width,), (4,), 2 * width)
        assert encoder.embed(torch.zeros(1, 1, 20, 20)).shape == (1, 2 * width)


def test_its_settings_are_checked_with_the_others(plugin: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean: encoder\.module\.width"):
        compose(["encoder=custom", f"encoder.module={{_target_:{plugin}.Backbone,widht:6}}"])
