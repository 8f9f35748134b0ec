"""Mixing in a whole model: what is refused before data are read, and steps of all kinds of targets."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_vision as lv
from lightning_vision.config import compose
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import resolve
from lightning_vision.testing.discs import write_discs

OUTPUTS = {
    "mask": {"decoder": {"type": "unet", "channels": [8, 8]}, "loss": "ce_dice"},
    "label": {"decoder": "classifier"},
    "seen": {"decoder": "classifier", "task": "multilabel"},
}
COLUMNS = "outputs={mask: {decoder: unet, loss: focal_loss}, label: {decoder: classifier, task: classification}}"
LABEL = ("decoder=classifier", "task=classification")
REFUSED = [
    # words, what the message names, the number of overrides that mend it
    (["decoder=projector", "augmentation=mixup", "data.target=label"], ["augmentation.mixup", "NTXentLoss"], 1),
    (
        ["decoder=anomaly", "augmentation=cutmix", "data.target=label", "decoder.normal_class=blue"],
        ["augmentation.cutmix", "task=anomaly"],
        1,
    ),
    ([*LABEL, "augmentation=cutmix", "data.target=hue", "data.unknown=[none]"], ["data.unknown"], 2),
    ([*LABEL, "augmentation=mixup_cutmix", "batch_size=1"], ["batch_size=1", "mixup_cutmix"], 2),
    ([*LABEL, "augmentation=cutmix", "loss=focal_loss"], ["focal_loss", "softmax_cross_entropy"], 2),
    (["decoder=unet", "augmentation=mixup", "loss=lovasz_softmax_loss"], ["loss=lovasz", "poly", "or cutmix"], 2),
    ([COLUMNS, "augmentation=mixup"], ["outputs.mask.loss=focal_loss", "augmentation.mixup", "cutmix"], 2),
    (
        ["decoder=unet", "augmentation=[mixup,random_horizontal_flip]"],
        ["before augmentation.random_horizontal_flip", "comes last"],
        2,
    ),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_discs(tmp_path_factory.mktemp("discs"))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "seen", "hue"])
        writer.writeheader()
        for i, row in enumerate(rows):
            row["seen"] = row["label"] + ("|large" if i % 5 > 2 else "")
            row["hue"] = "none" if i % 5 == 4 else row["label"]
            writer.writerow(row)
    return path


@pytest.mark.parametrize(("words", "named", "ways"), REFUSED, ids=[r[1][-1] for r in REFUSED])
def test_what_cannot_be_mixed_is_refused_before_data_are_read(
    table: Path, tmp_path: Path, words: list[str], named: list[str], ways: int
) -> None:
    words = ["data=table", "data.ignore_index=255", *words]
    with pytest.raises(ConfigError) as caught:
        resolve(compose(words, {"data.path": str(tmp_path / "missing.csv"), "output_dir": "x"}))
    for name in named:
        assert name in str(caught.value)
    assert len(caught.value.overrides) == ways
    for override in caught.value.overrides:
        resolve(compose([*words, *override.split(" ")], {"data.path": str(table), "output_dir": "x"}))


@pytest.mark.parametrize(
    "words",
    [
        ["decoder=unet", "augmentation=cutmix", "loss=focal_loss"],
        ["decoder=unet", "augmentation=[mixup,cutmix]"],
        ["decoder=classifier", "augmentation=[mixup,random_horizontal_flip]"],
    ],
    ids=" ".join,
)
def test_what_can_be_mixed_is_not_refused(table: Path, words: list[str]) -> None:
    words = ["data=table", "data.ignore_index=255", *words]
    resolve(compose(words, {"data.path": str(table), "output_dir": "x"}))


def built(table: Path, out: Path, **more: Any) -> tuple[Any, Any]:
    values = {"data.path": str(table), "data.ignore_index": 255, "output_dir": str(out), "encoder.out_channels": 4}
    plain = {"encoder": "stacked_cnn", "data": "table", "image_size": [16, 20], "batch_size": 8}
    return lv.build(**plain, overrides=values, **more)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix", "mixup_cutmix"])
def test_a_step_with_a_mask_a_label_and_a_set(mixing: str, table: Path, tmp_path: Path) -> None:
    """Also in half precision, and the figures of the step are those of the class of the largest share."""
    module, data = built(table, tmp_path, outputs=OUTPUTS, augmentation=mixing)
    batch = data.batch(data.index.rows("train")[:8])
    generator = torch.Generator().manual_seed(0)
    mixed = module._augmented(batch, generator)
    assert mixed["target"].is_floating_point() == (mixing != "cutmix")
    assert mixed["targets"]["label"].shape == (8, 2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        loss = module.train().training_step(batch, 0)
    loss.backward()
    assert loss.isfinite()
    for _, head in module.named_heads():
        assert any((p.grad != 0).any() for p in head.parameters() if p.grad is not None), "each head learns"
    head = module.head("label")
    head.count_now()
    assert int(head.train_scores.compute()["confusion"].sum()) == 8
    torch.manual_seed(0)
    again = module._augmented(batch, torch.Generator().manual_seed(int(torch.randint(2**62, ()))))
    expected = again["targets"]["label"].argmax(1).bincount(minlength=2)
    assert torch.equal(head.train_scores.compute()["confusion"].sum(1), expected)


def test_blended_masks_leave_out_what_no_image_covers(tmp_path: Path) -> None:
    """Also where the data ignore nothing."""
    table = write_discs(tmp_path / "discs", count=20, ignore_index=None)
    values = {"data.path": str(table), "output_dir": str(tmp_path), "encoder.out_channels": 4}
    values |= {"augmentation.random_rotate.degree": 45, "augmentation.mixup.alpha": 1.0}
    module, data = lv.build(
        encoder="stacked_cnn",
        decoder="unet",
        data="table",
        image_size=16,
        augmentation=["random_rotate", "mixup"],
        overrides=values,
    )
    batch = data.batch(data.index.rows("train")[:8])
    target = module._augmented(batch, torch.Generator().manual_seed(0))["target"]
    rows = target.sum(1)
    assert (((rows - 1).abs() < 1e-6) | (rows == 0)).all()
    assert 0 < (rows == 0).float().mean() < 0.6
    module.train().training_step(batch, 0).backward()
