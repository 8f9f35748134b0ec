"""Parameter groups, and the rates that are reported of them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

import lightning_vision as lv
from lightning_vision.encoders.inputs import InputsEncoder
from lightning_vision.optim.cosine import Cosine
from lightning_vision.optim.groups import learning_rates, parameter_groups
from lightning_vision.testing.discs import write_discs
from lightning_vision.testing.encoders import TinyEncoder


def test_groups_hold_every_trainable_parameter_once() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    head = nn.Linear(4, 2)
    encoder[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    groups = parameter_groups(encoder, [head], lr=1.0, weight_decay=0.1, encoder_lr_factor=0.01)
    named = {g["name"]: g for g in groups}
    assert {k: (g["lr"], g["weight_decay"]) for k, g in named.items()} == {
        "encoder": (0.01, 0.1),
        "encoder_no_decay": (0.01, 0.0),
        "head": (1.0, 0.1),
        "head_no_decay": (1.0, 0.0),
    }
    held = [p for g in groups for p in g["params"]]
    trainable = [p for m in (encoder, head) for p in m.parameters() if p.requires_grad]
    assert {id(p) for p in held} == {id(p) for p in trainable}
    assert len(held) == len(trainable)
    assert all(p.ndim > 1 for p in named["encoder"]["params"] + named["head"]["params"])


def test_a_frozen_encoder_has_no_group() -> None:
    encoder = nn.Conv2d(3, 4, 3).requires_grad_(False)
    groups = parameter_groups(encoder, [nn.Linear(2, 2)], 1.0, 0.0, 1.0)
    assert {g["name"] for g in groups} == {"head", "head_no_decay"}


def test_layer_decay_is_timms_below_the_encoders_rate() -> None:
    encoder = timm.create_model("test_vit", num_classes=0)
    encoder.blocks[0].requires_grad_(False)
    groups = parameter_groups(encoder, [nn.Linear(2, 2)], 0.5, 0.1, 0.2, encoder_layer_decay=0.7)
    ours = {id(p): (g["lr"], g["weight_decay"]) for g in groups if g["name"].startswith("encoder") for p in g["params"]}
    theirs = param_groups_layer_decay(encoder, weight_decay=0.1, layer_decay=0.7)
    for group in theirs:
        for parameter in group["params"]:
            # timm leaves decay off what its model names, and off vectors; we leave it off vectors alone.
            rate, decay = ours.pop(id(parameter))
            assert rate == pytest.approx(0.5 * 0.2 * group["lr_scale"])
            assert decay == (0.1 if parameter.ndim > 1 else 0.0)
    assert not ours
    assert [g["lr"] for g in groups if g["name"].startswith("head")] == [0.5, 0.5]


def test_layer_decay_of_one_is_none() -> None:
    encoder = TinyEncoder()
    rates = {g["lr"] for g in parameter_groups(encoder, [], 1.0, 0.0, 0.1, encoder_layer_decay=1.0)}
    assert rates == {0.1}


def test_encoders_of_several_images_decay_side_by_side() -> None:
    encoder = InputsEncoder([TinyEncoder(4, 2), TinyEncoder(4, 2)])
    groups = parameter_groups(encoder, [], 1.0, 0.0, 1.0, encoder_layer_decay=0.5)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    for part in encoder.encoders:
        assert rates[id(part.levels[0][0].weight)] == 0.5
        assert rates[id(part.levels[1][0].weight)] == 1.0


def test_a_few_rates_stand_for_all_groups() -> None:
    encoder, head = TinyEncoder(4, 3), nn.Linear(2, 2)
    groups = parameter_groups(encoder, [head], 1.0, 0.1, 0.1, encoder_layer_decay=0.5)
    assert learning_rates(groups) == {"encoder": 0.1, "encoder_lowest": 0.025, "head": 1.0}
    assert learning_rates(parameter_groups(encoder, [head], 1.0, 0.1, 0.1)) == {"encoder": 0.1, "head": 1.0}
    encoder.requires_grad_(False)
    assert learning_rates(groups) == {"head": 1.0}


def test_every_group_follows_the_schedule_from_its_own_rate() -> None:
    groups = parameter_groups(TinyEncoder(4, 3), [nn.Linear(2, 2)], 1.0, 0.0, 0.1, encoder_layer_decay=0.5)
    own = [group["lr"] for group in groups]
    optimizer = torch.optim.SGD(groups)
    scheduler = Cosine(optimizer, 4, 4, warmup=0)
    optimizer.step()
    scheduler.step()
    factor = 0.5 * (1 + math.cos(math.pi / 4))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate * factor for rate in own])


def test_the_table_holds_the_rates_of_the_last_step_of_each_epoch(tmp_path: Path) -> None:
    table = write_discs(tmp_path / "discs", count=20)  # 12 rows to train on, three steps
    values = {
        "data.path": str(table),
        "data.target": "label",
        "scheduler.warmup": 0,
        "output_dir": str(tmp_path / "run"),
    }
    more = {"encoder.base_channels": 4, "encoder.depth": 2, "encoder_lr_factor": 0.1, "encoder_layer_decay": 0.5}
    parts = {"data": "table", "encoder": "unet", "decoder": "classifier", "image_size": 32}
    lv.fit(**parts, epochs=2, batch_size=4, lr=0.01, overrides=values | more)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, step in zip(rows, (2, 5), strict=True):
        rate = 0.01 * 0.5 * (1 + math.cos(math.pi * step / 6))
        assert float(row["lr/head"]) == pytest.approx(rate)
        assert float(row["lr/encoder"]) == pytest.approx(0.1 * rate)
        assert float(row["lr/encoder_lowest"]) == pytest.approx(0.025 * rate)
    assert [name for name in rows[0] if name.startswith("lr/")] == ["lr/encoder", "lr/encoder_lowest", "lr/head"]
