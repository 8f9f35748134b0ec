from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from lightning_vision.encoders.weights import (
    adapt_conv_weight,
    adapt_first_conv,
    load_strict,
    read_state_dict,
    without_modules,
)
from lightning_vision.errors import ConfigError


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "weights.pth"])
@pytest.mark.parametrize("inside", ["", "state_dict", "model"])
def test_reads_files_and_folders(tmp_path: Path, state: dict[str, torch.Tensor], name: str, inside: str) -> None:
    if name.endswith(".safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({inside: state} if inside else state, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        found = read_state_dict(path)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[k], state[k]) for k in state)


def test_what_is_no_file_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_state_dict(tmp_path / "none.pth")
    with pytest.raises(ConfigError, match="holds no weights"):
        read_state_dict(tmp_path)
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_state_dict(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="no state dict"):
        read_state_dict(tmp_path / "list.pth")


def test_only_whole_modules_are_left_out() -> None:
    state = {"fc.weight": torch.ones(1), "fc2.weight": torch.ones(1), "layer.fc.weight": torch.ones(1)}
    assert list(without_modules(state, ["fc"])) == ["fc2.weight", "layer.fc.weight"]


def test_loading_is_strict_and_names_what_is_wrong(state: dict[str, torch.Tensor]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_strict(module, state, "here")
    assert torch.equal(module[0].weight, state["0.weight"])
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    load_strict(module, old, "from before torch 0.4.1")
    wrong = {**state, "extra": torch.ones(1), "0.weight": torch.ones(1)}
    del wrong["1.bias"]
    with pytest.raises(ConfigError, match=r"(?s)missing: 1\.bias.*unexpected: extra.*0\.weight \(1,\) instead of"):
        load_strict(module, wrong, "here")


def test_a_grey_image_gives_what_its_rgb_copy_gave() -> None:
    weight, grey = torch.randn(5, 3, 3, 3), torch.randn(2, 1, 8, 8)
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(F.conv2d(grey, adapt_conv_weight(weight, 1)), expected)


def test_more_channels_repeat_the_kernels_and_keep_the_size_of_the_output() -> None:
    weight = torch.randn(5, 3, 3, 3)
    six = adapt_conv_weight(weight, 6)
    assert torch.equal(six[:, :3], six[:, 3:])
    same = torch.ones(1, 6, 8, 8)
    torch.testing.assert_close(F.conv2d(same, six), F.conv2d(same[:, :3], weight))
    four = adapt_conv_weight(weight, 4)
    torch.testing.assert_close(four, torch.cat((weight, weight[:, :1]), 1) * 3 / 4)
    assert adapt_conv_weight(weight, 3) is weight


def test_is_the_rule_of_timm() -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(5, 3, 3, 3)
    for channels in (1, 2, 3, 4, 7):
        torch.testing.assert_close(adapt_conv_weight(weight, channels), adapt_input_conv(channels, weight))


def test_a_first_convolution_keeps_everything_but_its_channels() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=2, bias=False))
    weight = net[0].weight.detach().clone()
    adapt_first_conv(net, "0", 1, pretrained=True)
    assert net(torch.zeros(1, 1, 9, 9)).shape == (1, 4, 5, 5)
    assert torch.equal(net[0].weight, weight.sum(1, keepdim=True))
    adapt_first_conv(net, "0", 2, pretrained=False)
    assert net(torch.zeros(1, 2, 9, 9)).shape == (1, 4, 5, 5)
