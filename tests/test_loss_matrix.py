"""Every loss of conf/ with every task that it serves: by itself, and one step of a model that a run would build."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_vision as lv
from lightning_vision.config import instantiate
from lightning_vision.errors import ConfigError
from lightning_vision.loss_choice import loss_tasks
from lightning_vision.losses.base import Loss
from lightning_vision.options import load_option
from lightning_vision.searchpath import options_of
from lightning_vision.tasks import TASKS, task_constants
from lightning_vision.testing.conformance import _example, _known, check_loss
from lightning_vision.testing.discs import write_discs

PLAIN = [name for name, file in options_of("loss").items() if "_target_" in file.read_text() and name != "combined"]
NAMES = ("a", "b", "c", "d")
# For these a row of no class is background, and counts.
OPEN_SET = ("entropic_open_set", "objectosphere")
TARGETS = {"segmentation": "mask", "multilabel": "labels", "anomaly": "state"}
PAIRS = [(name, task) for name in PLAIN for task in loss_tasks(load_option("loss", name))]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_discs(tmp_path_factory.mktemp("discs"))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["labels"] = row["label"] + ("|large" if i % 5 > 2 else "")
        row["hue"] = "none" if i % 5 == 4 else row["label"]
        row["state"] = "anomalous" if i % 4 == 3 else "normal"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", [name for name in PLAIN if "losses" not in load_option("loss", name)])
def test_the_contract(name: str) -> None:
    torch.manual_seed(0)
    ignore = None if name in OPEN_SET else 255
    loss = instantiate(load_option("loss", name), Loss, num_classes=4, class_names=NAMES, ignore_index=ignore)
    check_loss(loss, 4, ignore)
    doubled = instantiate(
        {**load_option("loss", name), "weight": 2.0}, Loss, num_classes=4, class_names=NAMES, ignore_index=ignore
    )
    for task in loss.tasks:
        logits, target, _ = _example(task, 4)
        known = _known(loss, logits)
        values = []
        for each in (loss, doubled):
            torch.manual_seed(1)  # some search at random
            values.append(each(logits, target, **known))
        torch.testing.assert_close(values[1], 2 * values[0])


def settings(table: Path, out: Path, loss: str, task: str) -> dict[str, Any]:
    values: dict[str, Any] = {"data.path": str(table), "output_dir": str(out), "encoder.out_channels": 4}
    values["data.target"] = TARGETS.get(task, "label")
    if task == "segmentation":
        values["data.ignore_index"] = 255
    if task == "open_set":
        values |= {"data.target": "hue", "data.unknown": ["none"]}
    augmentation = {"augmentation": "views"} if task == "embedding" else {}
    return {
        "encoder": "stacked_cnn",
        "decoder": task_constants(task)["default_decoder"],
        "loss": loss,
        "task": task,
        "data": "table",
        "image_size": 16,
        "batch_size": 8,
        "overrides": values,
        **augmentation,
    }


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_a_step_of_every_task_that_it_serves(name: str, task: str, table: Path, tmp_path: Path) -> None:
    module, data = lv.build(**settings(table, tmp_path, name, task))
    torch.manual_seed(0)
    loss = module.train().training_step(data.batch(data.index.rows("train")[:8]), 0)
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad for p in module.decoder.parameters() if p.requires_grad]
    assert gradients
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any((g != 0).any() for g in gradients if g is not None), "the loss trains the decoder"


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_of_another_task_is_refused_before_anything_is_loaded(task: str, table: Path, tmp_path: Path) -> None:
    wrong = next(name for name in PLAIN if task not in loss_tasks(load_option("loss", name)))
    given = settings(table, tmp_path, wrong, task)
    given["overrides"]["data.path"] = str(tmp_path / "missing.csv")
    with pytest.raises(ConfigError, match="does not serve the task") as caught:
        lv.build(**given)
    assert all(task in loss_tasks(load_option("loss", word.partition("=")[2])) for word in caught.value.overrides[:1])
