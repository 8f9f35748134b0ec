"""Embedding learning: what it scores and predicts, and the way from images, labelled or not, to files."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

import lightning_vision as lv
from lightning_vision.decoders.projector import ProjectorDecoder
from lightning_vision.errors import ConfigError
from lightning_vision.head import Head, HeadOutput
from lightning_vision.inference.prediction import Place
from lightning_vision.losses.base import Loss
from lightning_vision.module import VisionModule
from lightning_vision.tasks import TASKS, task_constants
from lightning_vision.tasks.embedding import Embedding
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import FeatureInfo, TargetSpec

INFO = FeatureInfo((6,), (4,), 6)
LABELLED, UNLABELLED = TargetSpec("label", ("a", "b")), TargetSpec("label", ())


def head(target: TargetSpec = LABELLED, **settings: Any) -> Head:
    return Head(ProjectorDecoder(INFO, target.num_classes, output_size=3, **settings), Embedding(target))


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def images(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the same images without their labels."""
    table = tmp_path_factory.mktemp("unlabelled") / "images.csv"
    with discs.open(newline="", encoding="utf-8") as file:
        rows = [(discs.parent / row["image"], row["split"]) for row in csv.DictReader(file)]
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "split"), *rows])
    return table


def settings(table: Path, out: Path, **more: Any) -> dict[str, Any]:
    values = {"data.path": str(table), "output_dir": str(out), "encoder.out_channels": 8, **more.pop("values", {})}
    return {
        "encoder": "stacked_cnn",
        "decoder": "projector",
        "augmentation": "views",
        "data": "table",
        "image_size": 24,
        "epochs": 2,
        "batch_size": 8,
        "overrides": values,
        **more,
    }


def labelled(table: Path, out: Path, **more: Any) -> dict[str, Any]:
    values = {"data.target": "label", **more.pop("values", {})}
    return settings(table, out, values=values, **more)


@pytest.fixture(scope="session")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> lv.Result:
    return lv.fit(**labelled(discs, tmp_path_factory.mktemp("run")))


def test_what_its_class_says() -> None:
    assert TASKS["embedding"].endswith("Embedding")
    constants = task_constants("embedding")
    assert constants["output"] == "embedding"
    assert constants["needs_target"] is False
    assert constants["default_loss"] == "nt_xent_loss"
    assert constants["monitor"] == "knn_accuracy"


def test_neighbours_are_those_of_the_embedding_and_not_of_the_projection() -> None:
    task, owner = Embedding(LABELLED), head()
    target = torch.tensor([0, 1] * 8)
    directions = F.one_hot(target, 6).float() + 0.01 * torch.randn(16, 6)
    scores = task.scores("val")
    for rows in torch.arange(16).split(5):
        projections = torch.randn(len(rows), 3)
        task.update(
            scores, owner, HeadOutput(projections, directions[rows]), target[rows], torch.tensor(float(rows[0]))
        )
    computed = scores.compute()
    assert task.figures(computed) == {"knn_accuracy": 1.0}
    assert task.figure_names("val") == ("knn_accuracy",)
    assert computed["loss"].item() == pytest.approx((0 * 5 + 5 * 5 + 10 * 5 + 15) / 16)


def test_images_of_no_class_count_for_no_accuracy() -> None:
    task = Embedding(TargetSpec("label", ("a", "b"), ignore_index=2))
    vectors, target = F.one_hot(torch.tensor([0, 0, 1, 1, 0]), 6).float(), torch.tensor([0, 0, 1, 1, 2])
    scores = task.scores("test")
    task.update(scores, head(), HeadOutput(vectors[:, :3], vectors), target, torch.tensor(1.0))
    assert scores.compute()["neighbour_accuracy"] == 1.0


def test_without_labels_there_is_a_loss_alone() -> None:
    task = Embedding(UNLABELLED)
    scores = task.scores("val")
    for count, loss in ((2, 1.0), (6, 3.0)):
        vectors = torch.randn(count, 6)
        task.update(scores, head(UNLABELLED), HeadOutput(vectors, vectors), None, torch.tensor(loss))
    computed = scores.compute()
    assert computed["loss"].item() == 2.5
    assert task.figures(computed) == {}
    assert task.figure_names("val") == ()


