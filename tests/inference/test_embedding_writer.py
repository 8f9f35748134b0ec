from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lightning_vision.errors import DataError
from lightning_vision.inference.embedding_writer import EmbeddingWriter
from lightning_vision.inference.growing import header
from lightning_vision.inference.prediction import Prediction


def vector(i: int, length: int = 5) -> Prediction:
    numbers = np.random.default_rng(i).standard_normal(length).astype(np.float32)
    return Prediction(f"dir/{i}, ü.jpg", embedding=numbers)


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize(("count", "length"), [(1, 1), (300, 5), (2, 100_000)])
def test_all_vectors_and_the_image_of_each_row(tmp_path: Path, count: int, length: int) -> None:
    with EmbeddingWriter(tmp_path / "out") as writer:
        for i in range(count):
            writer.add(vector(i, length))
            if i == 1:
                assert files(tmp_path / "out") == ["embeddings.npy.partial", "predictions.csv.partial"]
    assert files(tmp_path / "out") == ["embeddings.npy", "predictions.csv"]
    # As numpy reads it, also without loading it.
    for mode in (None, "r"):
        array = np.load(tmp_path / "out" / "embeddings.npy", mmap_mode=mode)  # type: ignore[call-overload]
        assert array.dtype == np.float32
        assert array.shape == (count, length)
        assert np.array_equal(array, np.stack([vector(i, length).embedding for i in range(count)]))  # type: ignore[misc]
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"path": f"dir/{i}, ü.jpg", "row": str(i)} for i in range(count)]


def test_nothing_predicted_is_an_empty_array(tmp_path: Path) -> None:
    with EmbeddingWriter(tmp_path):
        pass
    assert np.load(tmp_path / "embeddings.npy").shape == (0, 0)
    assert (tmp_path / "predictions.csv").read_text() == "path,row\n"


def test_after_an_error_what_was_there_stays_and_the_rest_is_partial(tmp_path: Path) -> None:
    with EmbeddingWriter(tmp_path) as writer:
        writer.add(vector(0))
    with pytest.raises(RuntimeError, match="boom"), EmbeddingWriter(tmp_path) as writer:  # noqa: PT012  # the state inside is the point
        writer.add(vector(1))
        writer.add(vector(2))
        raise RuntimeError("boom")
    assert np.array_equal(np.load(tmp_path / "embeddings.npy"), [vector(0).embedding])
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 2
    partial = np.frombuffer((tmp_path / "embeddings.npy.partial").read_bytes()[128:], np.float32)
    assert np.array_equal(partial.reshape(2, 5), [vector(1).embedding, vector(2).embedding])
    with pytest.raises(RuntimeError, match="boom"), EmbeddingWriter(tmp_path / "none"):
        raise RuntimeError("boom")
    assert files(tmp_path / "none") == []


def test_wrong_vectors_are_refused_by_path(tmp_path: Path) -> None:
    with EmbeddingWriter(tmp_path) as writer:
        writer.add(vector(0))
        with pytest.raises(ValueError, match=r"vector of 5 numbers, got \(4,\): dir/1"):
            writer.add(vector(1, 4))
        with pytest.raises(ValueError, match=r"not finite: a\.jpg"):
            writer.add(Prediction("a.jpg", embedding=np.full(5, np.nan, np.float32)))
    assert np.load(tmp_path / "embeddings.npy").shape == (1, 5)


def test_closing_twice_and_adding_after(tmp_path: Path) -> None:
    writer = EmbeddingWriter(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.add(vector(0))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write into the folder .*file.out"):
        EmbeddingWriter(tmp_path / "file" / "out")
    (tmp_path / "embeddings.npy.partial").mkdir()
    with pytest.raises(DataError, match="cannot write into the folder"):
        EmbeddingWriter(tmp_path)
    assert files(tmp_path) == ["embeddings.npy.partial", "file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
@pytest.mark.parametrize("name", ["embeddings.npy.partial", "predictions.csv.partial"])
def test_a_full_disk_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left") as caught, EmbeddingWriter(tmp_path) as writer:
        writer.add(vector(0))
    assert str(tmp_path) in str(caught.value)
    assert "embeddings.npy" not in files(tmp_path)


def test_an_array_that_cannot_get_its_name_leaves_no_table(tmp_path: Path) -> None:
    (tmp_path / "embeddings.npy").mkdir()
    writer = EmbeddingWriter(tmp_path)
    writer.add(vector(0))
    with pytest.raises(DataError, match="cannot write into the folder"):
        writer.close()
    assert files(tmp_path) == ["embeddings.npy", "embeddings.npy.partial", "predictions.csv.partial"]


def test_the_header_has_one_length_for_every_shape() -> None:
    sizes = {len(header(shape)) for shape in ((0, 0), (1, 2), (10**15, 10**9))}
    assert sizes == {128}
