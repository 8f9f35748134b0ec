"""Features of a frozen encoder: encoded once, read ever after, and never those of other rows or another encoder."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from PIL import Image
from torch import nn

import lightning_vision as lv
from lightning_vision import assembly
from lightning_vision import checkpoint as checkpoints
from lightning_vision.assembly import build_module, build_trainer
from lightning_vision.config import compose
from lightning_vision.data import embeddings as embeddings_module
from lightning_vision.data import store as store_module
from lightning_vision.data.embeddings import Embedded, EmbeddingCache, make_room, worth_caching
from lightning_vision.data.index import PackedStrings, SampleIndex
from lightning_vision.data.modes import Lazy, Mode, SampleDecoder
from lightning_vision.data.preprocessing import Preprocessing
from lightning_vision.errors import ConfigError, DataError
from lightning_vision.module import VisionModule
from lightning_vision.resolve import resolve
from lightning_vision.testing.datasets import write_mask
from lightning_vision.testing.discs import write_discs
from lightning_vision.types import Geometry, TargetSpec

N, SHAPES = 8, ((5,), (2, 3, 4))


@pytest.fixture
def index(tmp_path: Path) -> SampleIndex:
    rng = np.random.default_rng(0)
    for i in range(N):
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(tmp_path / f"i{i}.png")
        write_mask(tmp_path / f"m{i}.png", rng.integers(0, 2, (6, 8), dtype=np.uint8))
    image, mask = (PackedStrings.from_strings(str(tmp_path / f"{k}{i}.png") for i in range(N)) for k in "im")
    return SampleIndex(image, np.zeros(N, np.uint8), mask=mask, target=TargetSpec("mask", ("a", "b"), 255))


class Encoder:
    """Features with digits that half precision rounds; remembers what it encoded."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.batches.append(len(images))
        mean = images.float().mean((1, 2, 3)) * self.factor / 7
        return [mean.view(-1, *[1] * len(s)) * torch.arange(1.0, 1 + int(np.prod(s))).view(s) / 3 for s in SHAPES]


def opened(
    index: SampleIndex, folder: Path, encode: Any, rows: np.ndarray | None = None, identity: str = "e", **settings: Any
) -> Embedded:
    preprocessing = Preprocessing(lazy_cache_dir=str(folder), **settings)
    decoder = SampleDecoder(index, Geometry(6, 8, 3), preprocessing)
    rows = np.arange(N) if rows is None else rows
    cache = EmbeddingCache(encode, SHAPES, lambda: {"encoder": identity})
    return cache.open(decoder, rows, lambda: Lazy(decoder, rows))


def fetch(mode: Mode, rows: list[int]) -> tuple[dict[str, Any], list[int]]:
    with ThreadPoolExecutor(2) as pool:
        samples, wait = mode.start(np.array(rows, np.int64), pool)
        failures = wait()
    return samples, [failure.position for failure in failures]


def expected(index: SampleIndex, rows: list[int]) -> list[torch.Tensor]:
    images = torch.stack([torch.from_numpy(np.array(Image.open(index.image_path(i)))).permute(2, 0, 1) for i in rows])
    return Encoder()(images)


def test_a_row_is_encoded_once_and_is_the_same_ever_after(index: SampleIndex, tmp_path: Path) -> None:
    encode = Encoder()
    mode = opened(index, tmp_path / "c", encode)
    first = [fetch(mode, rows)[0] for rows in ([4, 2, 7], [0, 1, 3, 5, 6])]
    assert encode.batches == [3, 5]
    for i in range(N):
        os.unlink(index.image_path(i))
        os.unlink(index.mask_path(i))
    again = [fetch(mode, rows)[0] for rows in ([4, 2, 7], [0, 1, 3, 5, 6])]
    assert encode.batches == [3, 5], "neither encoded nor decoded again"
    for one, two in zip(first, again, strict=True):
        assert [f.dtype for f in one["features"]] == [torch.float16] * 2
        assert all(torch.equal(a, b) for a, b in zip(one["features"], two["features"], strict=True))
        assert torch.equal(one["target"], two["target"])
    usage = mode.cache.usage
    assert (usage.encoded, usage.read, usage.rows) == (8, 8, 8)
    mode.close()


