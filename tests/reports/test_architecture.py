"""What a model consists of: counted here, by torch, and as it was published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import lightning_vision as lv
from lightning_vision.decoders.classifier import ClassifierDecoder
from lightning_vision.encoders.torchvision import TorchvisionEncoder
from lightning_vision.head import Head
from lightning_vision.module import VisionModule
from lightning_vision.reports.architecture import Part, Row, parts_of, rates_of
from lightning_vision.reports.architecture_picture import architecture_image
from lightning_vision.reports.summary import Summary, duration, nbytes, scaled_count, share
from lightning_vision.tasks.classification import Classification
from lightning_vision.types import IMAGENET_STATS, Geometry, TargetSpec

MIXER = {"encoder": "mlp_mixer", "encoder.num_layers": 4, "encoder.embed_size": 32}
TWO = {"mask": {"decoder": "unet"}, "scene": {"decoder": "classifier", "target": "label"}}


def test_resnet50_has_the_published_figures() -> None:
    """25.6 M parameters and 4.09 G multiply-adds at 224 pixels (TorchVision's table of weights: 25557032, 4.09)."""
    encoder = TorchvisionEncoder("resnet", "50", use_pretrained=False)
    target = TargetSpec("label", tuple(map(str, range(1000))))
    head = Head(ClassifierDecoder(encoder.info, 1000), Classification(target))
    module = VisionModule(encoder, {"label": head}, Geometry(224, 224, 3), IMAGENET_STATS)
    parts = parts_of(module)
    total = [part.total for part in parts]
    assert sum(row.parameters for row in total) == 25_557_032
    assert sum(row.multiply_adds for row in total) / 1e9 == pytest.approx(4.09, abs=0.005)
    stages = parts[0].rows[:5]
    assert [(row.stride, row.channels, row.size) for row in stages] == [
        (2 * 2**i, c, (112 // 2**i,) * 2) for i, c in enumerate((64, 256, 512, 1024, 2048))
    ]
    # The layers of the published network: 0.2, 1.2, 7.1 and 15.0 M, behind a stem of 9 536.
    assert [row.parameters for row in stages] == [9_536, 215_808, 1_219_584, 7_098_368, 14_964_736]


@pytest.mark.parametrize(
    "choices",
    [
        {"decoder": "unet"},
        {"decoder": "classifier", "encoder.trainable": False},
        {"outputs": TWO},
        MIXER | {"decoder": "segformer", "encoder.trainable": False},
        {"decoder": "classifier", "average_horizontal_flips": True},
    ],
    ids=["cnn", "frozen", "two outputs", "neck", "flips"],
)
def test_rows_add_up_to_what_torch_counts_and_nothing_changes(choices: dict[str, Any]) -> None:
    module, _ = lv.build(image_size=48, **choices)
    module.train()
    before = {name: (p.requires_grad, p.clone()) for name, p in module.named_parameters()}
    modes = [part.training for part in module.modules()]
    parts = parts_of(module)

    assert sum(part.total.parameters for part in parts) == sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert sum(part.total.trained for part in parts) == trained == sum(rate.parameters for rate in rates_of(module))
    assert [part.training for part in module.modules()] == modes
    for name, parameter in module.named_parameters():
        flag, value = before[name]
        assert parameter.requires_grad == flag
        assert parameter.grad is None
        torch.testing.assert_close(parameter, value, rtol=0, atol=0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module.eval().outputs(torch.zeros(1, *module.geometry.shape, dtype=torch.uint8))
    # A row drops half an operation at most.
    assert counter.get_total_flops() // 2 - sum(part.total.multiply_adds for part in parts) in range(20)
    assert not any(row.size is None for row in parts[0].rows if row.name.startswith("map"))


def test_rates_fall_from_layer_to_layer() -> None:
    module, _ = lv.build(decoder="classifier", encoder_layer_decay=0.5, encoder_lr_factor=0.1, lr=0.01)
    rates = {rate.name: rate for rate in rates_of(module)}
    assert rates["head"].lr == rates["head"].lowest == 0.01
    assert rates["encoder"].lr == pytest.approx(0.001)
    assert rates["encoder"].lowest == pytest.approx(0.001 * 0.5 ** (rates["encoder"].layers - 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (nbytes(0), ""),
        (nbytes(999), "999 B"),
        (nbytes(1000), "0.98 KiB"),
        (nbytes(1536), "1.50 KiB"),
        (nbytes(3 * 2**30), "3.00 GiB"),
        (scaled_count(999), "999"),
        (scaled_count(4_089_184_256), "4.09 G"),
        (scaled_count(99_960), "100 k"),
        (duration(0.0123), "12.3 ms"),
        (duration(12.34), "12.3 s"),
        (share(5, 5), "all"),
        (share(0, 5), "none"),
        (share(1, 10**9), "0.01 %"),
        (share(999_999, 10**6), "99.9 %"),
    ],
)
def test_figures_in_words(text: str, expected: str) -> None:
    assert text == expected


def test_lines_fit_the_page_whatever_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row("a very long name of a block " * 3, 32, 2048, (512, 512), 10**9, 10**8, 10**13)]
    parts = [Part("encoder", "N" * 90, None, rows), Part("decoder", "D" * 70, "an output with a long name", rows)]
    summary = Summary(Geometry(1024, 1024, 3, 2), {"mask": 4, "scene": 0}, parts, [], "AdamW")
    summary.show_model()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100, lines
    assert lines[0] == "2 images of 1024 x 1024 pixels, 3 channels; mask 4 classes, scene no labels"
    assert architecture_image(summary).width < 1000


def test_titles_of_usual_length_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda _, place, text, *rest, **more: drawn.append(text))
    rows = [Row("map 1", 2, 64, (8, 8), 10**7, 10**6, 10**8)]
    parts = [Part("encoder", "StackedCNN", None, rows), Part("decoder", "ClassifierDecoder", "scene", rows)]
    architecture_image(Summary(Geometry(180, 240, 3), {"mask": 12, "label": 4, "scene": 4}, parts, [], "AdamW"))
    assert drawn[0] == "180 x 240 pixels, 3 channels; mask 12 classes, label 4 classes, scene 4 classes"
    assert {"encoder: StackedCNN", "decoder of scene: ClassifierDecoder"} <= set(drawn)
    assert not [text for text in drawn if "…" in text]


def test_the_picture_shows_what_is_trained(tmp_path: Path) -> None:
    rows = [Row("map 1", 2, 64, (8, 8), 1000, 0, 10), Row("map 2", 4, 64, (4, 4), 1000, 1000, 10)]
    page = architecture_image(Summary(Geometry(16, 16, 3), {"mask": 2}, [Part("encoder", "tiny", None, rows)], [], "A"))
    assert isinstance(page, Image.Image)
    colours = {colour for _, colour in page.getcolors(2**20) or []}
    assert {(0, 114, 178), (176, 180, 188)} <= colours
