"""The vision transformers beside DINOv2, and the Mix-Transformer: the numbers are those of the library."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging as hf_logging

from lightning_vision.encoders.huggingface import HuggingFaceEncoder
from lightning_vision.encoders.huggingface_vit_legacy import LegacyViTEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.types import HALF_STATS

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
TEXT = {**TOWER, "vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1}
# One size is the model's own; the other is neither, nor a multiple of the patch.
SIZES = ((32, 32), (41, 55))


def whole_model(family: str) -> Any:
    if family == "clip":
        return hf.CLIPModel(hf.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=8))
    if family in ("siglip", "siglip2"):
        return hf.SiglipModel(hf.SiglipConfig(vision_config=VISION, text_config=TEXT))
    if family == "dinov3":
        return hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**VISION, num_register_tokens=3))
    return hf.ViTForImageClassification(hf.ViTConfig(**VISION, num_labels=5))


def saved(model: Any, folder: Path) -> Path:
    """Save a model whose norms and biases are no longer those of a new one."""
    hf_logging.disable_progress_bar()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    hf_logging.enable_progress_bar()
    return folder


def padded(x: Tensor, multiple: int) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple))


def reference(family: str, model: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The embedding and the patch tokens of each block, by the library."""
    tower = {"clip": "vision_model", "siglip": "vision_model", "siglip2": "vision_model", "vit": "vit"}.get(family)
    tower = model if tower is None else getattr(model, tower)
    options = {} if family == "dinov3" else {"interpolate_pos_encoding": True}
    output = tower(pixel_values=padded(x, 8), output_hidden_states=True, **options)
    norm = {"clip": "post_layernorm", "siglip": "post_layernorm", "siglip2": "post_layernorm", "dinov3": "norm"}
    prefix = {"clip": 1, "dinov3": 4, "vit": 1}.get(family, 0)
    final = getattr(tower, norm.get(family, "layernorm"))
    maps = [final(h)[:, prefix:] for h in output.hidden_states[1:]]
    return output.last_hidden_state[:, 0] if family == "vit" else output.pooler_output, maps


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov3", "vit"])
def test_features_are_the_librarys_own(family: str, size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = whole_model(family).eval()
    folder = saved(model, tmp_path)
    encoder = HuggingFaceEncoder(family, str(folder), trainable=False)
    assert encoder.model.config._attn_implementation == "sdpa"
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        embedding, tokens = reference(family, model, x)
        torch.testing.assert_close(encoder.embed(x), embedding)
        for level, expected in zip(encoder.pyramid(x), tokens, strict=True):
            torch.testing.assert_close(level.flatten(2).mT, expected)
    by_file = HuggingFaceEncoder(family, "x", weights=str(folder / "model.safetensors"), trainable=False)
    assert by_file.weights_digest() == encoder.weights_digest()


@pytest.mark.parametrize("family", ["clip", "siglip", "dinov3", "vit"])
def test_weights_of_a_deeper_model_are_refused(family: str, tmp_path: Path) -> None:
    folder = saved(whole_model(family), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config.get("vision_config", config)["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps({**config, "out_features": None, "out_indices": None}))
    with pytest.raises(ConfigError, match=r"missing: none; unexpected: .*layers?\.3\."):
        HuggingFaceEncoder(family, str(folder))


@pytest.mark.parametrize("size", [(64, 64), (95, 65)], ids=str)
def test_maps_of_the_mix_transformer_are_the_librarys_own(size: tuple[int, int], tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = hf.SegformerConfig(depths=[1, 2, 1, 1], hidden_sizes=[8, 8, 16, 24], num_attention_heads=[1, 1, 2, 2])
    # A whole SegFormer gives its encoder.
    model = hf.SegformerForSemanticSegmentation(config).eval()
    encoder = HuggingFaceEncoder("mit", str(saved(model, tmp_path)), trainable=False)
    assert encoder.info.channels == (8, 8, 16, 24)
    assert encoder.info.strides == (4, 8, 16, 32)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        output = model.segformer(padded(x, 32), output_hidden_states=True)
    for level, expected in zip(encoder.pyramid(x), output.hidden_states, strict=True):
        torch.testing.assert_close(level, expected[..., : level.shape[-2], : level.shape[-1]])
    torch.testing.assert_close(encoder.embed(x), output.hidden_states[-1].mean((2, 3)))


def test_files_of_older_versions_hold_positions_that_are_computed(tmp_path: Path) -> None:
    folder = saved(whole_model("clip"), tmp_path)
    state = load_file(folder / "model.safetensors")
    save_file({**state, "vision_model.embeddings.position_ids": torch.arange(17)[None]}, folder / "model.safetensors")
    digest = HuggingFaceEncoder("clip", str(folder)).weights_digest()
    save_file(state, folder / "model.safetensors")
    assert HuggingFaceEncoder("clip", str(folder)).weights_digest() == digest


def test_images_and_texts_share_a_file_of_settings(tmp_path: Path) -> None:
    folder = saved(whole_model("clip"), tmp_path)
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    assert HuggingFaceEncoder("clip", str(folder)).pixel_stats.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("clip", hf.Dinov2Config(), "dinov2\n  expected: +clip_vision_model"),
        ("siglip2", hf.Siglip2Config(), "siglip2_vision_model\n  expected: +siglip_vision_model"),
        ("auto", hf.BertConfig(**TOWER), "no feature maps|cannot be built"),
    ],
    ids=["family", "naflex", "text"],
)
def test_other_models_are_refused(family: str, config: Any, message: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=message):
        HuggingFaceEncoder(family, str(tmp_path), use_pretrained=False)


def test_the_deprecated_transformer_names_its_successor(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = whole_model("vit").eval()
    folder = saved(model, tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder = LegacyViTEncoder(weights=str(folder), keep_head=True).eval()
    assert "use encoder=vit" in caplog.text
    assert encoder.pixel_stats == HALF_STATS
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.classify(x), model(x).logits)
    torch.testing.assert_close(encoder.embed(x), model.vit(x).last_hidden_state[:, 0])


def test_the_deprecated_transformer_has_its_published_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    encoder = LegacyViTEncoder("b_32", use_pretrained=False)
    assert (encoder.info.strides[0], encoder.info.embed_dim) == (32, 768)
    assert encoder.model.config.image_size == 384
    with pytest.raises(ConfigError) as caught:
        LegacyViTEncoder("l_16")
    assert caught.value.overrides == ["encoder.weights=FILE", "encoder.use_pretrained=false"]
