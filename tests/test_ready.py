"""Pretrained models that predict without any training: through our preprocessing and the predict action."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file
from torch import nn
from torchvision import models

import lightning_vision as lv
from lightning_vision.errors import ConfigError
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.processes import command_line

EVALUATED = {"preprocessing.resize_method": "resize_crop"}


def pictures(data: Path) -> list[Image.Image]:
    with (data / "decode_bench/index.csv").open(newline="") as file:
        paths = [data / "decode_bench" / row["image"] for row in csv.DictReader(file)]
    return [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]


def top_1(model: nn.Module, data: Path, transform: Any) -> list[int]:
    """What a plain loop predicts, with the library's own preprocessing."""
    model.eval()
    with torch.no_grad():
        return [int(model(transform(image).unsqueeze(0)).argmax()) for image in pictures(data)]


def ours(data: Path, **more: Any) -> list[int]:
    values = {**EVALUATED, **more.pop("values")}
    found = lv.predict(
        None, data / "decode_bench/index.csv", decoder="pretrained", batch_size=20, overrides=values, **more
    )
    assert len(found) == 120
    return [int(p.probabilities.argmax()) for p in found if p.probabilities is not None]


@pytest.mark.real_data
def test_torchvision_gives_the_library_s_predictions(data_root: Path) -> None:
    weights = data_root / "weights" / "squeezenet1_1-ncnn_fp16.safetensors"
    model = models.squeezenet1_1()
    model.load_state_dict(load_file(weights))
    expected = top_1(model, data_root / "data", models.SqueezeNet1_1_Weights.DEFAULT.transforms())
    values = {"encoder.model_variant": "1_1", "encoder.weights": str(weights)}
    assert ours(data_root / "data", encoder="squeezenet", image_size=224, values=values) == expected


@pytest.mark.real_data
def test_timm_gives_the_library_s_predictions(data_root: Path, tmp_path: Path) -> None:
    state = models.mobilenet_v2().state_dict()
    state = {k: load_file(data_root / "weights/mobilenet_v2-tflite_quant.safetensors")[k] for k in state}
    model = timm.create_model("mobilenetv2_100")
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
    values = {
        "encoder.model_name": "mobilenetv2_100",
        "encoder.weights": str(tmp_path / "timm.pth"),
        "preprocessing.resize_filter": "bicubic",
    }
    expected = top_1(model, data_root / "data", transform)
    assert ours(data_root / "data", encoder="timm", image_size=224, values=values) == expected