def test_the_values_are_the_encoders_in_half_precision_with_the_masks_of_the_rows(
    index: SampleIndex, tmp_path: Path
) -> None:
    found, _ = fetch(opened(index, tmp_path / "c", Encoder()), [5, 1])
    for feature, wanted in zip(found["features"], expected(index, [5, 1]), strict=True):
        rounded = torch.from_numpy(wanted.numpy().astype(np.float16))
        assert torch.equal(feature, rounded)
        assert not torch.equal(feature.float(), wanted), "the test would not see rounding"
    plain = Lazy(SampleDecoder(index, Geometry(6, 8, 3), Preprocessing()), np.arange(N))
    assert torch.equal(found["target"], fetch(plain, [5, 1])[0]["target"])


def test_a_killed_epoch_goes_on_and_encodes_only_what_is_missing(index: SampleIndex, tmp_path: Path) -> None:
    first, _ = fetch(opened(index, tmp_path / "c", Encoder()), [0, 1, 2])  # never closed
    encode = Encoder()
    again = opened(index, tmp_path / "c", encode)
    mixed, _ = fetch(again, [5, 1, 6, 0])
    assert encode.batches == [2]
    assert torch.equal(mixed["features"][1][[3, 1]], first["features"][1][:2])
    assert torch.equal(mixed["features"][0], torch.from_numpy(expected(index, [5, 1, 6, 0])[0].numpy().astype("f2")))


def test_two_processes_fill_one_store(index: SampleIndex, tmp_path: Path) -> None:
    encoders = Encoder(), Encoder()
    one, two = (opened(index, tmp_path / "c", encode) for encode in encoders)
    fetch(one, [0, 2, 4, 6])
    fetch(two, [1, 3, 5, 7])
    found = [fetch(mode, [7, 0, 3])[0]["features"] for mode in (one, two)]
    assert [encode.batches for encode in encoders] == [[4], [4]]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_half_precision_cannot_hold_is_not_stored_and_never_infinite(index: SampleIndex, tmp_path: Path) -> None:
    encode = Encoder()

    def with_a_large_one(images: torch.Tensor) -> list[torch.Tensor]:
        features = encode(images)
        features[1][0, 0, 0, 0] = 70000.0
        return features

    mode = opened(index, tmp_path / "c", with_a_large_one)
    found, _ = fetch(mode, [3, 4, 5])
    assert [f.dtype for f in found["features"]] == [torch.float32] * 2
    assert found["features"][1][0, 0, 0, 0] == 70000
    wanted = expected(index, [3, 4, 5])[0]
    assert torch.equal(found["features"][0][0], wanted[0])
    assert torch.equal(found["features"][0][1:], wanted[1:].half().float())
    target = found["target"]
    mode.cache.encode = encode
    again, _ = fetch(mode, [3, 4, 5])
    assert encode.batches == [3, 1]
    assert torch.equal(again["target"], target)
    assert mode.cache.usage.too_large == 1
    assert fetch(mode, [3])[0]["features"][0].dtype == torch.float16


def test_an_image_that_cannot_be_read_is_left_out_of_the_store(index: SampleIndex, tmp_path: Path) -> None:
    Path(index.image_path(4)).write_bytes(b"")
    encode = Encoder()
    mode = opened(index, tmp_path / "c", encode)
    for _ in range(2):
        found, failed = fetch(mode, [3, 4, 5])
        assert failed == [1]
        wanted = expected(index, [3, 5])[0].half()
        assert torch.equal(found["features"][0][[0, 2]], wanted)
    assert encode.batches == [2]
    assert fetch(mode, [4])[1] == [0]


def test_rows_of_a_split_and_no_rows_at_all(index: SampleIndex, tmp_path: Path) -> None:
    part = opened(index, tmp_path / "c", Encoder(), np.array([2, 5, 6]))
    assert torch.equal(fetch(part, [6, 2])[0]["features"][0], expected(index, [6, 2])[0].half())
    assert fetch(part, [])[0]["features"][1].shape == (0, 2, 3, 4)  # a short rank


