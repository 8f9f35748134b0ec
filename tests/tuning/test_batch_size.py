"""The search for a batch size: what a step takes is measured, and what fits is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_vision as lv
from lightning_vision.actions.arguments import composed
from lightning_vision.actions.models import build_parts
from lightning_vision.errors import ConfigError
from lightning_vision.resolve import Plan, resolve
from lightning_vision.testing.discs import write_discs
from lightning_vision.tuning import batch_size
from lightning_vision.tuning import step as step_module
from lightning_vision.tuning.batch_size import _Step, find_batch_size
from lightning_vision.tuning.step import Live, of_size
from lightning_vision.tuning.trial import first_batches

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def settings(table: Path, out: Path, **values: Any) -> dict[str, Any]:
    data = {"data.path": str(table), "data.ignore_index": 255, "encoder.out_channels": 8, "output_dir": str(out)}
    classes = {"data.class_names": ["background", "blue", "red"], "decoder.channels": [16, 8]}
    words = {"encoder": "stacked_cnn", "decoder": "unet", "data": "table", "image_size": [32, 40]}
    return {**words, "epochs": 1, "batch_size": 3, "overrides": {**data, **classes, **values}}


@pytest.fixture(scope="module")
def built(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Any, Any]:
    plan = resolve(composed(None, settings(table, tmp_path_factory.mktemp("run")), "build"))
    return plan, *build_parts(plan)


def test_live_bytes_are_counted_once_and_until_they_are_free() -> None:
    with Live() as live:
        a = torch.ones(1000)
        b = a.view(10, 100).add_(1)  # the same memory
        assert live.now == 4000
        c = torch.ones(500, dtype=torch.float64)
        assert live.now == 8000
        del a, b
        assert live.now == 4000
        del c
    assert (live.now, live.most) == (0, 8000)


def test_memory_of_a_step_is_a_straight_line(built: tuple[Plan, Any, Any]) -> None:
    plan, module, data = built
    step, batch = _Step(module, plan.config, CPU), first_batches(data, 1, 8)[0]
    taken = {size: step.memory(of_size(batch, size)) for size in (2, 4, 8, 16)}
    each = (taken[8] - taken[4]) / 4
    assert taken[16] == pytest.approx(taken[4] + 12 * each, rel=0.02)
    # At least the maps that the first convolution makes, and less than a hundred such.
    assert 32 * 40 * 8 * 4 < each < 100 * 32 * 40 * 8 * 4


@pytest.mark.parametrize(("free", "expected"), [(2**40, 16), (8 * 2**20, None)])
def test_the_largest_that_fits_and_no_more_than_there_are(
    free: int, expected: int | None, built: tuple[Plan, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "available_memory", lambda: free)
    plan, module, data = built
    found = find_batch_size(plan.config, module, data, CPU)
    if expected is not None:  # of 24 rows
        assert found.batch_size == expected
        assert found.lr == pytest.approx(plan.config["lr"] * expected / 3)
        return
    step, batch = _Step(module, plan.config, CPU), first_batches(data, 1, 8)[0]
    assert 1 <= found.batch_size < 16
    room = batch_size.SHARE * free - step_module.OF_OPTIMIZER * step.trained_bytes
    pixels = batch_size.WAITING * 3 * 32 * 40

    def fits(size: int) -> bool:
        return step.memory(of_size(batch, size)) + pixels * size <= room * 1.02

    assert fits(found.batch_size)
    assert not fits(3 * found.batch_size)


def test_nothing_fits_or_nothing_is_known(built: tuple[Plan, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, module, data = built
    for free, message in ((1000, "Not even one image fits"), (None, "Nothing tells how much memory")):
        monkeypatch.setattr(step_module, "available_memory", lambda free=free: free)
        with pytest.raises(ConfigError, match=message):
            find_batch_size(plan.config, module, data, CPU)


def test_where_memory_runs_out_the_half_is_tried(built: tuple[Plan, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, module, data = built
    step, batch, tried = _Step(module, plan.config, CPU), first_batches(data, 1, 8)[0], []

    def run(given: Any) -> None:
        tried.append(len(given["image"]))
        if tried[-1] > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "run", run)
    assert step.largest(batch, 32) == 8
    assert tried == [32, 16, 8]


@pytest.mark.parametrize("most", [3, 2, 1, 0])
def test_memory_may_run_out_while_it_is_measured(
    most: int, built: tuple[Plan, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = _Step.run

    def run(self: _Step, given: Any) -> None:
        if len(given["image"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        inner(self, given)

    monkeypatch.setattr(_Step, "run", run)
    if most:
        assert find_batch_size(built[0].config, *built[1:], CPU).batch_size == min(most, 2)
        return
    with pytest.raises(ConfigError, match="Not even one image fits"):
        find_batch_size(built[0].config, *built[1:], CPU)


def test_a_model_that_does_not_fit_is_named(built: tuple[Plan, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(module: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step_module, "copy_of", copied)
    with pytest.raises(ConfigError, match="Not even one image fits"):
        find_batch_size(built[0].config, *built[1:], CPU)


def test_a_run_takes_it_and_says_so(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lv.fit(**settings(table, tmp_path, **{"trainer.find_batch_size": True}))
    said = capsys.readouterr().out
    assert "batch    16 images (" in said
    assert "batch_size=16 sets it" in said
    assert "lr=0.001 was chosen for another batch size; in proportion lr=0.0053" in said
    assert found.module.config["batch_size"] == 16
    assert found.module.config["trainer"]["find_batch_size"] is False
    assert found.module.trainer.global_step == 2  # 24 rows
