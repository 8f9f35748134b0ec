"""Exports are run beside the model: a dozen encoders and decoders, every task, several outputs and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import lightning_vision as lv
from lightning_vision.actions import export as action
from lightning_vision.decoders.base import resample
from lightning_vision.encoders.fixed_size import pad_to_least, resize_image
from lightning_vision.encoders.maps import average_to_grid, ceil_div, cut, fit_to_centre
from lightning_vision.encoders.positions import resample_table, weights_of
from lightning_vision.errors import ConfigError
from lightning_vision.inference import export as exporting
from lightning_vision.inference.agreement import Images
from lightning_vision.inference.export import ExportError, export_graphs
from lightning_vision.inference.exported import ExportedModel, describe

SMALL = {"encoder.out_channels": 8}


def built(*words: str, **overrides: Any) -> tuple[Any, Tensor]:
    """A model of the sample data with random weights, and images of it."""
    module, data = lv.build(["data.num_images=60", "image_size=40", *words], overrides=overrides)
    return module.eval(), data.batch(data.index.rows("test"))["image"]


OPERATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: cut(x, (ceil_div(x.shape[-2], 2), ceil_div(x.shape[-1], 3))),
    lambda x: fit_to_centre(x, (ceil_div(x.shape[-2], 2) + 9, x.shape[-1] - 3)),
    lambda x: average_to_grid(x, (3, 5)),
    lambda x: average_to_grid(x, (ceil_div(x.shape[-2], 3), ceil_div(x.shape[-1], 3))),
    lambda x: resample(x, 4, 1, (4 * x.shape[-2] - 3, 4 * x.shape[-1] - 1)),
    lambda x: resample(x, 8, 4, (8 * x.shape[-2] - 3, 8 * x.shape[-1] - 7), "nearest"),
    lambda x: resample(x, 3.5, 4, (7 * x.shape[-2] // 2, 7 * x.shape[-1] // 2)),
    lambda x: resample(x, 7, 8, (7 * x.shape[-2] - 4, 7 * x.shape[-1] - 4), "nearest"),
    lambda x: resize_image(x, (17, 30)),
    lambda x: resample_table(torch.linspace(0, 1, 2 * 49).view(1, 2, 7, 7), (x.shape[-2], x.shape[-1])),
    lambda x: pad_to_least(x, (23, 26)),
)


class TestOperations:
    """What is done in another way in an exported graph gives the same, at sizes that it was not captured at."""

    def test_captured_is_eager(self) -> None:
        class Module(torch.nn.Module):
            def forward(self, image: Tensor) -> tuple[Tensor, ...]:
                return tuple(operation(image) for operation in OPERATIONS)

        dims = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
        with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            program = torch.export.export(
                Module(),
                (torch.rand(1, 2, 21, 26),),
                dynamic_shapes={"image": dims},
                prefer_deferred_runtime_asserts_over_guards=True,
            )
        for size in ((21, 26), (24, 24), (11, 37), (30, 9)):
            image = torch.rand(1, 2, *size)
            for operation, found in zip(OPERATIONS, program.module()(image), strict=True):
                torch.testing.assert_close(found, operation(image), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("n", "m"), [(7, 7), (16, 9), (5, 23), (64, 20)])
    @pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
    def test_weights_are_those_of_torch(self, n: int, m: int, mode: str) -> None:
        expected = F.interpolate(torch.eye(n)[None, None], (m, n), mode=mode, antialias=True)[0, 0]
        torch.testing.assert_close(
            weights_of(n, m, torch.device("cpu"), mode == "bicubic"), expected, atol=2e-6, rtol=0
        )


# Small ones of every way in which encoders and decoders treat sizes; the whole dozen is in the benchmark.
TINY_VIT = {"depth": 4, "embed_dim": 8, "num_heads": 2}
VIT = {"hidden_size": 8, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 70}
DEFAULT: dict[str, dict[str, Any]] = {
    "stacked_cnn:segformer": SMALL,
    "dinov2:linear": {"encoder.model_config": VIT, "encoder.use_pretrained": False},
    "mlp_mixer:classifier": {"encoder.embed_size": 8, "encoder.patch_size": 8, "encoder.num_layers": 2},
    "timm:anomaly": {
        "encoder.model_name": "test_vit",
        "encoder.model_kwargs": TINY_VIT,
        "encoder.use_pretrained": False,
        "decoder.normal_class": "circle",
    },
    "stacked_cnn:projector": SMALL | {"task": "embedding", "augmentation": "views"},
}


@pytest.mark.parametrize("pair", DEFAULT)
def test_pairs_export_for_any_size_and_agree(pair: str, tmp_path: Path) -> None:
    encoder, decoder = pair.split(":")
    words = [f"{key}={value}" for key, value in DEFAULT[pair].items() if "." not in key]
    values = {key: value for key, value in DEFAULT[pair].items() if "." in key}
    module, pixels = built(f"encoder={encoder}", f"decoder={decoder}", *words, **values)
    found = export_graphs(module, tmp_path, ["onnx"], Images(pixels, ""))["onnx"]
    assert found.allowed.sizes == "any", found.reasons
    assert found.largest < 1e-4


@pytest.mark.slow
def test_the_representative_dozen() -> None:
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "tests.benchmarks", "export"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class TestTasks:
    """Outputs, their names and what is known about them, of every task."""

    def test_probabilities_are_calibrated(self, tmp_path: Path) -> None:
        module, pixels = built("decoder=classifier", "calibrate=temperature", **SMALL)
        module.head().temperature.fill_(3.0)
        exported = ExportedModel(module)
        with torch.no_grad():
            (found,) = exported(pixels)
            assert torch.equal(found, (module(pixels) / 3).softmax(1))
        assert exported.names == ("probabilities",)

    def test_open_set(self) -> None:
        module, _ = built("decoder=classifier", "task=open_set", **SMALL)
        module.head().threshold.fill_(0.25)
        exported = ExportedModel(module)
        assert exported.names == ("probabilities", "confidence")
        known = describe(exported)
        assert known["tasks"]["output"]["threshold"] == 0.25
        assert known["outputs"]["confidence"]["of"] == "output"

    def test_anomaly(self) -> None:
        module, pixels = built("decoder=anomaly", "decoder.normal_class=circle", **SMALL)
        exported = ExportedModel(module)
        assert exported.names == ("score",)
        assert "threshold" not in describe(exported)["tasks"]["output"]
        module.decoder.threshold.fill_(2.0)
        assert describe(exported)["tasks"]["output"]["threshold"] == 2.0
        with torch.no_grad():
            assert torch.equal(exported(pixels)[0], module(pixels))

    def test_several_outputs_of_both_kinds_export(self, tmp_path: Path) -> None:
        outputs = {"mask": {"decoder": "linear"}, "scene": {"decoder": "classifier", "target": "label"}}
        module, pixels = built(outputs=outputs, **SMALL)
        exported = ExportedModel(module)
        assert exported.names == ("mask_logits", "mask_probabilities", "scene_probabilities")
        known = describe(exported)
        assert {name: node["of"] for name, node in known["outputs"].items()} == {
            "mask_logits": "mask",
            "mask_probabilities": "mask",
            "scene_probabilities": "scene",
        }
        found = export_graphs(module, tmp_path, ["torch"], Images(pixels, ""))["torch"]
        assert found.largest < 1e-6
        assert set(found.differences) == set(exported.names)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, exported in all formats."""
    folder = tmp_path_factory.mktemp("run")
    words = ["data.num_images=60", "epochs=1", "image_size=32", "decoder=classifier"]
    lv.fit([*words, "calibrate=temperature"], overrides={**SMALL, "output_dir": str(folder)})
    lv.export(folder / "checkpoints" / "best.ckpt", folder / "export", format="all")
    return folder


