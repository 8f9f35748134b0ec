"""Any vision model of transformers: where its maps are, its classifier, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.huggingface_maps import first_conv
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder
from lightning_vision.types import PixelStats

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
VIT = {**TOWER, "image_size": 32, "patch_size": 8}
STAGES = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 24]}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 2], "num_heads": [1, 1, 2, 2], "window_size": 3, "image_size": 96}
HIERARCHICAL: dict[str, dict[str, Any]] = {
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "convnext": STAGES,
    "convnextv2": STAGES,
    "regnet": {**STAGES, "embedding_size": 8, "groups_width": 8},
    "segformer": {**STAGES, "num_attention_heads": [1, 1, 2, 2], "drop_path_rate": 0.0},
    "pvt_v2": {**STAGES, "num_attention_heads": [1, 1, 2, 2], "drop_path_rate": 0.0},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320},
    "swin": {**SWIN, "drop_path_rate": 0.0},
}
PLAIN: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "deit": {**VIT, "architectures": ["DeiTForImageClassification"]},
    "vit_msn": VIT,
    "ijepa": VIT,
    "dinov2_with_registers": {k: v for k, v in VIT.items() if k != "intermediate_size"},
}


def auto(model_type: str, config: dict[str, Any], **more: Any) -> HuggingFaceEncoder:
    arguments = {"use_pretrained": False, "model_config": {"model_type": model_type, **config}, **more}
    return HuggingFaceEncoder("auto", "x", **arguments)


def classifier(model_type: str, config: dict[str, Any], folder: Path, seed: int = 0) -> Any:
    """Save a classifier of five classes, and return it."""
    torch.manual_seed(seed)
    labels = {i: f"class {i}" for i in range(5)}
    whole = hf.AutoConfig.for_model(model_type, **config, id2label=labels, label2id={v: k for k, v in labels.items()})
    model = hf.AutoModelForImageClassification.from_config(whole).eval()
    hf_logging.disable_progress_bar()
    model.save_pretrained(folder)
    hf_logging.enable_progress_bar()
    return model


def last_linear_input(model: nn.Module, run: Callable[[], Any]) -> Tensor:
    seen: list[Tensor] = []
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    hook = last.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    run()
    hook.remove()
    return seen[-1]


@pytest.mark.parametrize("model_type", ["convnext", "mobilenet_v2", "swin", "deit", "ijepa"])
def test_any_model_keeps_the_contract(model_type: str) -> None:
    torch.manual_seed(0)
    config = {**HIERARCHICAL, **PLAIN}[model_type]

    def rebuild(**changes: Any) -> HuggingFaceEncoder:
        return auto(model_type, config, **changes)

    check_encoder(rebuild(), rebuild, sizes=((64, 64), (95, 127)))


@pytest.mark.parametrize("model_type", HIERARCHICAL)
def test_hierarchical_models_give_the_deepest_map_of_each_stride(model_type: str, tmp_path: Path) -> None:
    whole = classifier(model_type, HIERARCHICAL[model_type], tmp_path)
    encoder = HuggingFaceEncoder("auto", str(tmp_path), trainable=False)
    assert encoder.info.strides[-4:] == (4, 8, 16, 32)
    x = torch.randn(2, 3, 128, 160)
    with torch.no_grad():
        output = whole.base_model(x, output_hidden_states=True)
        maps = encoder.pyramid(x)
        for level, stride in zip(maps, encoder.info.strides, strict=True):
            states = getattr(output, "reshaped_hidden_states", output.hidden_states)
            deepest = [h for h in states if h.shape[-2:] == (128 // stride, 160 // stride)][-1]
            if level is maps[-1] and output.last_hidden_state.ndim == 4:
                deepest = output.last_hidden_state
            torch.testing.assert_close(level, deepest)


@pytest.mark.parametrize("model_type", [*HIERARCHICAL, *PLAIN])
def test_the_classifier_is_the_librarys_and_the_embedding_is_what_it_sees(model_type: str, tmp_path: Path) -> None:
    config = {**HIERARCHICAL, **PLAIN}[model_type]
    whole = classifier(model_type, config, tmp_path)
    encoder = HuggingFaceEncoder("auto", str(tmp_path), keep_head=True, trainable=False)
    side = config.get("image_size", 64)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(encoder.classify(x), whole(x).logits)
        assert encoder.head_classes == tuple(f"class {i}" for i in range(5))
        seen = last_linear_input(whole, lambda: whole(x))
        bare = HuggingFaceEncoder("auto", str(tmp_path), trainable=False)
        assert torch.equal(bare.embed(x), encoder.embed(x))
        if model_type == "dinov2_with_registers":
            seen = seen[:, :16]  # of the class token and the mean of the patches, as documented for DINOv2
        torch.testing.assert_close(encoder.embed(x), seen)
        assert encoder.classify(torch.randn(1, 3, 41, 95)).shape == (1, 5)
    kwargs = json.loads(json.dumps(encoder.rebuild_kwargs()))
    again = HuggingFaceEncoder("auto", "gone", **kwargs, keep_head=True, trainable=False)
    again.load_state_dict(encoder.state_dict())
    assert again.head_classes == encoder.head_classes
    assert torch.equal(again.classify(x), encoder.classify(x))


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_classifiers_on_a_tower_of_images(family: str, tmp_path: Path) -> None:
    text = {**TOWER, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1}
    whole = classifier(family, {"vision_config": VIT, "text_config": text}, tmp_path)
    encoder = HuggingFaceEncoder(family, str(tmp_path), keep_head=True, num_channels=1, trainable=False)
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.classify(x), whole(x.expand(-1, 3, -1, -1)).logits, atol=1e-5, rtol=1e-4)
    again = HuggingFaceEncoder(family, "gone", **encoder.rebuild_kwargs(), keep_head=True, trainable=False)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.classify(x), encoder.classify(x))


@pytest.mark.real_data
def test_real_weights_give_the_logits_of_the_library(data_root: Path) -> None:
    folder = data_root / "weights" / "mobilenet_v1_0.25_128-hf"
    whole = hf.AutoModelForImageClassification.from_pretrained(folder).eval()
    encoder = HuggingFaceEncoder("auto", str(folder), keep_head=True, trainable=False)
    assert encoder.pixel_stats == PixelStats((0.5,) * 3, (0.5,) * 3)
    assert len(encoder.head_classes) == 1000
    assert encoder.head_classes[:2] == ("tench", "goldfish")
    assert encoder.info.strides == (2, 4, 8, 16, 32)
    x = torch.randn(4, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(encoder.classify(x), whole(x).logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(encoder.embed(x), whole.mobilenet_v1(x).pooler_output)


def test_windows_do_not_remember_small_images() -> None:
    torch.manual_seed(0)
    encoder = auto("swin", SWIN).eval()
    plain = hf.SwinModel(encoder.model.config).eval()
    plain.load_state_dict(encoder.model.state_dict())
    x = torch.randn(1, 3, 192, 192)
    expected = plain(x).pooler_output
    for size in (40, 96, 192):
        encoder.embed(torch.randn(1, 3, size, size))
        encoder.pyramid(torch.randn(1, 3, size, size))
    torch.testing.assert_close(encoder.embed(x), expected)


def test_a_model_of_one_size_sees_the_image_resized() -> None:
    torch.manual_seed(0)
    encoder = auto("aimv2_vision_model", {**VIT, "use_head": False}).eval()
    assert encoder.info.one_scale
    x = torch.randn(1, 3, 48, 80)
    small = F.interpolate(x, (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder.embed(x), encoder.embed(small))
    assert encoder.pyramid(x)[0].shape == (1, 16, 6, 10)


def test_blue_first_weights_are_turned_around(tmp_path: Path) -> None:
    whole = classifier("resnet", HIERARCHICAL["resnet"], tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True}))
    x = torch.randn(1, 3, 64, 64)
    for weights in (None, str(tmp_path)):
        encoder = HuggingFaceEncoder("auto", str(tmp_path), weights=weights, trainable=False)
        assert encoder.pixel_stats == PixelStats((0.0,) * 3, (1.0,) * 3)
        expected = whole.resnet(x.flip(1)).pooler_output.flatten(1)
        torch.testing.assert_close(encoder.embed(x), expected)


@pytest.mark.parametrize(
    ("settings", "std"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 0.5),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "include_top": True}, 0.25),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": False}, 1.0),
        ({}, 0.229),
    ],
)
def test_pixels_are_scaled_as_they_were_in_training(settings: dict[str, Any], std: float, tmp_path: Path) -> None:
    classifier("resnet", HIERARCHICAL["resnet"], tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert HuggingFaceEncoder("auto", str(tmp_path)).pixel_stats.std[0] == std


def test_patches_are_found_where_other_tokens_follow() -> None:
    encoder = auto("yolos", {**VIT, "image_size": [32, 32], "num_detection_tokens": 5}).eval()
    x = torch.zeros(1, 3, 32, 40)
    moved = x.clone()
    moved[..., 8:16, 24:32] = 3
    change = (encoder.pyramid(moved)[0] - encoder.pyramid(x)[0]).norm(dim=1)[0]
    assert divmod(int(change.argmax()), 5) == (1, 3)


@pytest.mark.parametrize(
    ("model_type", "config", "message"),
    [
        ("vit_mae", VIT, "no feature maps"),  # drops patches, and shuffles the others
        ("siglip2_vision_model", {**TOWER, "patch_size": 8}, "no feature maps"),  # takes lists of patches
        ("levit", {"depths": [1, 1, 1], "hidden_sizes": [16, 16, 16]}, "no feature maps"),
        ("detr", {}, "no feature maps|cannot be built"),
        ("bert", TOWER, "no feature maps"),
    ],
)
def test_models_without_usable_maps_are_refused(model_type: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        auto(model_type, config)


def test_a_classifier_must_be_among_the_weights(tmp_path: Path) -> None:
    whole = classifier("vit", VIT, tmp_path)
    save_file({k: v.contiguous() for k, v in whole.vit.state_dict().items()}, tmp_path / "model.safetensors")
    assert not HuggingFaceEncoder("auto", str(tmp_path)).head_classes
    with pytest.raises(ConfigError, match="The weights have no classifier"):
        HuggingFaceEncoder("auto", str(tmp_path), keep_head=True)


def test_a_model_without_a_classifier_is_named(tmp_path: Path) -> None:
    hf_logging.disable_progress_bar()
    hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VIT)).save_pretrained(tmp_path)
    hf_logging.enable_progress_bar()
    with pytest.raises(ConfigError, match="no classifier of its own"):
        HuggingFaceEncoder("dinov3", str(tmp_path), keep_head=True)
    assert HuggingFaceEncoder("dinov3", str(tmp_path), use_pretrained=False, keep_head=True).head_classes == ()


def test_the_first_convolution_is_the_one_that_sees_the_image() -> None:
    for model_type, config in {**HIERARCHICAL, **PLAIN}.items():
        encoder = auto(model_type, config, num_channels=5)
        stem = first_conv(encoder.model)
        assert stem is not None
        assert stem.in_channels == 5, model_type


def test_lora_in_a_network_that_reads_the_geometry_of_its_convolutions() -> None:
    config = {"model_type": "mobilenet_v1", "depth_multiplier": 0.25, "tf_padding": True}
    encoder = HuggingFaceEncoder("auto", "mobilenet", config, use_pretrained=False, adapter="lora")
    encoder.embed(torch.randn(1, 3, 64, 64)).sum().backward()
    assert any(p.grad is not None for n, p in encoder.named_parameters() if "lora_B" in n)
