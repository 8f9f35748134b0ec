"""The action ``cache``: build ahead of training, list, clear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lightning_vision
from lightning_vision.data.cache import clear, entries, render
from lightning_vision.data.modes import SampleDecoder
from lightning_vision.data.store import Store
from lightning_vision.errors import DataError
from lightning_vision.testing.discs import write_discs


def words(table: Path, cache: Path, *more: str) -> list[str]:
    return [
        *("data=table", f"data.path={table}", "data.target=mask", "data.ignore_index=255", "image_size=[16,20]"),
        *("encoder.out_channels=8", "decoder.channels=[16,8]", "epochs=1", "batch_size=4", "trainer.accelerator=cpu"),
        *(f"preprocessing.lazy_cache_dir={cache}", f"output_dir={cache.parent / 'run'}", *more),
    ]


def test_a_fit_decodes_nothing_that_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, cache = write_discs(tmp_path / "data", count=21), tmp_path / "cache"
    lightning_vision.cache(words(table, cache))
    told = capsys.readouterr().out
    found = entries(str(cache))
    assert sorted(entry.rows for entry in found) == sorted(entry.complete for entry in found)
    assert sum(entry.rows for entry in found) == 21
    for entry in found:
        assert f"{entry.complete}/{entry.rows}" in told
        assert str(table) == entry.origin
    decoded = []
    decode = SampleDecoder.__call__

    def counting(self: SampleDecoder, row: int, *rest: object) -> None:
        decoded.append(row)
        decode(self, row, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SampleDecoder, "__call__", counting)
    module, data = lightning_vision.build(words(table, cache, "preprocessing.mode=lazy_cached"))
    for split in ("train", "val", "test"):
        for _ in data._eval_loader(split):  # type: ignore[arg-type,union-attr]
            pass
    data.teardown()
    assert module is not None
    assert not decoded


def test_what_cannot_be_decoded_is_named_and_the_rest_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, cache = write_discs(tmp_path / "data", count=21), tmp_path / "cache"
    bad = sorted((tmp_path / "data").rglob("*.jpg"))[3]
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(DataError, match=bad.name):
        lightning_vision.cache(words(table, cache))
    lightning_vision.cache(words(table, cache, "preprocessing.on_bad_image=skip"))
    assert str(bad) in capsys.readouterr().out
    assert sum(entry.complete for entry in entries(str(cache))) == 20


def test_list_and_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"images": (np.uint8, (3, 64, 64))}
    free = Store(tmp_path / "free", 3, columns, {"origin": "free.csv"})
    free.close()
    (tmp_path / "free" / "about.json").write_text("")  # killed while it was opened
    held = Store(tmp_path / "held", 3, columns, {"origin": "held.csv"})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(b"x" * 5000)
    page = render(entries(str(tmp_path)), str(tmp_path))
    assert "2 stores" in page
    assert "0/3" in page
    assert "images that came from memory: 8.0 KiB" in page
    lightning_vision.cache(cache="clear", overrides={"preprocessing.lazy_cache_dir": str(tmp_path)})
    told = capsys.readouterr().out
    assert "removed 1 store, " in told
    assert "held.csv" in told
    assert not (tmp_path / "free").exists()
    assert (tmp_path / "held").exists()
    assert (tmp_path / "images" / "x.png").exists()
    held.close()
    assert "removed 1 store" in clear(str(tmp_path))
    assert entries(str(tmp_path)) == []


def test_an_empty_cache(tmp_path: Path) -> None:
    assert render([], str(tmp_path)).startswith("0 stores, 0 bytes in ")
    assert clear(str(tmp_path / "missing")).startswith("removed 0 stores")
