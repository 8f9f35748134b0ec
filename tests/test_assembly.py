"""From a plan to a model: what is built, what is trained, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lightning_vision.assembly import build_module, freeze_unused
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.module import VisionModule
from lightning_vision.resolve import Plan, resolve
from lightning_vision.testing.discs import write_discs


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def plan(table: Path, *words: str, **values: Any) -> Plan:
    given = {"data.path": str(table), "data.ignore_index": 255, **values}
    return resolve(compose(["data=table", "image_size=[40,56]", *words], given))


TIMM = ("encoder=timm", "encoder.use_pretrained=false")
TINY_DINO = {
    "encoder.model_config": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28},
    "encoder.use_pretrained": False,
}


def trained_step(module: VisionModule) -> None:
    """One forward and backward in training mode, at the size of the run."""
    geometry = module.geometry
    image = torch.randint(0, 256, (2, geometry.num_channels, geometry.height, geometry.width), dtype=torch.uint8)
    shape = (2,) if module.task.target_kind == "label" else (2, geometry.height, geometry.width)
    module.train()
    head = module.head()
    head.loss_of(module.outputs(image)["output"], torch.zeros(shape, dtype=torch.int64)).backward()


CASES = [
    (("decoder=unet", "encoder=stacked_cnn"), {}),
    (("decoder=classifier", "encoder=stacked_cnn", "encoder.fc_dropout=0.5", "encoder.conv_dropout=0.5"), {}),
    (("decoder=unet", "encoder=unet", "encoder.base_channels=4"), {}),
    (("decoder=unet", *TIMM, "encoder.model_name=test_vit"), {}),
    (("decoder=classifier", *TIMM, "encoder.model_name=test_vit"), {}),
    (("decoder=unet", *TIMM, "encoder.model_name=test_convnext", "+encoder.model_kwargs.drop_path_rate=0.5"), {}),
    (("decoder=unet", "encoder=dinov2"), TINY_DINO),
    (("decoder=classifier", "encoder=dinov2", "encoder.adapter=lora"), TINY_DINO),
    (("decoder=unet", "encoder=unet", "encoder.base_channels=4", "encoder.trainable=false"), {}),
    (("decoder=unet", "encoder=unet", "encoder.skip=true"), {}),
]


@pytest.mark.parametrize(("words", "values"), CASES, ids=[" ".join(c[0]) for c in CASES])
def test_what_is_trained_is_exactly_what_gets_a_gradient(
    table: Path, words: tuple[str, ...], values: dict[str, Any]
) -> None:
    module = build_module(plan(table, *words, **values))
    wanted = {name for name, p in module.named_parameters() if p.requires_grad}
    trained_step(module)
    reached = {name for name, p in module.named_parameters() if p.grad is not None}
    assert wanted == reached
    assert any(name.startswith("heads.of_output.decoder.") for name in wanted)
    # Nothing that could be trained was switched off: a second pass with all gradients on reaches no more.
    encoder = module.encoder
    if encoder.trainable and encoder.adapter is None:
        module.zero_grad(set_to_none=True)
        module.requires_grad_(True)
        trained_step(module)
        assert {name for name, p in module.named_parameters() if p.grad is not None} == wanted


def test_freezing_changes_neither_mode_nor_statistics_nor_random_numbers(table: Path) -> None:
    module = build_module(plan(table, "decoder=unet", "encoder=unet", "encoder.base_channels=4"))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    freeze_unused(module)
    assert torch.equal(torch.rand(3), expected)
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_an_unused_part_is_switched_off(table: Path) -> None:
    module = build_module(plan(table, "decoder=unet", "encoder=unet", "encoder.base_channels=4"))
    module.encoder.aside = nn.Linear(3, 3)
    freeze_unused(module)
    assert not any(p.requires_grad for p in module.encoder.aside.parameters())
    assert all(p.requires_grad for p in module.decoder.parameters())


@pytest.mark.parametrize(
    ("words", "values", "expected"),
    [
        (("decoder=unet", "encoder=dinov2"), TINY_DINO, "all have stride 14"),
        (("decoder=classifier", "encoder=dinov2"), TINY_DINO, "takes no maps"),
        (("decoder=unet", "encoder=unet", "encoder.base_channels=4"), {}, "several strides"),
    ],
)
def test_the_neck_is_decided_and_written_with_its_reason(
    table: Path, words: tuple[str, ...], values: dict[str, Any], expected: str
) -> None:
    made = plan(table, *words, **values)
    module = build_module(made)
    assert expected in made.reasons["neck"]
    assert (made.config["neck"] is None) == (module.neck is None)
    if module.neck is not None:
        assert made.config["neck"]["_target_"].endswith(type(module.neck).__name__)


def test_a_neck_that_was_named_is_used_with_its_settings(table: Path) -> None:
    words = ("decoder=unet", "encoder=unet", "encoder.base_channels=4", "neck=pyramid", "neck.channels=24")
    module = build_module(plan(table, *words))
    assert module.neck is not None
    assert module.decoder.info.channels == (24,) * 4


@pytest.mark.parametrize(
    ("standardize", "channels", "mean", "std"),
    [
        ("null", 4, (0,) * 4, (1,) * 4),
        ("null", 1, (0,), (1,)),
        ("imagenet1k", 4, (0.485, 0.456, 0.406, 0.5), (0.229, 0.224, 0.225, 0.5)),
        ("encoder", 2, (0.5,) * 2, (0.5,) * 2),
    ],
)
def test_pixel_statistics(
    table: Path, standardize: str, channels: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    words = (f"preprocessing.standardize_image={standardize}", f"preprocessing.num_channels={channels}")
    module = build_module(plan(table, "encoder=unet", "encoder.base_channels=4", *words))
    assert module.pixel_stats.mean == mean
    assert module.pixel_stats.std == std
    image = torch.zeros(1, channels, 16, 16, dtype=torch.uint8)
    assert module.eval()(image).shape[2:] == (16, 16)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("monitor=val/miou",), "val/mean_iou"),
        (("monitor=val/accuracy", "decoder=classifier"), None),
        (("monitor=acuracy", "decoder=classifier"), "val/accuracy"),
    ],
)
def test_a_figure_that_no_epoch_reports_is_refused_before_the_first(
    table: Path, words: tuple[str, ...], near: str | None
) -> None:
    made = plan(table, *words)
    if near is None:
        build_module(made)
        return
    with pytest.raises(ConfigError, match="no such figure") as caught:
        build_module(made)
    assert caught.value.nearest == near
    build_module(plan(table, *words, caught.value.overrides[0]))


def test_the_optimizer_gets_its_groups_and_the_encoders_rate(table: Path) -> None:
    words = ("encoder=unet", "encoder.base_channels=4", "lr=0.5", "encoder_lr_factor=0.01", "optimizer=sgd")
    settings = plan(table, *words)
    module = build_module(settings)
    module._steps = lambda: (10, 5)  # type: ignore[method-assign]
    groups = module.configure_optimizers()["optimizer"].param_groups
    rates = {g["name"]: (g["initial_lr"], g["weight_decay"]) for g in groups}
    assert rates == {
        "encoder": (pytest.approx(0.005), 1e-4),
        "encoder_no_decay": (pytest.approx(0.005), 0),
        "head": (0.5, 1e-4),
        "head_no_decay": (0.5, 0),
    }
    count = sum(p.numel() for g in groups for p in g["params"])
    assert count == sum(p.numel() for p in module.parameters() if p.requires_grad)
    settings.config["optimizer"]["dampening"] = 0.5
    with pytest.raises(ConfigError, match=r"optimizer cannot be built.*zero dampening"):
        module.configure_optimizers()


def test_cached_features_are_those_of_image_and_mirror_image(table: Path) -> None:
    words = ["decoder=classifier", "encoder=stacked_cnn", "encoder.trainable=false", "image_size=16"]
    identities, features = [], []
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    for word in ("average_horizontal_flips=false", "average_horizontal_flips=true"):
        torch.manual_seed(0)
        module = build_module(plan(table, *words, word))
        module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        assert module.embeddings is not None
        identities.append(module.embeddings.identity())
        features.append([module.embeddings.encode(i)[0] for i in (image, image.flip(-1))])
    assert identities[0] != identities[1]
    assert identities[0] == {k: v for k, v in identities[1].items() if k != "average_horizontal_flips"}
    (one, mirrored), averaged = features
    assert not torch.allclose(one, mirrored)
    assert all(torch.allclose(found, (one + mirrored) / 2, atol=1e-6) for found in averaged)