def test_other_encoders_rows_files_and_settings_have_other_stores(
    index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def note(*arguments: Any, **settings: Any) -> None:
        folders.append(opened(index, tmp_path / "c", Encoder(), *arguments, **settings).store.folder)

    note()
    note(identity="other weights")
    note(np.arange(3))
    note(resize_method="crop_or_pad")
    monkeypatch.setattr(embeddings_module, "FORMAT_VERSION", 99)
    note()
    monkeypatch.undo()
    os.utime(index.image_path(2), ns=(1, 1))
    note()
    assert len(set(folders)) == len(folders)
    note(mode="eager", decode_threads=3)
    assert folders[-1] == folders[-2]


def test_a_full_disk_names_what_to_do(index: SampleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"preprocessing\.cache_encoder_embeddings=false"):
        opened(index, tmp_path / "c", Encoder())


def test_what_is_cached_without_being_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decided(gib: float, **settings: Any) -> tuple[bool, str]:
        return worth_caching(int(gib * 2**30), Preprocessing(lazy_cache_dir=str(tmp_path), **settings))

    monkeypatch.setattr(embeddings_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=7 * 2**30))
    assert decided(3.4)[0]
    assert decided(3.6) == (False, f"the features would take 3.60 GiB, and {tmp_path} has 7.00 GiB left")
    assert "embedding_cache_limit is 4" in decided(4.1)[1]
    assert decided(0.4, embedding_cache_limit=0.5)[0]
    assert not decided(0.6, embedding_cache_limit=0.5)[0]
    (tmp_path / "file").write_bytes(b"")
    assert not worth_caching(1, Preprocessing(lazy_cache_dir=str(tmp_path / "file" / "x")))[0]


def test_the_oldest_features_give_way(tmp_path: Path) -> None:
    def store(name: str, nbytes: int, used: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "about.json").write_text(json.dumps({"bytes": nbytes}))
        os.utime(folder / "about.json", (used, used))
        return folder

    old, new, newest = (store(f"embeddings-{n}", 2**20, n) for n in (1, 2, 3))
    pixels = store("0123", 2**30, 0)
    make_room(tmp_path, 2**20, limit=3.5 / 1024)
    assert [f.is_dir() for f in (old, new, newest, pixels)] == [False, True, True, True]
    make_room(tmp_path, 2**20, limit=4 / 1024)
    assert new.is_dir()


def test_features_that_are_read_do_not_give_way(index: SampleIndex, tmp_path: Path) -> None:
    mode = opened(index, tmp_path, Encoder())
    fetch(mode, [0, 1])
    make_room(tmp_path, 2**30, limit=1e-9)
    assert mode.store.folder.is_dir()
    mode.close()
    make_room(tmp_path, 2**30, limit=1e-9)
    assert not mode.store.folder.exists()


# ---- under a fit


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


def settings(table: Path, out: Path, decoder: str, **values: Any) -> dict[str, Any]:
    mask = {"data.ignore_index": 255, "decoder.channels": [16, 8, 8, 8]} if decoder == "unet" else {}
    return {
        "encoder": "unet",
        "decoder": decoder,
        "data": "table",
        "image_size": [32, 40],
        "epochs": 3,
        "batch_size": 8,
        "lr": 5e-3,
        "overrides": {
            "data.path": str(table),
            "encoder.base_channels": 4,
            "encoder.trainable": False,
            "preprocessing.lazy_cache_dir": str(out.parent / "cache"),
            "output_dir": str(out),
            **mask,
            **values,
        },
    }