@pytest.mark.real_data
def test_transformers_gives_the_library_s_predictions(data_root: Path) -> None:
    folder = data_root / "weights" / "mobilenet_v1_0.25_128-hf"
    model = transformers.MobileNetV1ForImageClassification.from_pretrained(folder)
    process = transformers.AutoImageProcessor.from_pretrained(folder)

    class Logits(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model(pixel_values=x).logits

    model.eval()
    expected = top_1(Logits(), data_root / "data", lambda image: process(image, return_tensors="pt").pixel_values[0])
    values = {
        "encoder.pretrained_model_name_or_path": str(folder),
        "preprocessing.crop_fraction": 128 / 146,
        "preprocessing.crop_rounding": "down",
    }
    assert ours(data_root / "data", encoder="huggingface", image_size=128, values=values) == expected


@pytest.mark.real_data
def test_the_command_line_tests_and_predicts_without_training(data_root: Path, tmp_path: Path) -> None:
    bench, weights = data_root / "data/decode_bench", data_root / "weights"
    model = models.mobilenet_v2()
    model.load_state_dict(load_file(weights / "mobilenet_v2-tflite_quant.safetensors"))
    weights_enum = models.MobileNet_V2_Weights.IMAGENET1K_V1
    expected = top_1(model, data_root / "data", weights_enum.transforms())
    common = [
        "encoder=mobilenetv2",
        f"encoder.weights={weights / 'mobilenet_v2-tflite_quant.safetensors'}",
        "decoder=pretrained",
        "image_size=224",
        "preprocessing.resize_method=resize_crop",
    ]
    _run(tmp_path, "predict", *common, f"source={bench / 'index.csv'}", "output_dir=out")
    with (tmp_path / "out/predictions/predictions.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels == [weights_enum.meta["categories"][i] for i in expected]

    data = ["data=table", f"data.path={bench / 'index.csv'}", "data.target=class_index"]
    _run(tmp_path, "test", *common, *data, f"data.class_names={bench / 'imagenet_classes.txt'}", "output_dir=scored")
    figures = json.loads((tmp_path / "scored/metrics.json").read_text())
    with (bench / "index.csv").open(newline="") as file:
        truth = [int(row["class_index"]) for row in csv.DictReader(file)]
    right = sum(a == b for a, b in zip(expected, truth, strict=True))
    assert figures["test/accuracy"] == pytest.approx(right / 120, abs=1e-6)


def _run(folder: Path, *words: str) -> None:
    command_line(*words, cwd=folder).succeed()


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["encoder=stacked_cnn", "decoder=pretrained"], ["this encoder has none", "resnet", "decoder=classifier"]),
        (
            ["encoder=resnet", "encoder.use_pretrained=false", "decoder=pretrained"],
            ["not loaded", "use_pretrained=true"],
        ),
        (["encoder=clip", "encoder.use_pretrained=false", "decoder=zero_shot"], ["not loaded", "use_pretrained=true"]),
        (["encoder=stacked_cnn", "decoder=zero_shot"], ["no text tower", "clip", "siglip"]),
        (["encoder=stacked_cnn", "decoder=classifier"], ["must be trained", "zero_shot"]),
        (["encoder=stacked_cnn", "decoder=zero_shot", "decoder.template='a photo'"], ["no place", "{}"]),
    ],
)
def test_what_cannot_predict_is_refused_by_name(discs: Path, words: list[str], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        lv.test(None, [*words, "data=table", f"data.path='{discs}'", "image_size=32"])
    assert all(word in str(caught.value) for word in expected), str(caught.value)


def test_without_data_the_classes_must_be_named(discs: Path) -> None:
    words = ["encoder=stacked_cnn", "decoder=zero_shot"]
    with pytest.raises(ConfigError, match=r"classes must be named") as caught:
        lv.predict(None, discs.parent, words)
    assert "decoder.class_names=[cat,dog]" in str(caught.value)


def test_images_are_brought_to_what_the_weights_were_made_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Alpha and a small first picture: without training nothing could adapt to them.
    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.new("RGBA", (30 + i, 20), (i * 50, 9, 9, 128)).save(tmp_path / "photos" / f"{i}.png")
    torch.save(models.squeezenet1_1().state_dict(), tmp_path / "weights.pth")
    words = ["encoder=squeezenet", "encoder.model_variant=1_1", f"encoder.weights='{tmp_path / 'weights.pth'}'"]
    found = lv.predict(None, tmp_path / "photos", [*words, "decoder=pretrained"])
    assert "224 x 224 pixels" in capsys.readouterr().out
    values = ["image_size=224", "preprocessing.num_channels=3"]
    expected = lv.predict(None, tmp_path / "photos", [*words, "decoder=pretrained", *values])
    for one, two in zip(found, expected, strict=True):
        assert one.probabilities is not None
        assert (one.probabilities == two.probabilities).all()


class TestPretrainedDecoder:
    def encoder(self) -> Any:
        return type("Encoder", (), {"head_classes": ("cat", "dog", "fox", "cow")})()

    def decoder(self, count: int) -> Any:
        from lightning_vision.decoders.pretrained import PretrainedDecoder
        from lightning_vision.types import FeatureInfo

        return PretrainedDecoder(FeatureInfo((8,), (4,), 8), count)

    def test_classes_are_found_by_name(self) -> None:
        decoder = self.decoder(2)
        decoder.start(self.encoder(), ("fox", "cat"))
        assert decoder(torch.tensor([[1.0, 2, 3, 4]]), (1, 1)).tolist() == [[3, 1]]

    def test_as_many_others_are_taken_in_order(self) -> None:
        decoder = self.decoder(4)
        decoder.start(self.encoder(), ("a", "b", "c", "d"))
        assert decoder(torch.tensor([[1.0, 2, 3, 4]]), (1, 1)).tolist() == [[1, 2, 3, 4]]

    def test_a_name_at_another_place_is_no_order(self) -> None:
        # One name is written differently, so the others must not be taken by their positions.
        with pytest.raises(ConfigError, match="does not know"):
            self.decoder(4).start(self.encoder(), ("cow (animal)", "cat", "dog", "fox"))
        decoder = self.decoder(4)
        decoder.start(self.encoder(), ("cat", "dog", "the fox", "cow"))
        assert decoder(torch.tensor([[1.0, 2, 3, 4]]), (1, 1)).tolist() == [[1, 2, 3, 4]]

    def test_a_name_of_two_classes_is_ambiguous_in_data_only(self) -> None:
        encoder = type("Encoder", (), {"head_classes": ("crane", "dog", "crane")})()
        decoder = self.decoder(3)
        decoder.start(encoder, ("crane", "dog", "crane"))
        assert decoder(torch.tensor([[1.0, 2, 3]]), (1, 1)).tolist() == [[1, 2, 3]]
        with pytest.raises(ConfigError, match="does not know"):
            self.decoder(2).start(encoder, ("crane", "dog"))

    def test_an_unknown_class_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="does not know") as caught:
            self.decoder(2).start(self.encoder(), ("cat", "dogs"))
        assert "dog" in str(caught.value)