@pytest.mark.parametrize("predicts", ["embedding", "projection"])
def test_the_decoder_says_which_vector_is_predicted(predicts: str) -> None:
    owner = head(predicts=predicts)
    embedding = torch.randn(6)
    output = HeadOutput(owner.decoder.last(embedding).detach(), embedding)
    prediction = owner.task.prediction(owner, output, Place("a.png", lambda: (1, 1), None))  # type: ignore[arg-type]
    assert prediction.embedding is not None
    assert prediction.embedding.dtype == np.float32
    assert np.array_equal(prediction.embedding, (output.logits if predicts == "projection" else embedding).numpy())


def test_the_run_folder_is_complete(trained: lv.Result) -> None:
    for name in ("checkpoints/best.ckpt", "plots/curves.png", "plots/embeddings.png", "plots/neighbours.png"):
        assert (trained.folder / name).stat().st_size > 500, name
    assert set(trained.metrics) >= {"test/loss", "test/knn_accuracy"}
    assert trained.module.config["monitor"] == "val/knn_accuracy"
    assert trained.module.config["loss"]["_target_"].endswith("NTXentLoss")
    with (trained.folder / "metrics.csv").open(newline="") as file:
        assert set(next(csv.DictReader(file))) >= {"train/loss", "val/loss", "val/knn_accuracy"}


def test_test_and_reload_give_what_the_fit_gave(trained: lv.Result, tmp_path: Path) -> None:
    again = lv.test(trained.checkpoint, overrides={"output_dir": str(tmp_path)})
    for key, value in again.metrics.items():
        assert value == pytest.approx(trained.metrics[key], abs=1e-6), key
    image = torch.randint(0, 255, (2, 3, 24, 24), dtype=torch.uint8)
    module = lv.load(trained.checkpoint)
    with torch.no_grad():
        assert torch.equal(module(image), trained.module.eval()(image))
        assert module(image).shape == (2, 128)


def test_predictions_are_the_encoders_embeddings(trained: lv.Result, discs: Path, tmp_path: Path) -> None:
    from lightning_vision.app import run
    from lightning_vision.config import compose

    paths = sorted(str(p) for p in discs.parent.glob("1*.png") if "mask" not in p.name)
    module = trained.module.eval()
    predictions = lv.predict(module, paths)
    assert [p.path for p in predictions] == paths
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    (prediction,) = lv.predict(module, pixels)
    with torch.no_grad():
        expected = module.encoder.embed(module.normalize(torch.from_numpy(pixels).movedim(-1, 0)[None]))[0]
    assert prediction.embedding is not None
    assert np.allclose(prediction.embedding, expected, atol=1e-6)
    source = tmp_path / "source"
    source.mkdir()
    for path in paths:
        shutil.copy(path, source)
    run(
        compose(
            action="predict",
            checkpoint=str(trained.checkpoint),
            overrides={"source": str(source), "output_dir": str(tmp_path / "out")},
        )
    )
    array = np.load(tmp_path / "out" / "predictions" / "embeddings.npy")
    assert np.allclose(array, np.stack([p.embedding for p in predictions]), atol=1e-5)  # type: ignore[misc]
    with (tmp_path / "out" / "predictions" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["path"]).name for row in rows] == [Path(path).name for path in paths]
    assert [int(row["row"]) for row in rows] == list(range(len(paths)))


@pytest.mark.pictures
def test_images_without_labels(images: Path, tmp_path: Path) -> None:
    result = lv.fit(**settings(images, tmp_path / "run", epochs=1))
    assert result.module.config["monitor"] == "val/loss"
    assert "test/knn_accuracy" not in result.metrics
    assert result.metrics["test/loss"] > 0
    assert (tmp_path / "run" / "plots" / "embeddings.png").stat().st_size > 500
    assert (tmp_path / "run" / "plots" / "neighbours.png").stat().st_size > 500
    again = lv.test(result.checkpoint, overrides={"output_dir": str(tmp_path / "test")})
    assert again.metrics["test/loss"] == pytest.approx(result.metrics["test/loss"], abs=1e-6)
    (prediction,) = lv.predict(lv.load(result.checkpoint), np.zeros((9, 8, 3), np.uint8))
    assert prediction.embedding is not None
    assert prediction.label is None


