from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo
from torch import nn
from torchvision import models

from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.errors import ConfigError
from lightning_vision.testing.conformance import check_encoder


def encoder_of(name: str, **arguments: Any) -> TimmEncoder:
    return TimmEncoder(**{"family": None, "model_name": name, "use_pretrained": "weights" in arguments, **arguments})


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_features_are_timms_own(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, pretrained=False).eval()
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = encoder_of(name, weights=str(tmp_path)).eval()
    x = torch.randn(2, 3, 160, 160)
    expected = plain.forward_head(plain.forward_features(x), pre_logits=True)
    torch.testing.assert_close(encoder.embed(x), expected)
    maps = timm.create_model(name, pretrained=False, features_only=True)
    if name != "test_vit":
        assert encoder.info.channels == tuple(maps.feature_info.channels())
        assert encoder.info.strides == tuple(maps.feature_info.reduction())
    last = plain.forward_intermediates(x, norm=True, intermediates_only=True)[-1]
    torch.testing.assert_close(encoder.pyramid(x)[-1], last)


def test_the_last_map_is_what_the_head_pools() -> None:
    encoder = encoder_of("resnetv2_18", model_kwargs={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}).eval()
    x = torch.randn(1, 3, 64, 64)
    last = encoder.pyramid(x)[-1]
    assert last.min() == 0, "behind the final activation"
    torch.testing.assert_close(last.mean((2, 3)), encoder.embed(x))


VIT = {"embed_dim": 24, "depth": 4, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 2}
STAGES = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
# Models of many kinds, narrowed.
ZOO: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "vit_base_patch14_reg4_dinov2": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "eva02_tiny_patch14_224": VIT,
    "beit_base_patch16_224": {**VIT, "img_size": 64},
    "cait_xxs24_224": {**VIT, "img_size": 64},
    "xcit_nano_12_p16_224": {**VIT, "embed_dim": 32},
    "mixer_s32_224": {"embed_dim": 24, "num_blocks": 4},
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "test_maxvit": {"img_size": 64},
    "test_coatnet": {"img_size": 64},
    "convnext_atto": STAGES,
    "mambaout_femto": STAGES,
    "test_nfnet": {},
    "test_efficientnet": {},
    "mobilenetv4_conv_small_035": {},
    "hgnetv2_b0": {},
    "pvt_v2_b0": {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16], "num_heads": [1, 1, 1, 1]},
    "davit_tiny": {"depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 32], "num_heads": [1, 2, 2, 4]},
    "efficientformer_l1": {"depths": [1, 1, 1, 2], "embed_dims": [8, 8, 16, 16]},
    "levit_128s": {"embed_dim": [32, 32, 32], "depth": [1, 1, 1], "num_heads": [2, 2, 2], "img_size": 64},
    "tiny_vit_5m_224": {
        "depths": [1, 1, 1, 1],
        "embed_dims": [8, 8, 16, 16],
        "num_heads": [1, 1, 2, 2],
        "window_sizes": [2, 2, 2, 2],
    },
    "focalnet_tiny_srf": {"depths": [1, 1, 1, 1], "embed_dim": 8},
    "hiera_tiny_224": {"embed_dim": 16, "stages": [1, 1, 1, 1], "img_size": 64},
    "test_resnet": {},
    "regnetx_002": {},
}
LARGE: dict[str, dict[str, Any]] = {
    "vgg11": {"mlp_ratio": 0.01},
    "inception_v3": {},
    "densenet121": {},
    "resnetv2_50": {},
    "nextvit_small": {},
    "fastvit_t8": {},
    "gcvit_xxtiny": {},
    "volo_d1_224": {},
    "coat_tiny": {},
    "twins_svt_small": {},
    "edgenext_xx_small": {},
    "mobilevit_xxs": {},
    "repvit_m0_9": {},
    "swiftformer_xs": {},
    "efficientvit_m0": {},
    "mvitv2_tiny": {},
}


