"""A real run in all logs, read back from their files, and gone on with in another folder."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lightning_vision as lv
from lightning_vision.loggers.mlflow import MLflowLog
from lightning_vision.testing.discs import write_discs

SMALL = ["encoder.out_channels=8", "image_size=32", "batch_size=8", "decoder=classifier"]
# MLflow's own, of SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ALL = "logger=[tensorboard,wandb,mlflow]"
STEP = "trainer/global_step"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The folders of a run of one epoch and of one that goes on for a second; nothing leaves the machine."""
    folder = tmp_path_factory.mktemp("runs é")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        table = write_discs(folder / "data", count=24)
        data = {"data.path": str(table), "data.target": "label"}
        lv.fit([*SMALL, "data=table", ALL], overrides={**data, "output_dir": str(folder / "a")}, epochs=1)
        again = {"checkpoint": str(folder / "a" / "checkpoints" / "last.ckpt"), "output_dir": str(folder / "b")}
        again["logger.mlflow.tracking_uri"] = address(folder / "a")  # a database of each run would be one by itself
        lv.fit([f"data.path='{table}'", ALL], overrides=again, epochs=2)
        yield folder / "a", folder / "b"


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"


def epochs(folder: Path) -> dict[int, dict[str, float]]:
    """The table of the epochs, by step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return {int(r["step"]): {k: float(v) for k, v in r.items() if k != "step" and v} for r in csv.DictReader(file)}


def final(folder: Path) -> dict[str, float]:
    return {k: v for k, v in json.loads((folder / "metrics.json").read_text()).items() if v is not None}


def plots(folder: Path) -> set[str]:
    files = {f.relative_to(folder).with_suffix("").as_posix() for f in (folder / "plots").rglob("*.png")}
    assert {"plots/curves", "plots/confusion"} <= files
    return files


def by_step(found: list[tuple[str, int, float]]) -> dict[int, dict[str, float]]:
    """Figures by step; none is there twice at a step, and the steps of each only grow."""
    steps: dict[int, dict[str, float]] = {}
    last: dict[str, int] = {}
    for name, step, value in found:
        assert step > last.get(name, -1), f"{name} at step {step}"
        last[name] = step
        steps.setdefault(step, {})[name] = value
    return steps


def expected(folder: Path, earlier: Path | None = None) -> dict[int, dict[str, float]]:
    """The figures of the epochs, and those of the end; of the run before as well, where its log goes on."""
    table = epochs(folder)
    for ended in filter(None, (earlier, folder)):
        table[max(epochs(ended))] |= final(ended)
    return table


def same(found: dict[int, dict[str, float]], wanted: dict[int, dict[str, float]]) -> None:
    assert found.keys() == wanted.keys()
    for step, figures in wanted.items():
        assert found[step] == pytest.approx(figures, rel=1e-6, nan_ok=True), step


def test_metrics_csv_is_written_beside_other_logs(runs: tuple[Path, Path]) -> None:
    first, second = map(epochs, runs)
    assert [row["epoch"] for row in second.values()] == [1, 2]
    assert first.items() <= second.items()


def test_tensorboard(runs: tuple[Path, Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for folder in runs:
        events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
        tags = events.Tags()
        found = [(tag, e.step, e.value) for tag in tags["scalars"] for e in events.Scalars(tag)]
        same(by_step(found), expected(folder))  # its own files hold the epochs so far, too
        assert set(tags["images"]) == plots(folder)
        for tag in tags["images"]:
            (picture,) = events.Images(tag)
            with Image.open(folder / f"{tag}.png") as drawn, Image.open(io.BytesIO(picture.encoded_image_string)) as p:
                assert p.size == drawn.size
                assert p.tobytes() == drawn.convert("RGB").tobytes()
        (status,) = events.Tensors("status/text_summary")
        assert status.tensor_proto.string_val[0] == b"finished"
        (config,) = events.Tensors("config/text_summary")
        assert "lr: 0.001" in config.tensor_proto.string_val[0].decode()


def wandb_records(folder: Path) -> list[Any]:
    """The records of a run that was kept: after a header of 7 bytes a log of LevelDB, in blocks of 32 kB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, place, piece, found = file.read_bytes(), 7, b"", []
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        piece += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(piece))
            piece = b""
    return found


