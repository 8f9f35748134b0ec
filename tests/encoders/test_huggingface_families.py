from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from transformers import AutoModel

from lightning_vision.encoders.huggingface_families import (
    FAMILIES,
    LEGACY_VIT,
    find_family,
    find_legacy_vit,
    legacy_vit_variants,
    names,
)
from lightning_vision.encoders.huggingface_load import plain_config, read_config
from lightning_vision.errors import ConfigError

# Where the published names are found in timm, whose models were written independently.
IN_TIMM = {
    "openai/clip-vit-base-patch32": "vit_base_patch32_clip_224",
    "openai/clip-vit-base-patch16": "vit_base_patch16_clip_224",
    "openai/clip-vit-large-patch14": "vit_large_patch14_clip_224",
    "openai/clip-vit-large-patch14-336": "vit_large_patch14_clip_336",
    **{f"facebook/dinov2-{s}": f"vit_{s}_patch14_dinov2" for s in ("small", "base", "large", "giant")},
    **{
        f"facebook/dinov2-with-registers-{s}": f"vit_{s}_patch14_reg4_dinov2"
        for s in ("small", "base", "large", "giant")
    },
    **{
        f"facebook/dinov3-{name}-pretrain-lvd1689m": other
        for name, other in {
            "vits16": "vit_small_patch16_dinov3",
            "vits16plus": "vit_small_plus_patch16_dinov3",
            "vitb16": "vit_base_patch16_dinov3",
            "vitl16": "vit_large_patch16_dinov3",
            "vith16plus": "vit_huge_plus_patch16_dinov3",
            "vit7b16": "vit_7b_patch16_dinov3",
            "convnext-tiny": "convnext_tiny",
            "convnext-small": "convnext_small",
            "convnext-base": "convnext_base",
            "convnext-large": "convnext_large",
        }.items()
    },
    **{
        f"google/{version}-{name}": other
        for version, name, other in (
            ("siglip", "base-patch16-224", "vit_base_patch16_siglip_224"),
            ("siglip", "base-patch16-256", "vit_base_patch16_siglip_256"),
            ("siglip", "base-patch16-384", "vit_base_patch16_siglip_384"),
            ("siglip", "base-patch16-512", "vit_base_patch16_siglip_512"),
            ("siglip", "large-patch16-256", "vit_large_patch16_siglip_256"),
            ("siglip", "large-patch16-384", "vit_large_patch16_siglip_384"),
            ("siglip", "so400m-patch14-224", "vit_so400m_patch14_siglip_224"),
            ("siglip", "so400m-patch14-384", "vit_so400m_patch14_siglip_384"),
            ("siglip2", "base-patch32-256", "vit_base_patch32_siglip_256"),
            ("siglip2", "large-patch16-512", "vit_large_patch16_siglip_512"),
            ("siglip2", "so400m-patch16-256", "vit_so400m_patch16_siglip_256"),
            ("siglip2", "so400m-patch16-384", "vit_so400m_patch16_siglip_384"),
            ("siglip2", "so400m-patch16-512", "vit_so400m_patch16_siglip_512"),
            ("siglip2", "giant-opt-patch16-256", "vit_giantopt_patch16_siglip_256"),
            ("siglip2", "giant-opt-patch16-384", "vit_giantopt_patch16_siglip_384"),
        )
    },
    "google/vit-base-patch16-224": "vit_base_patch16_224",
    "google/vit-base-patch32-384": "vit_base_patch32_384",
    "google/vit-large-patch16-224": "vit_large_patch16_224",
    "google/vit-large-patch32-384": "vit_large_patch32_384",
    "google/vit-huge-patch14-224-in21k": "vit_huge_patch14_224",
    "microsoft/resnet-50": "resnet50",
}
# Millions of parameters of the encoder: Xie et al., 2021, https://arxiv.org/abs/2105.15203, table 1a.
MIT = {"b0": 3.4, "b1": 13.1, "b2": 24.2, "b3": 44.0, "b4": 60.8, "b5": 81.4}
ALL = [(family, name) for family, entry in FAMILIES.items() for name in entry.architectures]