def curves(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


OFF = {"preprocessing.cache_encoder_embeddings": False}


@pytest.mark.parametrize("decoder", ["classifier", "unet"])
def test_training_is_that_on_rounded_features_and_the_second_run_encodes_nothing(
    table: Path, tmp_path: Path, decoder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = lv.fit(**settings(table, tmp_path / "cached", decoder))
    assert "cache    embeddings of 32 samples" in capsys.readouterr().out
    assert cached.module.config["preprocessing"]["cache_encoder_embeddings"] is True
    assert "# preprocessing.cache_encoder_embeddings: the encoder is frozen" in (
        tmp_path / "cached" / "config.yaml"
    ).read_text(encoding="utf-8")
    usage = cached.module.embeddings.usage
    assert (usage.encoded, usage.read) == (32, 2 * 24 + 3 * 8), "24 train and 8 val rows, 8 of them in the sanity check"
    again = lv.fit(**settings(table, tmp_path / "again", decoder))
    assert again.module.embeddings.usage.encoded == 0
    assert curves(tmp_path / "again") == curves(tmp_path / "cached")
    alone = lv.test(cached.checkpoint, overrides={"output_dir": str(tmp_path / "test")})
    assert alone.metrics["test/loss"] == cached.metrics["test/loss"], "tested is what the checkpoint holds"

    plain = VisionModule.encode

    def rounded(self: VisionModule, image: torch.Tensor) -> Any:
        return apply_to_collection(plain(self, image), torch.Tensor, lambda features: features.half().float())

    monkeypatch.setattr(VisionModule, "encode", rounded)
    capsys.readouterr()
    lv.fit(**settings(table, tmp_path / "plain", decoder, **OFF))
    assert "cache " not in capsys.readouterr().out
    for one, two in zip(curves(tmp_path / "plain"), curves(tmp_path / "cached"), strict=True):
        assert one == pytest.approx(two, abs=1e-5)


def test_rounding_moves_the_curves_by_no_more_than_half_precision(table: Path, tmp_path: Path) -> None:
    lv.fit(**settings(table, tmp_path / "plain", "classifier", **OFF))
    lv.fit(**settings(table, tmp_path / "cached", "classifier"))
    one, two = (curves(tmp_path / name) for name in ("plain", "cached"))
    losses = [[row[key] for row in rows for key in ("train/loss", "val/loss")] for rows in (one, two)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2**-10)


@pytest.mark.parametrize(("step", "kept"), [(2, True), (4, False)], ids=["first epoch", "second epoch, cache lost"])
def test_resume_continues_exactly(table: Path, tmp_path: Path, step: int, kept: bool) -> None:
    words = [
        "+callbacks.steps._target_=lightning.pytorch.callbacks.ModelCheckpoint",
        "+callbacks.steps.filename='{step}'",
        "+callbacks.steps.every_n_train_steps=1",
        "+callbacks.steps.save_top_k=-1",
        f"+callbacks.steps.dirpath='{tmp_path / 'steps'}'",
    ]
    lv.fit(words, **settings(table, tmp_path / "whole", "classifier"))
    part = settings(table, tmp_path / "part", "classifier")
    part["checkpoint"] = str(tmp_path / "steps" / f"step={step}.ckpt")
    if not kept:
        part["overrides"]["preprocessing.lazy_cache_dir"] = str(tmp_path / "elsewhere")
    words[-1] = f"+callbacks.steps.dirpath='{tmp_path / 'more'}'"
    lv.fit(words, **part)
    a, b = (checkpoints.read(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part"))
    assert a["global_step"] == b["global_step"] == 9
    for key, value in a["state_dict"].items():
        # Encoded anew, in other batches, a value may be rounded to its neighbour.
        assert torch.allclose(value, b["state_dict"][key], atol=0 if kept else 1e-5, rtol=0), key


def test_a_module_of_ones_own_gets_images(table: Path, tmp_path: Path) -> None:
    module, data = lv.build(**settings(table, tmp_path / "run", "classifier"))
    assert module.embeddings is not None
    assert "image" in next(iter(data.train_dataloader()))
    trainer = build_trainer({**module.config, "callbacks": {}, "logger": {}}, max_epochs=1, enable_checkpointing=False)
    trainer.fit(module, data)
    trainer.validate(module, data, verbose=False)
    assert "image" in next(iter(data.val_dataloader())), "outside of a fit"  # type: ignore[arg-type]


REFUSED: list[tuple[list[str], str, str]] = [
    (["augmentation=random_horizontal_flip"], "augmentation.random_horizontal_flip", "augmentation=none"),
    (["encoder.trainable=true"], "encoder.trainable=true", "encoder.trainable=false"),
    (["encoder.trainable=true", "encoder.adapter=lora"], "encoder.adapter", "encoder.trainable=false encoder.adapter="),
    (["encoder.skip=true"], "encoder.skip=true", "encoder.skip=false"),
]


@pytest.mark.parametrize(("words", "named", "mended"), REFUSED, ids=[r[1] for r in REFUSED])
def test_what_changes_in_every_epoch_is_refused_by_both_names(
    table: Path, words: list[str], named: str, mended: str
) -> None:
    base = ["data=table", "decoder=unet", "encoder=unet", "encoder.trainable=false", "image_size=32"]
    values = {"data.path": str(table), "data.ignore_index": 255}

    def plan(*more: str) -> Any:
        return resolve(compose([*base, *words, *more], values))

    assert plan().config["preprocessing"]["cache_encoder_embeddings"] is False
    with pytest.raises(ConfigError, match=r"preprocessing\.cache_encoder_embeddings=true") as error:
        plan("preprocessing.cache_encoder_embeddings=true")
    assert named in str(error.value)
    assert any(mended in override for override in error.value.overrides)
    for override in error.value.overrides:
        plan("preprocessing.cache_encoder_embeddings=true", *override.split())


def test_the_limit_decides_and_says_so(table: Path, tmp_path: Path) -> None:
    words = ["data=table", "decoder=unet", "encoder=unet", "encoder.trainable=false", "image_size=32"]
    values = {"data.path": str(table), "data.ignore_index": 255, "preprocessing.lazy_cache_dir": str(tmp_path)}

    def reason(**more: Any) -> tuple[bool, str]:
        plan = resolve(compose(words, {**values, **more}))
        module = build_module(plan)
        assert (module.embeddings is not None) == plan.config["preprocessing"]["cache_encoder_embeddings"]
        return module.embeddings is not None, plan.reasons.get("preprocessing.cache_encoder_embeddings", "")

    # 64 to 1024 channels at strides 1 to 16, two bytes each, a byte for each pixel's class; 24 + 8 rows.
    each = sum(2 * 64 * 2**i * (32 // 2**i) ** 2 for i in range(5)) + 32 * 32
    said = f"{32 * each / 2**30:.2f} GiB"
    cached, why = reason(**{"preprocessing.embedding_cache_limit": 0.001})
    assert (cached, said in why) == (False, True)
    assert reason()[0]
    # Asked for, it is cached whatever its size.
    both = {"preprocessing.embedding_cache_limit": 0.001, "preprocessing.cache_encoder_embeddings": True}
    assert reason(**both) == (True, "")
    assert re.search(r"GiB in ", reason()[1])


def test_code_without_a_version_counts_by_what_it_computes(table: Path, tmp_path: Path) -> None:
    module, _ = lv.build(**settings(table, tmp_path / "run", "classifier"))
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=nullcontext))  # type: ignore[assignment]
    assert assembly._ours(module.encoder)
    module.encoder.own = type("Own", (nn.Module,), {"__module__": "my_package"})()
    assert not assembly._ours(module.encoder)
    # One config, equal weights, and other code.
    embed = module.encoder.embed_features
    found = []
    for function in (torch.sin, torch.tanh, torch.sin):
        module.encoder.embed_features = lambda x, f=function: f(embed(x))  # type: ignore[method-assign]
        found.append(assembly._features_digest(module))
    assert found[0] == found[2] != found[1]


def test_whether_there_is_room_is_asked_anew_when_a_run_goes_on(table: Path, tmp_path: Path) -> None:
    first = lv.fit(**{**settings(table, tmp_path / "run", "classifier"), "epochs": 1})
    assert first.module.config["preprocessing"]["cache_encoder_embeddings"] is True
    more = lv.fit(
        checkpoint=str(first.folder / "checkpoints" / "last.ckpt"),
        epochs=2,
        overrides={"output_dir": str(tmp_path / "more"), "preprocessing.embedding_cache_limit": 1e-9},
    )
    assert more.module.embeddings is None


def test_the_cache_may_be_switched_when_a_run_goes_on(table: Path, tmp_path: Path) -> None:
    first = lv.fit(**{**settings(table, tmp_path / "run", "classifier"), "epochs": 1})
    last = str(first.folder / "checkpoints" / "last.ckpt")
    more: Callable[..., Any] = lambda **values: lv.fit(  # noqa: E731
        checkpoint=last, epochs=2, overrides={"output_dir": str(tmp_path / "more"), **values}
    )
    assert more(**{"preprocessing.cache_encoder_embeddings": False}).module.embeddings is None
