from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_vision.data.headers import read_header
from lightning_vision.data.sources import shapes
from lightning_vision.data.sources.shapes import SHAPES, ShapesSource
from lightning_vision.errors import DataError

CONF = Path(__file__).parents[3] / "conf" / "data"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


def test_labels(root: Path) -> None:
    index = ShapesSource(120, path=str(root)).read("label", 0)
    assert index.target is not None
    assert index.target.class_names == SHAPES
    assert sum(index.counts().values()) == 120
    assert index.label is not None
    for split in ("train", "val", "test"):
        counts = np.bincount(index.label[index.rows(split)], minlength=3)  # type: ignore[arg-type]
        assert len(set(counts.tolist())) == 1
        assert counts[0] > 0
    assert index.problems == ()
    assert read_header(index.image_path(0)).format == "JPEG"


def test_the_mask_shows_what_the_label_says(root: Path) -> None:
    source = ShapesSource(120, path=str(root))
    labels, masks = source.read("label", 0), source.read("mask", 0)
    assert masks.target is not None
    assert masks.target.class_names == ("background", *SHAPES)
    assert masks.target.palette is not None
    assert list(labels.image) == list(masks.image)
    several = 0
    for i in range(120):
        with Image.open(masks.mask_path(i)) as image:
            assert image.mode == "P"
            values = np.asarray(image)
        assert values.shape == (64, 64)
        area = np.bincount(values.ravel(), minlength=4)[1:]
        assert labels.label is not None
        assert area.argmax() == labels.label[i]
        assert area.max() >= 2 * (area.sum() - area.max())
        several += (area > 0).sum() > 1
    assert several > 30


def test_colour_tells_nothing_about_the_class(root: Path) -> None:
    index = ShapesSource(120, path=str(root)).read("label", 0)
    assert index.label is not None
    means = np.array([np.asarray(Image.open(p)).mean(axis=(0, 1)) for p in index.image])
    per_class = np.array([means[index.label == c].mean(axis=0) for c in range(3)])
    assert np.ptp(per_class, axis=0).max() < means.std(axis=0).max()


def test_the_same_arguments_give_the_same_bytes(root: Path, tmp_path: Path) -> None:
    first = Path(ShapesSource(120, path=str(root)).folder())
    again = Path(ShapesSource(120, path=str(tmp_path)).folder())
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 242
    for name in files:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    other = Path(ShapesSource(120, generator_seed=1, path=str(tmp_path)).folder())
    assert (other / "images/00000.jpg").read_bytes() != (first / "images/00000.jpg").read_bytes()


def test_drawn_once_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ShapesSource(60, 32, path=str(tmp_path))
    folder = Path(source.folder())
    before = (folder / "images/00007.jpg").stat()
    assert source.folder() == str(folder)
    assert (folder / "images/00007.jpg").stat().st_mtime_ns == before.st_mtime_ns
    (folder / "images/00007.jpg").unlink()
    source.folder()
    assert (folder / "images/00007.jpg").stat().st_size == before.st_size
    (folder / "complete.json").write_text("{")
    source.folder()
    assert (folder / "complete.json").read_text() != "{"
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]  # nothing is left beside it
    monkeypatch.setattr(shapes, "draw", lambda *a: pytest.fail("drawn again"))
    source.folder()


def test_several_at_once(tmp_path: Path) -> None:
    results: list[object] = []

    def run() -> None:
        try:
            results.append(len(ShapesSource(60, 32, path=str(tmp_path)).read("mask", 0)))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [60] * 4
    assert len(list(tmp_path.iterdir())) == 1


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LIGHTNING_VISION_CACHE", str(tmp_path / "own"))
    assert ShapesSource(60, 32).folder().startswith(str(tmp_path / "own"))
    monkeypatch.delenv("LIGHTNING_VISION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert ShapesSource(60, 32).folder().startswith(str(tmp_path / "xdg" / "lightning_vision"))
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("LIGHTNING_VISION_CACHE", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert ShapesSource(60, 32).folder().startswith(str(tmp_path / "temporary"))
    assert str(blocked) in capsys.readouterr().out
    with pytest.raises(DataError, match="cannot be written"):
        ShapesSource(60, 32, path=str(blocked)).folder()