class TestConsumer:
    """What someone has who has the ONNX file alone."""

    def test_the_file_tells_how_to_prepare_images_and_read_the_outputs(self, run: Path) -> None:
        model = onnx.load(run / "export" / "model.onnx")
        known = {p.key: json.loads(p.value) for p in model.metadata_props}
        assert known["image_size"] == [32, 32]
        assert known["resize"]["method"] == "interpolate"
        assert known["tasks"]["output"]["task"] == "classification"
        assert known["tasks"]["output"]["class_names"] == list(lv.load(run / "export" / "hub").task.target.class_names)
        assert model.opset_import[0].version == exporting.OPSET
        image = model.graph.input[0]
        assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
        axes = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
        assert axes == ["batch", 3, "height", "width"]
        assert [output.name for output in model.graph.output] == ["probabilities"]

    def test_onnxruntime_and_torch_give_what_predict_gives(self, run: Path) -> None:
        images = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(5)]
        expected = np.stack([p.probabilities for p in lv.predict(run / "checkpoints" / "best.ckpt", images)])
        batch = np.stack(images).transpose(0, 3, 1, 2)
        session = onnxruntime.InferenceSession(str(run / "export" / "model.onnx"), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"image": batch})[0], expected, atol=1e-4)
        with torch.no_grad():
            (found,) = torch.export.load(run / "export" / "model.pt2").module()(torch.from_numpy(batch))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)

    def test_the_report_says_what_was_compared(self, run: Path) -> None:
        report = json.loads((run / "export" / "export.json").read_text(encoding="utf-8"))
        assert "images of" in report["compared_on"]
        assert set(report["files"]) == {"model.onnx", "model.pt2"}
        for known in report["files"].values():
            assert known["sizes"] == "any"
            assert 0 <= known["max_difference"]["probabilities"] <= report["tolerance"]
        assert sorted(p.name for p in (run / "export").iterdir()) == ["export.json", "hub", "model.onnx", "model.pt2"]

    def test_the_card_tells_data_figures_use_and_limits_and_nothing_of_the_machine(self, run: Path) -> None:
        card = (run / "export" / "hub" / "README.md").read_text(encoding="utf-8")
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        for text in ("pipeline_tag: image-classification", "lv.load(", "1 of at most 1 epochs", "Weakest classes"):
            assert text in card
        low, high = metrics["test/accuracy/ci95_low"], metrics["test/accuracy/ci95_high"]
        assert f"| accuracy | {metrics['test/accuracy']:.4g} | {low:.4g} to {high:.4g} |" in card
        for file in (run / "export" / "hub").glob("*.*"):
            assert str(run).encode() not in file.read_bytes(), file

    def test_the_folder_is_a_checkpoint_to_the_bit(self, run: Path) -> None:
        images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
        one, other = lv.load(run / "checkpoints" / "best.ckpt"), lv.load(run / "export" / "hub")
        with torch.no_grad():
            assert torch.equal(one(images), other(images))
        assert torch.equal(one.head().temperature, other.head().temperature)
        [first], [second] = (
            lv.predict(path, np.zeros((40, 30, 3), np.uint8))
            for path in (run / "checkpoints" / "best.ckpt", run / "export" / "hub")
        )
        assert np.array_equal(first.probabilities, second.probabilities)