def millions(model: torch.nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


def test_the_other_names_of_siglip2_stand_for_what_siglip_has() -> None:
    one, two = FAMILIES["siglip"].architectures, FAMILIES["siglip2"].architectures
    others = [name for name in two if name not in IN_TIMM]
    assert len(others) == 8
    assert all(two[name] == one[name.replace("siglip2", "siglip")] for name in others)


def test_every_documented_name_is_known() -> None:
    documented = {
        "clip": ["base-patch32", "base-patch16", "large-patch14"],
        "dinov2": ["base", "small", "large", "giant"],
        "siglip": ["base-patch16-224", "large-patch16-256", "so400m-patch14-384"],
    }
    makers = {"clip": "openai/clip-vit-", "dinov2": "facebook/dinov2-", "siglip": "google/siglip-"}
    for family, variants in documented.items():
        known = list(FAMILIES[family].architectures)
        assert {makers[family] + v for v in variants} <= set(known)
        assert known[0] == makers[family] + variants[0]
    assert set(LEGACY_VIT.values()) == set(FAMILIES["vit"].architectures)


@pytest.mark.parametrize(("family", "name"), [pair for pair in ALL if pair[1] in IN_TIMM], ids=lambda v: v)
def test_names_are_built_as_published(family: str, name: str) -> None:
    config = read_config(find_family(family), name, None, None, None)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
        if family == "vit":
            model.pooler = None
        other = timm.create_model(IN_TIMM[name], num_classes=0)
    # timm has no mask token and, for DINOv3, no bias that is zero by design.
    assert millions(model) == pytest.approx(millions(other), rel=1e-3)
    patches = getattr(other, "patch_embed", None)
    if patches is not None:
        assert config.patch_size == patches.patch_size[0]
        assert config.num_attention_heads == other.blocks[0].attn.num_heads
        if not name.startswith("facebook/dinov3"):  # positions are no parameters: any size is the native one
            assert config.image_size == patches.img_size[0]


@pytest.mark.parametrize("name", MIT)
def test_mix_transformers_are_built_as_published(name: str) -> None:
    config = read_config(find_family("mit"), f"nvidia/mit-{name}", None, None, None)
    with torch.device("meta"):
        assert millions(AutoModel.from_config(config)) == pytest.approx(MIT[name], abs=0.1)


@pytest.mark.parametrize(("family", "name"), ALL, ids=lambda v: v)
def test_every_name_rebuilds_from_plain_data(family: str, name: str) -> None:
    config = read_config(find_family(family), name, None, None, None)
    config.num_channels = 4
    kept = json.loads(json.dumps(plain_config(config, labels=True)))
    again = read_config(find_family(family), "a/folder/that/is/gone", None, kept, None)
    assert type(again) is type(config)
    assert again.to_dict() == config.to_dict()


def test_names_are_options_unless_they_may_be_on_the_hub_or_a_folder(tmp_path: Path) -> None:
    def options(given: str, family: str = "clip") -> list[str]:
        return names({"family": family, "pretrained_model_name_or_path": given})

    assert options("clip-vit-base") == list(FAMILIES["clip"].architectures)
    assert options("laion/CLIP-ViT-B-32") == options(str(tmp_path)) == options("anything", "auto") == []
    assert legacy_vit_variants({}) == ["b_16", "b_32", "l_16", "l_32", "h_14"]


def test_variants_of_the_deprecated_transformer() -> None:
    assert find_legacy_vit("b_16") == find_legacy_vit("b16") == "google/vit-base-patch16-224"
    with pytest.raises(ConfigError, match="did you mean: h_14"):
        find_legacy_vit("h_15")
    with pytest.raises(ConfigError, match="did you mean: siglip"):
        find_family("sigclip")


def test_the_table_needs_no_torch() -> None:
    code = "import sys, lightning_vision.encoders.huggingface_families; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
