from __future__ import annotations

from pathlib import Path

from lightning_vision.inference.names import Names


def test_a_frame_is_named_by_its_film_and_number(tmp_path: Path) -> None:
    names = Names(tmp_path)
    assert names.of(tmp_path / "a" / "clip.mp4#000012") == "a/clip#000012"
    assert names.of(tmp_path / "a" / "clip.mkv#000012") == "a/clip.mkv#000012"
    assert names.of(tmp_path / "x#1.png") == "x#1"


def test_many_images_have_as_many_names_and_keep_them() -> None:
    names = Names()
    paths = [f"{folder}/{i}.jpg" for i in range(3000) for folder in ("a", "b")]
    given = [names.of(path) for path in paths]
    assert len(set(given)) == len(paths)
    assert [names.of(path) for path in paths[:4]] == given[:4] == ["0", "0.jpg", "1", "1.jpg"]
    assert names._owners._entries.nbytes <= 64 * len(paths)
