from __future__ import annotations

from pathlib import Path

import pytest

from lightning_vision.data.sources.files import FilesSource
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.testing.datasets import write_image, write_table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.png", "deep/c d, é.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.jpg").write_text("x")
    return tmp_path


def names(source: FilesSource) -> list[str]:
    index = source.read()
    assert index.counts()["test"] == len(index)
    assert index.target is None
    return [Path(path).name for path in index.image]


def test_what_can_be_given(folder: Path) -> None:
    assert names(FilesSource(str(folder))) == ["a.png", "b.jpg", "c d, é.jpg"]
    assert names(FilesSource(str(folder / "a.png"))) == ["a.png"]
    assert names(FilesSource(str(folder / "**/*.jpg"))) == ["b.jpg", "c d, é.jpg"]
    assert names(FilesSource([folder / "b.jpg", str(folder / "a.png")])) == ["b.jpg", "a.png"]


def test_relative_paths_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert FilesSource("deep").read().image_path(0) == str(folder / "deep" / "c d, é.jpg")


def test_tables(folder: Path) -> None:
    table = write_table(folder / "t.csv", [{"path": "b.jpg", "label": "x"}, {"path": "a.png", "label": "y"}])
    assert names(FilesSource(str(table))) == ["b.jpg", "a.png"]
    index = FilesSource(str(table)).read("label")
    assert index.label is not None
    assert index.label.tolist() == [0, 1]
    assert index.counts()["test"] == 2


def test_what_is_left_out_is_counted(folder: Path) -> None:
    notes = FilesSource(str(folder)).read().problems
    assert [n.severity for n in notes] == ["note"]
    assert "2 files" in notes[0].message


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty folder"):
        FilesSource(str(tmp_path)).read()
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(DataError, match=r"a\.pdf"):
        FilesSource(str(tmp_path)).read()
    with pytest.raises(ConfigError, match="pattern"):
        FilesSource(str(tmp_path / "*.jpg")).read()
    write_image(tmp_path / "photo.jpg")
    with pytest.raises(ConfigError, match="does not exist") as error:
        FilesSource(str(tmp_path / "foto.jpg")).read()
    assert error.value.nearest == str(tmp_path / "photo.jpg")
    with pytest.raises(ConfigError, match="source="):
        FilesSource("").read()
    with pytest.raises(DataError, match="1 of 1 image files do not exist"):
        FilesSource([tmp_path / "gone.jpg"]).read()
