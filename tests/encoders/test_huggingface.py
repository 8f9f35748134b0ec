from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2ForImageClassification, Dinov2Model
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.huggingface_families import FAMILIES
from lightning_vision.errors import ConfigError
from lightning_vision.types import IMAGENET_STATS

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 8,
    "num_attention_heads": 2,
    "image_size": 70,
    "patch_size": 14,
    "mlp_ratio": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("dinov2")
    hf_logging.disable_progress_bar()
    Dinov2ForImageClassification(Dinov2Config(**TINY)).save_pretrained(path)
    hf_logging.enable_progress_bar()
    return path


def dinov2(name: str | Path, **kwargs: Any) -> HuggingFaceEncoder:
    return HuggingFaceEncoder("dinov2", str(name), **kwargs)


def test_features_are_the_librarys_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = dinov2(folder, trainable=False).train()
    assert capsys.readouterr().err == ""
    model = Dinov2Model.from_pretrained(folder).eval()
    x = torch.randn(2, 3, 50, 71)
    with torch.no_grad():
        output = model(F.pad(x, (0, 13, 0, 6)), output_hidden_states=True)
    torch.testing.assert_close(encoder.embed(x), output.last_hidden_state[:, 0])
    maps = encoder.pyramid(x)
    assert len(maps) == 4
    for depth, level in zip((2, 4, 6, 8), maps, strict=True):
        tokens = model.layernorm(output.hidden_states[depth])[:, 1:]
        torch.testing.assert_close(level.flatten(2).mT, tokens)
    assert encoder.info.strides == (14,) * 4


def test_a_patch_becomes_the_cell_over_it(folder: Path) -> None:
    encoder = dinov2(folder).eval()
    x = torch.zeros(1, 3, 56, 70)
    moved = x.clone()
    moved[..., 14:28, 42:56] = 3
    change = (encoder.pyramid(moved)[0] - encoder.pyramid(x)[0]).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 5) == (1, 3)


def test_weights_may_come_from_a_folder_or_a_file(folder: Path) -> None:
    x = torch.randn(1, 3, 28, 28)
    expected = dinov2(folder).eval().embed(x)
    for weights in (folder, folder / "model.safetensors"):
        encoder = dinov2("facebook/dinov2-base", weights=str(weights), model_config=TINY).eval()
        assert torch.equal(encoder.embed(x), expected)
        assert encoder.weights_origin == str(weights)
    assert torch.equal(dinov2("facebook/dinov2-base", weights=str(folder)).eval().embed(x), expected)


def test_any_variant_rebuilds_without_its_folder(folder: Path) -> None:
    encoder = dinov2(folder).eval()
    kwargs = json.loads(json.dumps(encoder.rebuild_kwargs()))
    again = dinov2("a/folder/that/is/gone", **kwargs).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(1, 3, 40, 40)
    assert torch.equal(again.embed(x), encoder.embed(x))


def test_grey_images_see_the_sum_of_the_kernels(folder: Path) -> None:
    x = torch.randn(1, 1, 42, 42)
    expected = dinov2(folder).eval().embed(x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(dinov2(folder, num_channels=1).eval().embed(x), expected, atol=1e-5, rtol=1e-4)
    other = dinov2(folder, num_channels=1, weights=str(folder)).eval()
    torch.testing.assert_close(other.embed(x), expected, atol=1e-5, rtol=1e-4)


def test_pixels_are_scaled_as_the_folder_says(folder: Path, tmp_path: Path) -> None:
    assert dinov2(folder).pixel_stats == IMAGENET_STATS
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert dinov2(tmp_path).pixel_stats.mean == (0.1, 0.2, 0.3)
    assert dinov2(tmp_path, use_pretrained=False).pixel_stats.std == (0.4, 0.5, 0.6)


def test_a_folder_gives_the_architecture_without_its_weights(folder: Path) -> None:
    encoder = dinov2(folder, use_pretrained=False)
    assert encoder.info.channels == (16,) * 4
    assert encoder.weights_origin == "random"


@pytest.mark.parametrize("size", ["small", "base", "large", "giant"])
def test_every_documented_size_reloads_without_a_network(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: pytest.fail("asked for a network"))
    name = f"facebook/dinov2-{size}"
    # The widths of the variant, with few of its layers.
    whole = FAMILIES["dinov2"].architectures
    monkeypatch.setitem(whole, name, {**whole[name], "num_hidden_layers": 1, "image_size": 28})
    encoder = dinov2(name, use_pretrained=False, num_channels=4).eval()
    assert encoder.info.embed_dim == {"small": 384, "base": 768, "large": 1024, "giant": 1536}[size]
    kwargs = json.loads(json.dumps(encoder.rebuild_kwargs()))
    again = dinov2("facebook/dinov2-base", **kwargs).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(1, 4, 30, 30)
    assert torch.equal(again.embed(x), encoder.embed(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nobody/nothing"}, "encoder.pretrained_model_name_or_path=FOLDER"),
        ({"name": "nobody/nothing"}, "encoder.use_pretrained=false"),
        ({"name": "facebook/dinov2-smal", "use_pretrained": False}, "did you mean: facebook/dinov2-small"),
        ({"name": "x", "use_pretrained": False, "model_config": {**TINY, "hidden_act": "geluu"}}, "cannot be built"),
        ({"name": "x", "use_pretrained": False, "model_config": {"hidden_size": "a"}}, "does not take these arguments"),
        ({"name": "x", "use_pretrained": False, "model_config": {"model_type": "resnett"}}, "did you mean: resnet"),
        ({"name": "nobody/nothing", "use_pretrained": False}, "facebook/dinov2-base"),
        ({"name": "x", "use_pretrained": False, "model_config": {"hidden_sise": 3}}, "did you mean: hidden_size"),
        ({"name": "x", "model_config": TINY}, "encoder.model_config=null"),
    ],
)
def test_what_cannot_be_built_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    with pytest.raises(ConfigError, match=message):
        dinov2(**arguments)


def test_a_deeper_model_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 7, "out_features": None, "out_indices": None})
    )
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match=r"missing: none; unexpected: dinov2\.encoder\.layer\.7"):
        dinov2(tmp_path)


def test_weights_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"some.weight": torch.ones(1)}, tmp_path / "other.bin")
    with pytest.raises(ConfigError, match=r"unexpected: some\.weight"):
        dinov2("x", weights=str(tmp_path / "other.bin"), model_config=TINY)
