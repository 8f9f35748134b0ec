"""Every YAML block of Ludwig's pages on images: composed, built, and trained for one step on generated data."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision import models

import lightning_vision as lv
from lightning_vision.options import load_option
from lightning_vision.overrides import grammar
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.torchvision import narrow_model

FOLDER = Path(__file__).parent / "blocks"
NAMES = {
    text: f"{file.stem}-{i}"  # some are there twice, word for word
    for file in sorted(FOLDER.glob("*.yaml"))
    for i, text in enumerate(file.read_text(encoding="utf-8").split("---\n")[1:])
}
BLOCKS = [pytest.param(text, id=name) for text, name in NAMES.items()]
IMAGES = ("image", "image_column_name", "image_path", "photo")
LABELS = ("label", "class", "tag")
VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32}
NARROW = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64]}
# What makes an encoder small and keeps it off the network; others are built as the block says, but TorchVision's large
# ones with few channels.
SMALL: dict[str, dict[str, Any]] = {
    "convnext": {"model_variant": "tiny"},
    "vit": {"model_variant": "b_32"},
    "unet": {"base_channels": 4},
    "clip": {"model_config": VIT | {"intermediate_size": 32}},
    "siglip": {"model_config": VIT | {"intermediate_size": 32}},
    "dinov2": {"model_config": VIT},
    **{name: {"model_kwargs": NARROW} for name in ("convnextv2", "timm", "caformer", "convformer", "poolformer")},
}
LARGE = {"alexnet": 63, "inceptionv3": 75}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table that has the columns of all blocks."""
    path = write_discs(tmp_path_factory.mktemp("data"), count=10, ignore_index=None)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*IMAGES, "mask", *LABELS, "split"])
        writer.writerows([r["image"]] * 4 + [r["mask"]] + [r["label"]] * 3 + [r["split"]] for r in rows)
    return path


def encoder_in(block: dict[str, Any]) -> str | None:
    features = block.get("input_features", [block])
    return (features[0].get("encoder") or {}).get("type")


def small(block: dict[str, Any], table: Path, folder: Path) -> list[str]:
    """Words beside the file: where the data are, and what keeps the run quick."""
    encoder = encoder_in(block)
    words = ["batch_size=4", "preprocessing.lazy_cache_dir=" + str(folder / "cache"), f"output_dir={folder / 'run'}"]
    words += [f"data.path={table}", f"image_size={LARGE.get(encoder or '', 32)}"]
    if "decoder" in block:
        words.append("data.target=mask")
    elif "output_features" not in block and "loss" not in block:
        words += ["decoder=classifier", "data.target=label"]
    elif "loss" in block:
        words.append("data.target=mask")
    if encoder is not None:
        has_weights = "use_pretrained" in load_option("encoder", encoder)
        settings = ({"use_pretrained": False} if has_weights else {}) | SMALL.get(encoder, {})
        words += [f"encoder.{key}={grammar(value)}" for key, value in settings.items()]
    return words


@pytest.mark.parametrize("text", BLOCKS)
def test_a_block_composes_builds_and_trains_a_step(
    text: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_model", narrow_model)
    file = tmp_path / "a config, (1).yaml"
    file.write_text(text, encoding="utf-8")
    module, data = lv.build([*small(yaml.safe_load(text), table, tmp_path), f"ludwig={file}"])
    said = capsys.readouterr().out
    assert said.startswith(f"{file} in words of this package:\n  python -m lightning_vision ")
    assert "not understood" not in said
    data.setup("fit")
    loss = module.train().training_step(next(iter(data.train_dataloader())), 0)
    loss = loss["loss"] if isinstance(loss, dict) else loss
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert any(g.abs().sum() > 0 for g in gradients)


def test_there_are_as_many_blocks_as_in_the_pages() -> None:
    texts = [file.read_text(encoding="utf-8") for file in FOLDER.glob("*.yaml")]
    assert sum(text.count("---\n") for text in texts) == 75