@pytest.mark.parametrize("name", [*ZOO, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_models_of_every_kind_keep_the_contract(name: str) -> None:
    torch.manual_seed(0)

    def build(**changes: Any) -> TimmEncoder:
        return encoder_of(name, **{"model_kwargs": {**ZOO, **LARGE}[name], **changes})

    check_encoder(build(), build, sizes=((64, 64), (95, 127)))


NARROWED = {"depths": [1, 1, 1, 1], "dims": [8, 8, 32, 32]}


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("caformer_s18", NARROWED),  # a classifier of two layers
        ("poolformerv2_s12", NARROWED),
        ("convnextv2_atto", NARROWED),
        ("deit_tiny_distilled_patch16_224", VIT),  # two classifiers
        ("swin_tiny_patch4_window7_224", SWIN),
        ("mobilenetv4_conv_small_035", {}),
    ],
)
@pytest.mark.parametrize("keep_head", [False, True])
def test_weights_with_any_classifier_load_with_and_without_it(
    tmp_path: Path, name: str, kwargs: dict[str, Any], keep_head: bool
) -> None:
    torch.manual_seed(0)
    saved = encoder_of(name, model_kwargs=kwargs, keep_head=True).eval()
    save_file(saved.model.state_dict(), tmp_path / "model.safetensors")
    encoder = encoder_of(name, model_kwargs=kwargs, weights=str(tmp_path), keep_head=keep_head).eval()
    x = torch.randn(1, 3, 224, 224)
    if keep_head:
        assert torch.equal(encoder.classify(x), saved.classify(x))
    else:
        saved.model.reset_classifier(0)
        assert torch.equal(encoder.embed(x), saved.embed(x))


def test_position_embeddings_of_another_size_are_converted(tmp_path: Path) -> None:
    plain = timm.create_model("test_vit", pretrained=False, img_size=96)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    encoder = encoder_of("test_vit", weights=str(tmp_path / "model.safetensors"))
    assert torch.equal(encoder.model.blocks[0].mlp.fc1.weight, plain.blocks[0].mlp.fc1.weight)


def test_one_scale_maps_come_from_spread_depths() -> None:
    encoder = encoder_of("vit_tiny_patch16_224", model_kwargs={"embed_dim": 24})
    assert encoder._indices == [2, 5, 8, 11]
    assert encoder.info.one_scale
    assert encoder.info.strides == (16, 16, 16, 16)


@pytest.mark.parametrize("size", [64, 96])
def test_models_tied_to_one_size_get_the_image_resized(size: int) -> None:
    torch.manual_seed(0)
    encoder = encoder_of("test_maxvit", model_kwargs={"img_size": size}, keep_head=True).eval()
    x = torch.randn(1, 3, 111, 75)
    resized = nn.functional.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)
    assert torch.equal(encoder.classify(x), encoder.model(resized))
    assert [tuple(m.shape[-2:]) for m in encoder.pyramid(x)] == [(56, 38), (28, 19), (14, 10), (7, 5), (4, 3)]


def test_arguments_of_the_architecture_win_over_timms() -> None:
    encoder = encoder_of("poolformer_s12", model_kwargs={"depths": [1, 2, 1, 1], "dims": [8, 8, 16, 16]})
    assert [len(stage.blocks) for stage in encoder.model.stages] == [1, 2, 1, 1]
    assert encoder.info.channels == (8, 8, 16, 16)
    assert len(timm.create_model("poolformer_s12", num_classes=0).stages[1].blocks) == 2
    assert len(timm.create_model("poolformer_s24", num_classes=0).stages[1].blocks) == 4, "timm is as it was"


def test_cached_biases_do_not_outlive_their_weights() -> None:
    kwargs = ZOO["levit_128s"]
    torch.manual_seed(0)
    first, second = (encoder_of("levit_128s", model_kwargs=kwargs, trainable=False) for _ in range(2))
    for encoder in (first, second):
        for name, parameter in encoder.named_parameters():
            if "attention_biases" in name:
                nn.init.normal_(parameter)
    x = torch.randn(1, 3, 64, 64)
    before, expected = first.embed(x), second.embed(x)
    assert not torch.equal(before, expected)
    first.load_state_dict(second.state_dict())
    assert torch.equal(first.embed(x), expected)
    assert torch.equal(copy.deepcopy(first).embed(x), expected)