def values_of(items: Any) -> dict[str, Any]:
    """Values by name; those that belong together have a name of several parts."""
    found: dict[str, Any] = {}
    for item in items:
        *above, last = list(item.nested_key) or [item.key]
        level = found
        for part in above:
            level = level.setdefault(part, {})
        level[last] = json.loads(item.value_json)
    return found


def test_wandb(runs: tuple[Path, Path]) -> None:
    ids = set()
    for folder in runs:
        records = wandb_records(folder)
        rows = [values_of(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
        figures = [{k: float(v) for k, v in row.items() if not isinstance(v, dict) and k[0] != "_"} for row in rows]
        found = [(name, int(row[STEP]), value) for row in figures for name, value in row.items() if name != STEP]
        # What the first run has written is not written again.
        wanted = {step: row for step, row in expected(folder).items() if not ids or step not in epochs(runs[0])}
        same(by_step(found), wanted)
        pictures = {name: v for row in rows for name, v in row.items() if isinstance(v, dict)}
        assert set(pictures) == plots(folder)
        files = next((folder / "wandb").glob("offline-run-*")) / "files"
        for name, entry in pictures.items():
            assert (files / entry["path"]).read_bytes() == (folder / f"{name}.png").read_bytes()
        ids |= {r.run.run_id for r in records if r.WhichOneof("record_type") == "run"}
        configs = [c for r in records for c in (r.config.update, r.run.config.update)]
        config = {name: value for update in configs for name, value in values_of(update).items()}
        assert config["encoder"]["out_channels"] == 8
        (ended,) = [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"]
        assert ended == 0
    assert len(ids) == 1, "the run that goes on has the name of the first"


def test_mlflow(runs: tuple[Path, Path]) -> None:
    from mlflow.tracking import MlflowClient

    first, second = runs
    client = MlflowClient(address(first))
    experiment = client.get_experiment_by_name("lightning_vision")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    found = [
        (name, m.step, m.value) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)
    ]
    same(by_step(found), expected(second, earlier=first))
    assert run.data.params["encoder.out_channels"] == "8"
    assert run.data.params["epochs"] == "1"
    assert run.data.tags["resumed.epochs"] == "2"
    (artifacts,) = (first / "mlflow" / "artifacts").glob("*/artifacts")
    for name in plots(second):
        assert (artifacts / f"{name}.png").read_bytes() == (second / f"{name}.png").read_bytes()


def test_mlflow_takes_what_a_run_may_be_called_and_worth(runs: tuple[Path, Path], tmp_path: Path) -> None:
    def opened(settings: dict[str, Any], record: dict[str, str], rows: dict[int, dict[str, float]]) -> MLflowLog:
        log = MLflowLog(str(tmp_path), tracking_uri=address(runs[0]), experiment="other", pictures=False)
        log.start(settings, record, rows)
        return log

    settings = {"lr": 0.1, "class_names": ["x" * 5000], "data": {"a(b)": None}}
    log = opened(settings, {}, {})
    log.write_figures({"test/iou/Straße, nass (B)": 0.5, "val/loss": float("nan")}, 3)
    again = opened({**settings, "lr": 0.2}, log.record, {1: {"val/loss": 9.0}})
    run = again.experiment.get_run(log.run_id)
    assert run.data.metrics["test/iou/Straße_ nass _B_"] == 0.5
    assert "val/loss" in run.data.metrics
    assert run.data.params["lr"] == "0.1"
    assert run.data.tags["resumed.lr"] == "0.2"
    assert run.info.status == "RUNNING"
    again.finish("interrupted", {}, runs[0] / "plots")
    assert log.experiment.get_run(log.run_id).info.status == "KILLED"
    assert [m.step for m in log.experiment.get_metric_history(log.run_id, "val/loss")] == [3]
    assert not log.experiment.list_artifacts(log.run_id)
