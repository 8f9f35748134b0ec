from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightning_vision.data.sources.missing import no_such_path


def is_table(path: str) -> bool:
    return path.endswith(".csv")


@pytest.mark.parametrize(
    ("given", "override"),
    [
        ("sub/pets.csv", "data.path=pets.csv"),
        ("petz.csv", "data.path=pets.csv"),
        ("my dir/dogs (1).csv", "'data.path=my dir/dogs (2).csv'"),
        ("x/y/z.csv", None),
    ],
)
def test_what_lies_beside_is_proposed(
    given: str, override: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my dir").mkdir()
    for name in ("pets.csv", "photo.jpg", "my dir/dogs (2).csv"):
        (tmp_path / name).touch()
    error = no_such_path("data.path", given, "a table", is_table)
    assert error.overrides == ([override] if override else [])
    assert error.given == f"data.path={given}"
    assert "photo.jpg" not in str(error)
    absolute = no_such_path("data.path", str(tmp_path / given), "a table", is_table)
    if override:
        assert absolute.nearest == os.path.join(tmp_path, str(error.nearest))


def test_a_path_with_nothing_beside_it(tmp_path: Path) -> None:
    error = no_such_path("data.path", str(tmp_path / "a.csv"), "a table", is_table)
    assert str(error.expected) == f"a table; in {tmp_path} there is none"