def test_grey_weights_sum_the_kernels(tmp_path: Path) -> None:
    plain = timm.create_model("test_resnet", pretrained=False)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    rgb = encoder_of("test_resnet", weights=str(tmp_path)).eval()
    grey = encoder_of("test_resnet", weights=str(tmp_path), num_channels=1).eval()
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(grey.embed(x), rgb.embed(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


class TestHead:
    @pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
    def test_logits_are_timms_own(self, tmp_path: Path, name: str) -> None:
        torch.manual_seed(0)
        plain = timm.create_model(name, pretrained=False).eval()
        save_file(plain.state_dict(), tmp_path / "model.safetensors")
        encoder = encoder_of(name, weights=str(tmp_path), keep_head=True).eval()
        x = torch.randn(2, 3, 160, 160)
        assert torch.equal(encoder.classify(x), plain(x))
        torch.testing.assert_close(encoder.embed(x), plain.forward_head(plain.forward_features(x), pre_logits=True))

    def test_imagenets_classes_have_their_names(self) -> None:
        names = encoder_of("test_resnet", keep_head=True).head_classes
        info = ImageNetInfo()
        assert names[1] == info.index_to_description(1) == "goldfish, Carassius auratus"
        assert names[134] == f"crane ({info.index_to_label_name(134)})"
        assert len(set(names)) == 1000

    def test_without_it_there_is_nothing_to_apply(self) -> None:
        encoder = encoder_of("test_resnet")
        assert encoder.head_classes == ()
        with pytest.raises(ConfigError, match="without the classifier"):
            encoder.classify(torch.zeros(1, 3, 64, 64))

    def test_a_file_says_how_many_classes_it_has(self, tmp_path: Path) -> None:
        plain = timm.create_model("test_vit", pretrained=False, num_classes=5).eval()
        save_file(plain.state_dict(), tmp_path / "weights.safetensors")
        encoder = encoder_of("test_vit", weights=str(tmp_path / "weights.safetensors"), keep_head=True).eval()
        assert encoder.head_classes == ("0", "1", "2", "3", "4")
        x = torch.randn(1, 3, 160, 160)
        assert torch.equal(encoder.classify(x), plain(x))
        again = TimmEncoder(family=None, keep_head=True, **encoder.rebuild_kwargs()).eval()
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again.classify(x), plain(x))

    def test_its_weights_are_required(self, tmp_path: Path) -> None:
        plain = timm.create_model("test_vit", pretrained=False, num_classes=0)
        save_file(plain.state_dict(), tmp_path / "weights.safetensors")
        with pytest.raises(ConfigError, match=r"missing: head\.weight"):
            encoder_of("test_vit", weights=str(tmp_path), keep_head=True)

    def test_weights_without_one_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="decoder=classifier"):
            encoder_of("vit_base_patch14_dinov2", model_kwargs=VIT, keep_head=True)

    @pytest.mark.real_data
    def test_real_weights_give_torchvisions_logits(self, data_root: Path, tmp_path: Path) -> None:
        reference = models.mobilenet_v2().eval()
        reference.load_state_dict(load_file(data_root / "weights" / "mobilenet_v2-tflite_quant.safetensors"))
        names = timm.create_model("mobilenetv2_100", pretrained=False).state_dict()
        state = dict(zip(names, reference.state_dict().values(), strict=True))
        save_file(state, tmp_path / "model.safetensors")
        encoder = encoder_of("mobilenetv2_100", weights=str(tmp_path), keep_head=True, trainable=False)
        for size in ((224, 224), (97, 130)):
            x = torch.randn(2, 3, *size)
            assert torch.equal(encoder.classify(x), reference(x))


def published(folder: Path, **model_args: Any) -> nn.Module:
    """Save a model as timm does, with classes, statistics and arguments of its own."""
    torch.manual_seed(0)
    plain = timm.create_model("test_vit", pretrained=False, num_classes=3, **model_args).eval()
    save_file(plain.state_dict(), folder / "model.safetensors")
    config = {
        "architecture": "test_vit",
        "num_classes": 3,
        "label_names": ["a", "b", "c"],
        "label_descriptions": {"b": "bee"},
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "tag": "mine"},
        "model_args": model_args,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return plain


