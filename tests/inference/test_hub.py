"""A folder for the hub: malformed ones are refused by name, nothing untrusted is built, uploads need a token."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import lightning_vision as lv
from lightning_vision import checkpoint as checkpoints
from lightning_vision import runfolder
from lightning_vision.actions import export as action
from lightning_vision.errors import CheckpointError, ConfigError, VisionError
from lightning_vision.inference.agreement import Images
from lightning_vision.inference.card import model_card
from lightning_vision.inference.hub import check_hub_folder, push_folder, without_paths, write_hub_folder

REPORT: dict[str, Any] = {
    "outputs": {"probabilities": {}},
    "image_size": [32, 32],
    "resize": {"method": "interpolate", "filter": "bilinear"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module, data = lv.build(
        ["data.num_images=60", "decoder=classifier", "image_size=32"], overrides={"encoder.out_channels": 4}
    )
    images = Images(data.batch(data.index.rows("test"))["image"], "", data.index.counts())
    folder = tmp_path_factory.mktemp("hub") / "model"
    write_hub_folder(module.eval(), folder, REPORT, images)
    check_hub_folder(module, folder, images)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def change(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config[checkpoints.KEY] |= changes
    file.write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        lv.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"{name} cannot be read"):
        lv.load(folder)


def test_of_another_program(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["ViT"]}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="not of lightning_vision"):
        lv.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "newer version"),
        ({"format_version": None}, "does not say its format"),
        ({"geometry": "large"}, "lacks"),
        ({"config": {}}, "lacks"),
        ({"outputs": None}, "lacks"),
    ],
)
def test_a_config_that_lacks_what_is_needed(folder: Path, changes: dict[str, Any], message: str) -> None:
    change(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        lv.load(folder)


@pytest.mark.parametrize("target", ["os.system", "lightning_vision.config.os.system"])
def test_only_trusted_targets_are_built(folder: Path, target: str) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))[checkpoints.KEY]["config"]
    config["encoder"] = {"_target_": target, "command": "touch evil"}
    change(folder, config=config)
    with pytest.raises(VisionError, match=r"blocklisted|may not build|plugin os, which is not installed"):
        lv.load(folder)


def test_weights_of_another_model(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="do not fit"):
        lv.load(folder)


def test_paths_of_the_machine_are_cut() -> None:
    found = without_paths({"a": ["/home/me/pets.csv", "pets.csv"], "b": {"c": "~/data/", "d": 3}})
    assert found == {"a": ["pets.csv", "pets.csv"], "b": {"c": "data", "d": 3}}


def test_a_training_does_not_go_on_from_it(folder: Path, tmp_path: Path) -> None:
    words = ["data.num_images=60", "decoder=classifier", "image_size=32"]
    with pytest.raises(CheckpointError, match="cannot go on from this") as error:
        lv.fit(words, checkpoint=str(folder), overrides={"output_dir": str(tmp_path / "run")})
    assert error.value.overrides[0] == f"test checkpoint={folder}"


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("https://me:secret@example.org:5000/logs?token=secret#secret", "https://example.org:5000/logs"),
        ("sqlite:////home/me/x.db", "x.db"),
        ("file:///home/me/a/", "a"),
        ("postgresql+psycopg://me:secret@db/runs and ftp://me@host", "postgresql+psycopg://db/runs and ftp://host"),
        ("https://me@", ""),
        ("hf://datasets/pets", "hf://datasets/pets"),
        ("a plain word: b@c", "a plain word: b@c"),
    ],
)
def test_of_addresses_only_what_is_public_stays(given: str, left: str) -> None:
    assert without_paths({"a": [given]}) == {"a": [left]}


def test_nothing_of_the_machine_or_its_owner_is_written(tmp_path: Path) -> None:
    module, data = lv.build(
        [
            *("data.num_images=60", "decoder=classifier", "image_size=32", "logger=mlflow"),
            "+trainer.default_root_dir=s3://secret/runs",
        ],
        overrides={
            "encoder.out_channels": 4,
            "logger.mlflow.tracking_uri": "https://me:secret@example.org",
            "sweep.storage": "sqlite:////home/secret/x.db",
        },
    )
    names = ["/m/01", "~other", "https://me@c"]
    module.config["data"]["class_names"] = names
    head = module.head(module.names[0])
    object.__setattr__(head.task.target, "class_names", tuple(names))
    images = Images(data.batch(data.index.rows("test"))["image"], "", data.index.counts())
    write_hub_folder(module.eval(), tmp_path / "hub", REPORT, images)
    for name in ("config.json", "config.yaml"):
        text = (tmp_path / "hub" / name).read_text(encoding="utf-8")
        assert "secret" not in text
        assert str(Path.cwd()) not in text
    loaded = lv.load(tmp_path / "hub")
    assert list(loaded.task.target.class_names) == loaded.config["data"]["class_names"] == names


def test_figures_of_another_checkpoint_are_not_on_the_card(tmp_path: Path) -> None:
    module, data = lv.build(["data.num_images=60", "decoder=classifier", "image_size=32"])
    images = Images(data.batch(data.index.rows("test"))["image"], "", data.index.counts())
    best, last = tmp_path / "checkpoints" / "best.ckpt", tmp_path / "checkpoints" / "last.ckpt"
    best.parent.mkdir()
    best.write_bytes(b"best")
    last.write_bytes(b"last")

    def card(origin: Path) -> str:
        return model_card(module, module.config, REPORT, images, origin)

    runfolder.finish(tmp_path, {"test/accuracy": 0.25, "test/loss": math.nan}, best)
    assert "| accuracy | 0.25 |" in card(best)
    assert "None are known" in card(last)
    best.write_bytes(b"trained on")
    assert "None are known" in card(best)
    runfolder.finish(tmp_path, {"test/accuracy": 0.5})  # of a model without a file
    for file in (best, last, tmp_path):
        assert runfolder.figures_of(file) == {}


class TestPush:
    @pytest.fixture(autouse=True)
    def _no_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.get_token", lambda: None)

    def test_without_a_token_nothing_is_done(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="needs a token") as error:
            lv.export("no.ckpt", tmp_path / "out", format="hub", push="me/model")
        assert "HF_TOKEN" in str(error.value)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("push", ["model", "a/b/c", "/model"])
    def test_the_name_of_a_repository(self, push: str) -> None:
        with pytest.raises(ConfigError, match="owner and a name"):
            action.formats_of("hub", push)

    def test_the_folder_is_uploaded(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[tuple[str, Any]] = []

        class FakeApi:
            def create_repo(self, repository: str, **settings: Any) -> str:
                calls.append(("create", repository))
                return f"https://huggingface.co/{repository}"

            def upload_folder(self, **settings: Any) -> None:
                calls.append(
                    ("upload", (settings["repo_id"], sorted(p.name for p in settings["folder_path"].iterdir())))
                )

        monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
        assert push_folder(written, "me/model") == "https://huggingface.co/me/model"
        files = ["README.md", "config.json", "config.yaml", "model.safetensors"]
        assert calls == [("create", "me/model"), ("upload", ("me/model", files))]

    def test_what_the_hub_refuses_is_told(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class FakeApi:
            def create_repo(self, repository: str, **settings: Any) -> str:
                raise OSError("403 forbidden")

        monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
        with pytest.raises(ConfigError, match="did not take") as error:
            push_folder(written, "me/model")
        assert "403 forbidden" in str(error.value)
