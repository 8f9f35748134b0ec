"""Predictions of many images: where they come from, what is written, and how an interrupted one goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lightning_vision as lv
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.inference import run
from lightning_vision.inference.folder import PredictionFolder
from lightning_vision.inference.prediction import Prediction
from lightning_vision.module import VisionModule

SIZE = 16


def pixels(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (SIZE + i % 3, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nineteen images and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(19):
        Image.fromarray(pixels(i)).save(folder / f"frame_{i}.png")
    (folder / "frame_5x.png").write_bytes(b"no image")
    return folder


def build(**choices: Any) -> VisionModule:
    """A model as it is before training."""
    data = ([pixels(i)[:SIZE] for i in range(6)], choices.pop("targets", None))
    settings = {"encoder": "stacked_cnn", "image_size": SIZE, "batch_size": 4, "data": data}
    return lv.build(**{**settings, "overrides": {"encoder.out_channels": 4}, **choices})[0].eval()


@pytest.fixture(scope="module")
def classes() -> VisionModule:
    return build(decoder="classifier", targets=["a", "b", "c"] * 2)


def test_an_array_leaves_no_file(classes: VisionModule, photos: Path) -> None:
    """What is written while an array is predicted is gone afterwards."""
    lying = photos / "frame_0.png"
    array, file = lv.predict(classes, [pixels(0), lying])
    assert (array.path, array.file) == ("image#000000", None)
    assert (file.path, file.file) == (str(lying), "")


@pytest.fixture(scope="module")
def masks() -> VisionModule:
    mask = (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3).astype(np.uint8)
    return build(decoder="linear", targets=[mask] * 6)


def predict(module: VisionModule, source: Path | str, out: Path, **settings: Any) -> Path:
    config = json.loads(json.dumps(module.config))
    run.predict_to_folder(module, str(source), {**config, "output_dir": str(out), **settings})
    return out / "predictions"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def killed_after(count: int, act: Callable[[], object]) -> None:
    """Predict in a process that is killed in the middle of a batch, with half a row written."""
    child = os.fork()
    if not child:
        receive = PredictionFolder.receive

        def receive_some(self: PredictionFolder, prediction: Prediction) -> None:
            receive(self, prediction)
            if self.count - self.before.count == count:
                for writer in self.writers.values():
                    writer.table.file.add(b"half a r")
                os.kill(os.getpid(), signal.SIGKILL)

        PredictionFolder.receive = receive_some  # type: ignore[method-assign]
        act()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that can be killed is needed")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("classes", {"save": ["probabilities", "embeddings"], "table": "parquet"}),
        ("masks", {"save": ["overlays", "probabilities"]}),
    ],
)
def test_a_killed_prediction_goes_on_and_gives_the_same_files(
    kind: str, settings: dict[str, Any], photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "table" in settings:
        pytest.importorskip("pyarrow")
    module = request.getfixturevalue(kind)
    whole = contents(predict(module, photos, tmp_path / "whole", **settings))
    for count in (6, 8):  # twice, the second time after an unreadable file
        killed_after(count, lambda: predict(module, photos, tmp_path / "killed", **settings))
    partial = tmp_path / "killed" / "predictions" / "predictions.csv.partial"
    assert partial.read_bytes().endswith(b"half a r")
    assert contents(predict(module, photos, tmp_path / "killed", **settings)) == whole
    suffix = settings.get("table", "csv")
    assert {f"predictions.{suffix}", "unreadable.csv"} <= set(whole)
    assert whole["unreadable.csv"].decode().splitlines()[1].startswith(str(photos / "frame_5x.png"))


def test_an_interrupted_prediction_says_how_to_go_on(
    classes: VisionModule, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    receive = PredictionFolder.receive

    def interrupted(self: PredictionFolder, prediction: Prediction) -> None:
        if self.count == 9:
            raise KeyboardInterrupt
        receive(self, prediction)

    monkeypatch.setattr(PredictionFolder, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(classes, photos, tmp_path)
    assert f"stopped behind image 8; the same command with output_dir={tmp_path} goes" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"only go on as it began(.|\n)*batch_size=3, was 4"):
        predict(classes, photos, tmp_path, batch_size=3)
    with pytest.raises(ConfigError, match="another images"):
        predict(classes, photos / "*1.png", tmp_path)
    monkeypatch.undo()
    predict(classes, photos, tmp_path)
    assert "going on behind image 8" in capsys.readouterr().out
    # Numbers count by their value.
    found = [Path(row["path"]).name for row in rows(tmp_path / "predictions" / "predictions.csv")]
    assert found == [f"frame_{i}.png" for i in range(19)]


def test_probabilities_and_embeddings(classes: VisionModule, masks: VisionModule, photos: Path, tmp_path: Path) -> None:
    folder = predict(classes, photos, tmp_path / "classes", save="embeddings")
    assert set(contents(folder)) == {"predictions.csv", "embeddings.npy", "unreadable.csv"}
    with pytest.raises(ConfigError, match="finished prediction"):
        predict(classes, photos, tmp_path / "classes", table="parquet")
    assert set(contents(folder)) == {"predictions.csv", "embeddings.npy", "unreadable.csv"}
    with pytest.raises(ConfigError, match="no file is written"):
        lv.predict(classes, pixels(4), output_dir=str(tmp_path / "none"))
    folder = predict(classes, photos, tmp_path / "both", save=["probabilities", "embeddings"])
    embeddings, probabilities = (np.load(folder / f"{name}.npy") for name in ("embeddings", "probabilities"))
    found = lv.predict(classes, [pixels(i) for i in range(19)])
    assert np.allclose(probabilities, [p.probabilities for p in found], atol=1e-6)
    assert embeddings.shape == (19, classes.encoder.info.embed_dim)
    assert not classes.predicts_embedding
    (one,) = lv.predict(classes, pixels(4), save=["embeddings"])
    assert one.embedding is not None
    assert np.allclose(one.embedding, embeddings[4], atol=1e-5)
    with pytest.raises(ConfigError, match=r"A model for classification has no overlays to save(.|\n)*save=.embeddings"):
        predict(classes, photos, tmp_path, save=["overlays", "embeddings"])
    folder = predict(masks, photos, tmp_path / "masks", save=["probabilities"])
    assert not (folder / "overlays").exists()
    array = np.load(folder / "probabilities" / "frame_4.npy")
    assert (array.shape, array.dtype) == ((3, *pixels(4).shape[:2]), np.float16)
    mask = np.asarray(Image.open(folder / "masks" / "frame_4.png"))
    assert np.array_equal(np.take_along_axis(array, mask[None], 0)[0], array.max(0))
    assert [row["probabilities"] for row in rows(folder / "predictions.csv")][4] == "probabilities/frame_4.npy"


def test_a_batch_without_a_readable_image(classes: VisionModule, photos: Path, tmp_path: Path, capsys: Any) -> None:
    folder = predict(classes, photos, tmp_path, batch_size=1)
    assert len(rows(folder / "predictions.csv")) == 19
    assert "19 images predicted" in capsys.readouterr().out
    with pytest.raises(DataError, match="none of 1 images can be read"):
        predict(classes, photos / "frame_5x.png", tmp_path / "none")
    assert contents(tmp_path / "none") == {}


class _Stop(BaseException):
    """Not an error, as the key that interrupts."""


def stopped(monkeypatch: pytest.MonkeyPatch, row: int, act: Callable[[], object]) -> None:
    """Predict until this image is dealt with."""
    reached = PredictionFolder.reached

    def stop(self: PredictionFolder, now: int) -> None:
        reached(self, now)
        if now >= row:
            raise _Stop

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFolder, "reached", stop)
        with pytest.raises(_Stop):
            act()


def test_a_stop_before_the_first_readable_image(
    classes: VisionModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    for i in (1, 2):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i}.png")
    settings = {"batch_size": 1, "save": ["embeddings"]}
    stopped(monkeypatch, 1, lambda: predict(classes, tmp_path, tmp_path / "out", **settings))
    folder = predict(classes, tmp_path, tmp_path / "out", **settings)
    assert len(rows(folder / "predictions.csv")) == len(np.load(folder / "embeddings.npy")) == 2
    assert len(rows(folder / "unreadable.csv")) == 1


def test_other_pixels_under_the_same_name(
    classes: VisionModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i}.png")
    stopped(monkeypatch, 1, lambda: predict(classes, tmp_path, tmp_path / "out", batch_size=1))
    Image.fromarray(pixels(8)).save(tmp_path / "0.png")
    with pytest.raises(ConfigError, match="another images"):
        predict(classes, tmp_path, tmp_path / "out", batch_size=1)


def test_a_full_disk_at_the_second_parquet_table(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    from lightning_vision.inference import table_file

    table = tmp_path / "table.csv"
    names = [str(photos / f"frame_{i}.png") for i in range(12)]
    table.write_text("\n".join(["image,a,b", *(f"{name},{'xy'[i % 2]},{'uv'[i % 2]}" for i, name in enumerate(names))]))
    outputs = {name: {"decoder": "classifier"} for name in "ab"}
    settings = {"data.path": str(table), "encoder.out_channels": 4}
    module = build(data="table", outputs=outputs, batch_size=8, overrides=settings)
    whole = contents(predict(module, photos, tmp_path / "whole", table="parquet"))
    write, calls = table_file.csv_to_parquet, []

    def full(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise DataError("the disk is full")
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(table_file, "csv_to_parquet", full)
        with pytest.raises(DataError, match="full"):
            predict(module, photos, tmp_path / "full", table="parquet")
    assert contents(predict(module, photos, tmp_path / "full", table="parquet")) == whole


def test_a_generator_is_consumed_part_by_part(masks: VisionModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.inference.images.IMAGES", 6)
    drawn: list[int] = []
    ahead: list[int] = []
    found: list[Prediction] = []

    def images() -> Iterator[np.ndarray]:
        for i in range(19):
            drawn.append(i)
            yield pixels(i)

    def receive(prediction: Prediction) -> None:
        found.append(prediction)
        ahead.append(len(drawn) - len(found))

    assert lv.predict(masks, images(), receive=receive) == []
    assert max(ahead) <= 8  # two batches of four
    assert [p.path for p in found] == [f"image#{i:06d}" for i in range(19)]
    whole = lv.predict(masks, [pixels(i) for i in range(19)])
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(found, whole, strict=True))
    with pytest.raises(DataError, match="image 6: "):
        lv.predict(masks, (pixels(i) if i != 6 else object() for i in range(8)))
    with pytest.raises(DataError, match="no images"):
        lv.predict(masks, iter(()))


def write_film(path: Path, count: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for i in range(count):
            picture = np.full((16, 32, 3), 20 * i, np.uint8)
            picture[:, 16:] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("av")
    path = tmp_path_factory.mktemp("film") / "my clip.mp4"
    write_film(path, 11)
    return path


def test_a_film(masks: VisionModule, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_vision.inference.images.IMAGES", 4)
    folder = predict(masks, film, tmp_path)
    assert [row["path"] for row in rows(folder / "predictions.csv")] == [f"{film}#{i:06d}" for i in range(11)]
    with Image.open(folder / "masks" / "my clip#000010.png") as mask:
        assert mask.size == (32, 16)
    overlay = np.asarray(Image.open(folder / "overlays" / "my clip#000010.jpg"))
    assert overlay.shape == (16, 32, 3)
    assert overlay[:, 24:].mean() > overlay[:, :8].mean() + 10  # the frame is under the mask
    third = lv.predict(masks, film, frame_step=3)
    assert [p.path for p in third] == [f"{film}#{i:06d}" for i in (0, 3, 6, 9)]
    with Image.open(folder / "masks" / "my clip#000009.png") as mask:
        assert np.array_equal(np.asarray(mask), third[3].mask)
    with pytest.raises(ConfigError, match="videos alone"):
        lv.predict(masks, [pixels(0)], frame_step=3)


def test_a_film_is_turned_as_the_camera_was_held(film: Path, tmp_path: Path) -> None:
    from lightning_vision.data.sources.video import Video

    upright = film.read_bytes()
    one, zero = (1 << 16).to_bytes(4, "big"), bytes(4)
    identity = b"".join([one, zero, zero, zero, one, zero, zero, zero, (1 << 30).to_bytes(4, "big")])
    turned = b"".join([zero, one, zero, (-(1 << 16)).to_bytes(4, "big", signed=True), zero, zero])
    at = upright.index(identity, upright.index(b"tkhd"))
    path = tmp_path / "held.mp4"
    path.write_bytes(upright[:at] + turned + upright[at + len(turned) :])
    (frame, *_), (plain, *_) = (list(Video(p).frames()) for p in (path, film))
    assert frame.shape == (32, 16, 3)
    assert np.array_equal(frame, np.rot90(plain, -1))  # a quarter turn clockwise


def test_a_film_that_breaks_off(
    classes: VisionModule, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from lightning_vision.data.sources.video import Video

    frames = Video.frames

    def torn(self: Video, start: int = 0) -> Iterator[np.ndarray]:
        for i, frame in enumerate(frames(self, start)):
            if i == 6:
                raise DataError(f"{self.path} cannot be decoded behind frame 5", given="torn")
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(Video, "frames", torn)
        folder = predict(classes, film, tmp_path)
        assert len(rows(folder / "predictions.csv")) == 6
        assert "cannot be decoded behind frame 5: torn" in capsys.readouterr().out
        with pytest.raises(DataError, match="cannot be decoded behind frame 5"):
            lv.predict(classes, film)
        assert len(lv.predict(classes, film, overrides={"preprocessing.on_bad_image": "skip"})) == 6
        assert "cannot be decoded behind frame 5: torn" in capsys.readouterr().out
    (tmp_path / "none.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match="no video that can be read"):
        predict(classes, tmp_path / "none.mp4", tmp_path)