class TestPublished:
    def test_a_folder_of_weights_says_what_it_holds(self, tmp_path: Path) -> None:
        plain = published(tmp_path, depth=2)
        encoder = encoder_of("test_vit", weights=str(tmp_path), keep_head=True).eval()
        assert encoder.pixel_stats.mean == (0.1, 0.2, 0.3)
        assert encoder.head_classes == ("a", "bee", "c")
        x = torch.randn(1, 3, 160, 160)
        assert torch.equal(encoder.classify(x), plain(x))
        with pytest.raises(ConfigError, match=r"encoder\.model_name=test_vit"):
            encoder_of("test_resnet", weights=str(tmp_path))

    @pytest.mark.parametrize("source", ["local-dir", "hf-hub"])
    def test_a_checkpoint_needs_neither_folder_nor_network(
        self, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plain = published(tmp_path, depth=2, img_size=96)
        monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
        downloads: list[str] = []

        def download(repo_id: str, filename: str, **_: Any) -> str:
            downloads.append(f"{repo_id}/{filename}")
            return str(tmp_path / filename)

        monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
        name = f"local-dir:{tmp_path}" if source == "local-dir" else "hf-hub:somebody/something"
        encoder = encoder_of(name, use_pretrained=True, keep_head=True).eval()
        x = torch.randn(1, 3, 96, 96)
        assert torch.equal(encoder.classify(x), plain(x))
        assert bool(downloads) == (source == "hf-hub")
        assert encoder.weights_origin == (str(tmp_path) if source == "local-dir" else "timm test_vit.mine")

        for file in tmp_path.iterdir():
            file.unlink()
        downloads.clear()
        kwargs = json.loads(json.dumps(encoder.rebuild_kwargs()))
        again = TimmEncoder(**{"family": None, "keep_head": True, **kwargs}).eval()
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again.classify(x), plain(x))
        assert again.head_classes == ("a", "bee", "c")
        assert again.pixel_stats == encoder.pixel_stats
        assert again.info == encoder.info
        assert not downloads

    def test_a_folder_that_says_nothing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"encoder\.model_name=NAME encoder\.weights="):
            encoder_of(f"local-dir:{tmp_path}", use_pretrained=True)

    def test_a_hub_out_of_reach_offers_a_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
        with pytest.raises(ConfigError) as caught:
            encoder_of("hf-hub:nobody/nothing", use_pretrained=True, model_cache_dir=str(tmp_path))
        assert caught.value.overrides == ["encoder.model_name=local-dir:FOLDER"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "convnextv2_atoo"}, "did you mean: convnextv2_atto"),
        ({"name": "convnextv2_atto.fcmae_ft_in2k"}, "did you mean: convnextv2_atto.fcmae_ft_in1k"),
        ({"name": "elsewhere:model"}, "timm has no such model"),
        ({"name": "test_vit", "model_kwargs": {"drop_pth_rate": 0.1}}, "given:        encoder.model_kwargs={'drop_pth"),
        ({"name": "test_maxvit", "use_pretrained": True}, "No pretrained weights exist"),
    ],
)
def test_what_timm_does_not_have_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder_of(**arguments)


def test_weights_that_cannot_be_downloaded_offer_two_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    with pytest.raises(ConfigError) as caught:
        encoder_of("test_vit.r160_in1k", use_pretrained=True, model_cache_dir=str(tmp_path))
    assert caught.value.overrides == ["encoder.weights=FILE", "encoder.use_pretrained=false"]


def test_downloads_go_where_they_are_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published(tmp_path)
    seen: dict[str, Any] = {}

    def download(repo_id: str, filename: str, **kwargs: Any) -> str:
        seen.update(kwargs, repository=repo_id)
        state = timm.create_model("test_vit", pretrained=False).state_dict()
        save_file(state, tmp_path / "model.safetensors")
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("lightning_vision.encoders.hub.reachable", lambda: False)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    encoder = encoder_of("test_vit.r160_in1k", use_pretrained=True, model_cache_dir=str(tmp_path / "cache"))
    assert str(seen["cache_dir"]) == str(tmp_path / "cache")
    assert seen["repository"] == "timm/test_vit.r160_in1k"
    assert encoder.weights_origin == "timm test_vit.r160_in1k"