def test_supervised_needs_labels(discs: Path, images: Path, tmp_path: Path) -> None:
    result = lv.fit(**labelled(discs, tmp_path / "run", loss="supcon", epochs=1))
    assert result.module.config["task"] == "embedding"
    assert 0 <= result.metrics["test/knn_accuracy"] <= 1
    with pytest.raises(ConfigError, match="loss=nt_xent_loss"):
        lv.fit(**settings(images, tmp_path / "none", loss="supcon", epochs=1))


class Spy(Loss):
    """Keeps what it was given."""

    views = 2

    def __init__(self, loss: nn.Module) -> None:
        super().__init__(2)
        self.loss = loss
        self.seen: list[tuple[Tensor, Tensor | None, bool]] = []

    def forward(self, logits: Tensor, target: Tensor | None) -> Tensor:  # type: ignore[override]
        self.seen.append((logits.detach(), target, self.training))
        return self.loss(logits, target)  # type: ignore[no-any-return]


def spied(config: dict[str, Any]) -> tuple[Spy, VisionModule, Any, Trainer]:
    """Build a model whose loss is watched, its data and a trainer for an epoch."""
    module, data = lv.build(**config)
    spy = module.head().loss = Spy(module.head().loss)  # type: ignore[arg-type]
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=1, enable_progress_bar=False, num_sanity_val_steps=0, **quiet)  # type: ignore[arg-type]
    return spy, module, data, trainer


@pytest.mark.parametrize("batch_size", [2, 5, 23, 100])
def test_views_of_an_image_stay_together_in_every_batch(discs: Path, tmp_path: Path, batch_size: int) -> None:
    # Without any change the two views of an image are one image, and the rows of a pair are equal.
    off = {
        "augmentation.random_resized_crop.p": 0,
        "augmentation.random_horizontal_flip.p": 0,
        "augmentation.color_jitter.p": 0,
        "augmentation.color_jitter.grayscale": 0,
    }
    # One file is broken: its batch is one image smaller.
    folder = tmp_path / "data"
    shutil.copytree(discs.parent, folder)
    (folder / "3.png").write_bytes(b"no image")
    config = labelled(folder / "index.csv", tmp_path / "run", values={**off, "preprocessing.on_bad_image": "skip"})
    if batch_size == 1:
        (folder / "3.png").write_bytes((discs.parent / "3.png").read_bytes())
    spy, module, data, trainer = spied({**config, "batch_size": batch_size})
    trainer.fit(module, data)
    train = [(rows, target) for rows, target, training in spy.seen if training]
    assert sum(len(rows) for rows, _ in train) == 2 * (24 if batch_size == 1 else 23)
    for rows, target in train:
        assert target is not None
        assert torch.equal(target[0::2], target[1::2])
        torch.testing.assert_close(rows[0::2], rows[1::2])
        if len(rows) > 2:
            assert (rows[0] - rows[2]).abs().max() > 1e-6, "and other images are others"


def test_views_differ_and_validation_compares_the_same_ones_each_time(discs: Path, tmp_path: Path) -> None:
    spy, module, data, trainer = spied(labelled(discs, tmp_path / "run"))
    trainer.validate(module, data, verbose=False)
    trainer.validate(module, data, verbose=False)
    assert len(spy.seen) == 2
    (first, *_), (second, *_) = spy.seen
    assert torch.equal(first, second)
    assert ((first[0::2] - first[1::2]).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("kind", [list, np.asarray])
def test_images_alone_from_python_are_learned_from(tmp_path: Path, kind: Any) -> None:
    images = kind(np.random.default_rng(0).integers(0, 255, (20, 12, 12, 3), dtype=np.uint8))
    plain = {"encoder": "stacked_cnn", "decoder": "projector", "augmentation": "views", "image_size": 12, "epochs": 1}
    found = lv.fit(data=images, **plain, overrides={"output_dir": str(tmp_path), "encoder.out_channels": 4})
    assert found.module.config["monitor"] == "val/loss"
    assert set(found.metrics) == {"epochs", "best", "test/loss"}