class TestRefused:
    def test_other_numbers_are_an_error_and_nothing_is_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, _ = built("decoder=classifier", **SMALL)
        true = exporting._load_torch
        monkeypatch.setitem(
            exporting.WAYS,
            "torch",
            (exporting._write_torch, lambda path: lambda x: [t + 2e-4 for t in true(path)(x)]),
        )
        (tmp_path / "export.json").write_text("of before")
        with pytest.raises(ExportError, match="other numbers"):
            lv.export(module, tmp_path, format=["torch", "hub"])
        assert [p.name for p in tmp_path.iterdir()] == ["export.json"]
        assert (tmp_path / "export.json").read_text() == "of before"

    def test_a_model_of_one_size_is_exported_for_it_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, pixels = built("decoder=classifier", **SMALL)
        forward = type(module.encoder).features

        def stubborn(self: Any, x: Tensor, wanted: Any) -> Any:
            if int(x.shape[-1]) != 40:
                raise RuntimeError("this model takes 40 pixels")
            return forward(self, x, wanted)

        exported = ExportedModel(module)
        monkeypatch.setattr(type(module.encoder), "features", stubborn)
        found = exporting._export(exported, describe(exported), tmp_path / "m.pt2", "torch", Images(pixels, ""), {})
        assert found.allowed.sizes == "fixed"
        assert "40 x 40 pixels alone" in str(found)
        assert "not of any size" in str(found)

    @pytest.mark.parametrize(
        ("given", "push", "message"),
        [("onxx", None, "no such format"), ([], None, "Nothing"), ("onnx", "a/b", "Only the format hub")],
    )
    def test_formats(self, given: Any, push: str | None, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            action.formats_of(given, push)

    def test_a_missing_package_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from lightning_vision import extras

        found = extras.find_spec
        monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnxruntime" else found(name))
        with pytest.raises(ConfigError, match=r"onnxruntime") as error:
            action.formats_of("all")
        assert "pip install 'lightning_vision[onnx]'" in error.value.overrides
        assert action.formats_of(["hub", "torch"]) == ("torch", "hub")
