"""What a config of Ludwig becomes: words, and a reason for every key that becomes none."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import lightning_vision as lv
from lightning_vision.__main__ import main
from lightning_vision.command_line import read
from lightning_vision.errors import ConfigError
from lightning_vision.ludwig.config import UNREAD, translate_config
from lightning_vision.ludwig.translation import Translation, places
from lightning_vision.ludwig.words import replace

BLOCKS = [
    block
    for file in sorted((Path(__file__).parent / "blocks").glob("*.yaml"))
    for block in yaml.safe_load_all(file.read_text(encoding="utf-8"))
]
WHOLE = next(block for block in BLOCKS if "model_type" in block)


def translated(content: dict[str, Any], typed: tuple[str, ...] = ()) -> Translation:
    t = Translation(frozenset(typed))
    translate_config(content, t)
    return t


def written(folder: Path, content: Any, name: str = "config.yaml") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def image(**more: Any) -> dict[str, Any]:
    return {"name": "image", "type": "image", **more}


def test_the_whole_config_of_the_page() -> None:
    t = translated(WHOLE)
    assert t.settings == {
        **{"data.image": "image", "encoder": "convnextv2", "encoder.model_name": "convnextv2_tiny"},
        **{"encoder.use_pretrained": True, "encoder.trainable": True},
        **{"image_size": [256, 256], "preprocessing.num_channels": 3},
        **{"data.num_classes": 3, "decoder": "unet", "loss": "softmax_cross_entropy", "data.target": "mask"},
        **{"epochs": 30, "batch_size": 16, "lr": 3e-4, "optimizer": "adamw", "scheduler": "cosine"},
        "trainer.precision": "bf16-mixed",
    }
    assert list(t.notes) == ["model_type"]
    assert t.origins["lr"] == "trainer.optimizer.lr"


def test_both_schemas_of_defaults_and_a_feature_s_own_settings() -> None:
    shared = {"height": 32, "width": 48, "mode": "eager"}
    content = {
        "preprocessing": {"image": shared},
        "defaults": {
            "image": {
                "encoder": {"type": "resnet", "model_variant": 18, "trainable": False},
                "decoder": {"type": "fpn", "num_channels": 8},
                "loss": {"type": "dice_loss"},
                "augmentation": True,
            },
            "text": {"encoder": {"type": "bert"}},
        },
        "input_features": [image(encoder={"type": "resnet", "trainable": True}, preprocessing={"mode": "lazy"})],
        "output_features": [{"name": "mask", "type": "image", "column": "mask file"}],
    }
    t = translated(content)
    assert t.settings == {
        **{"data.image": "image", "encoder": "resnet", "encoder.model_variant": 18, "encoder.trainable": True},
        **{"augmentation": True, "image_size": [32, 48], "preprocessing.mode": "lazy"},
        **{"decoder": "fpn", "decoder.num_channels": 8, "loss": "dice_loss", "data.target": "mask file"},
    }
    assert set(t.notes) == {
        *("defaults.text.encoder.type", "defaults.image.encoder.type", "defaults.image.encoder.trainable"),
        "preprocessing.image.mode",
    }


def test_several_inputs_and_several_outputs() -> None:
    content = {
        "input_features": [image(name="left"), image(name="b", column="right", tied="left")],
        "output_features": [
            {"name": "mask", "type": "image", "decoder": {"type": "segformer", "hidden_dim": 64}},
            {"name": "a label", "type": "category", "dependencies": ["mask"], "reduce_input": "max"},
            {"name": "tags", "type": "set", "loss": {"type": "sigmoid_cross_entropy", "weight": 0.5}},
        ],
        "trainer": {"validation_field": "mask", "validation_metric": "mean_iou"},
    }
    t = translated(content)
    assert t.settings["data.inputs"] == ["left", "right"]
    assert t.settings["tied"] == "left"
    assert t.settings["monitor"] == "val/mask/mean_iou"
    assert t.settings["outputs"] == {
        "mask": {"decoder": {"type": "segformer", "hidden_dim": 64}},
        "a_label": {"decoder": "classifier", "target": "a label", "dependencies": ["mask"], "reduce_input": "max"},
        "tags": {
            "decoder": "classifier",
            "loss": {"type": "sigmoid_cross_entropy", "weight": 0.5},
            "task": "multilabel",
        },
    }
    assert not t.notes
    cfg = lv.compose(
        [f"{k}={v}" for k, v in {"data": "table", "data.path": "x"}.items()], outputs=t.settings["outputs"]
    )
    assert set(cfg.outputs) == {"mask", "a_label", "tags"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"trainer": {"early_stop": -1}}, {"callbacks.early_stopping": None}),
        ({"trainer": {"early_stop": 3}}, {"callbacks.early_stopping.patience": 3}),
        ({"trainer": {"train_steps": 50}}, {"+trainer.max_steps": 50}),
        ({"trainer": {"gradient_clipping": {"clipglobalnorm": 0.5}}}, {"trainer.gradient_clip_val": 0.5}),
        (
            {"trainer": {"gradient_clipping": {"clipvalue": 2}}},
            {"trainer.gradient_clip_val": 2, "trainer.gradient_clip_algorithm": "value"},
        ),
        ({"trainer": {"use_mixed_precision": False}}, {"trainer.precision": "32-true"}),
        ({"trainer": {"gradient_accumulation_steps": 4}}, {"trainer.accumulate_grad_batches": 4}),
        ({"trainer": {"validation_metric": "loss"}}, {"monitor": "val/loss"}),
        ({"trainer": {"learning_rate": 0.1, "optimizer": {"lr": 0.1}}}, {"lr": 0.1}),
        ({"trainer": {"learning_rate_scheduler": None}}, {"scheduler": "constant"}),
        (
            {"trainer": {"learning_rate": 0.1, "learning_rate_scheduler": {"decay": "cosine", "eta_min": 0.01}}},
            {"lr": 0.1, "scheduler": "cosine", "scheduler.final_factor": pytest.approx(0.1)},
        ),
        ({"trainer": {"learning_rate_scheduler": {"warmup_fraction": 0.2}}}, {"scheduler.warmup": 0.2}),
        ({"trainer": {"epochs": 10, "learning_rate_warmup_epochs": 1}}, {"epochs": 10, "scheduler.warmup_epochs": 1}),
        ({"trainer": {"optimizer": {"type": "sgd", "momentum": 0.8}}}, {"optimizer": "sgd", "optimizer.momentum": 0.8}),
        (
            {"trainer": {"optimizer": {"type": "adagrad", "weight_decay": 0.1}}},
            {
                **{"optimizer": "adam", "optimizer._target_": "torch.optim.Adagrad", "~optimizer.betas": None},
                "optimizer.weight_decay": 0.1,
            },
        ),
        (
            {"trainer": {"learning_rate_scheduler": {"reduce_on_plateau": 2, "reduce_on_plateau_patience": 3}}},
            {"scheduler": "plateau", "scheduler.patience": 3},
        ),
        (
            {"trainer": {"learning_rate_scheduler": {"decay": "linear", "warmup_fraction": 0.1}}},
            {"scheduler": "polynomial", "scheduler.warmup": 0.1},
        ),
        ({"random_seed": 7}, {"seed": 7}),
        ({"encoder": "resnet"}, {"encoder": "resnet"}),
        ({"encoder": {"type": "resnet", "resnet_size": 50}}, {"encoder": "resnet_legacy"}),
        (
            {"encoder": {"type": "vit", "hidden_size": 64, "num_attention_heads": 2}},
            {"encoder": "vit_legacy", "encoder.model_config": {"hidden_size": 64, "num_attention_heads": 2}},
        ),
        (
            {"encoder": {"type": "dinov2", "saved_weights_in_checkpoint": False}},
            {"encoder": "dinov2", "encoder.saved_weights_in_checkpoint": None},
        ),
        ({"augmentation": False}, {"augmentation": False}),
        (
            {"augmentation": [{"type": "random_blur"}, {"type": "random_rotate", "degree": 10}]},
            {"augmentation": ["random_blur", {"type": "random_rotate", "degree": 10}]},
        ),
        ({"type": "random_rotate", "degree": 15}, {"augmentation": [{"type": "random_rotate", "degree": 15}]}),
        ({"preprocessing": {"height": 8, "width": 9}}, {"image_size": [8, 9]}),
        ({"preprocessing": {"height": 8}}, {"preprocessing.height": 8}),
        ({"preprocessing": {"split": {"type": "fixed", "column": "part"}}}, {"data.split": "part"}),
        (
            {"preprocessing": {"split": {"type": "random", "probabilities": [0.7, 0.2, 0.1]}}},
            {"data.val_fraction": 0.2, "data.test_fraction": 0.1},
        ),
        (
            {"output_features": [{"name": "v", "type": "vector", "loss": {"type": "nt_xent_loss"}}]},
            {"augmentation": "views", "decoder": "projector", "loss": "nt_xent_loss"},
        ),
        (
            {"output_features": [{"name": "state", "type": "anomaly", "loss": {"type": "deep_svdd", "nu": 0.1}}]},
            {"decoder": "anomaly", "loss": "deep_svdd", "loss.nu": 0.1, "data.target": "state"},
        ),
        (
            {"name": "label", "type": "category", "reduce_input": "mean"},
            {"outputs": {"label": {"decoder": "classifier", "reduce_input": "mean"}}},
        ),
    ],
)
def test_keys(content: dict[str, Any], expected: dict[str, Any]) -> None:
    assert translated(content).settings == expected


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        (
            {"encoder": {"type": "resnet", "pretrained_cache_dir": "None"}},
            "encoder.pretrained_cache_dir",
            "model_cache",
        ),
        ({"encoder": {"type": "stacked_cnn", "use_pretrained": False}}, "encoder.use_pretrained", "no pretrained"),
        ({"encoder": {"type": "resnet", "trainabel": False}}, "encoder.trainabel", "trainable, perhaps"),
        ({"trainer": {"epochs": 1}, "trianer": {}}, "trianer", "trainer, perhaps"),
        ({"trainer": {"eval_batch_size": 1}}, "trainer.eval_batch_size", "batch_size"),
        ({"trainer": {"optimizer": {"type": "adamw", "beta": 1}}}, "trainer.optimizer.beta", "betas, perhaps"),
        ({"trainer": {}, "hyperopt": {"goal": "minimize"}}, "hyperopt", "-m"),
        ({"trainer": {}, "backend": "ray"}, "backend", "trainer.accelerator"),
        ({"decoder": {"type": "unet", "hidden_dim": 8}}, "decoder.hidden_dim", "no such setting"),
        ({"trainer": {"validation_metric": "hits_at_k"}}, "trainer.validation_metric", "monitor"),
        ({"combiner": {"type": "concat"}}, "combiner.type", "end to end"),
        (
            {"trainer": {"learning_rate_scheduler": {"type": "wsd"}}},
            "trainer.learning_rate_scheduler.type",
            "scheduler",
        ),
    ],
)
def test_keys_without_a_counterpart(content: dict[str, Any], place: str, reason: str) -> None:
    assert reason in translated(content).notes[place]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "nothing"),
        ("- name: image\n", "input_features"),
        ("just words", "str"),
        ("encoder: {type: resnet}\nencoder: {type: vit}\n", "there twice"),
        ("encoder: [\n", "line 2"),
        ("a: &x {b: *x}", "contains itself"),
        ("inputfeatures: []", "did you mean: input_features"),
        ("model_type: gbm", "ecd"),
        ("trainer: 3", "trainer is a mapping"),
        ("input_features: {name: a}", "list of features"),
        ("type: unet", "below encoder:"),
        ("encoder: {type: resnett}", "did you mean: resnet"),
        ("input_features: [{name: age, type: number}]", "'age'"),
        ("output_features: [{name: caption, type: text}]", "'caption'"),
        ("output_features: [{name: caption, type: imge}]", "did you mean: image"),
        ("output_features: [{name: label, type: category, decoder: {type: unet}}]", "classifier"),
        ("input_features: [{name: a, type: image, encoder: clip}, {name: b, type: image, encoder: vit}]", "tied"),
        ("augmentation: 3", "truth value"),
        ("augmentation: [{degree: 3}]", "its type"),
    ],
)
def test_files_that_cannot_be_translated(text: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        replace([f"ludwig={written(tmp_path, text)}"])
    assert part in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    written(tmp_path, WHOLE, "segmentation.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"encoder: \xe9")
    for name, part in (("segmentatoin.yaml", "segmentation.yaml"), ("latin.yaml", "UTF-8"), ("", "directory")):
        with pytest.raises(ConfigError) as caught:
            replace([f"ludwig={tmp_path / name}"])
        assert part in str(caught.value)


def test_numbers_and_dates_are_what_they_look_like(tmp_path: Path) -> None:
    file = written(tmp_path, "trainer: {learning_rate: 1e-3}\nname: 2024-01-01\ntype: image\n")
    assert replace([f"ludwig={file}"]).words == ["data=table", "data.image='2024-01-01'", "lr=0.001"]


ENCODER_KEYS = {"encoder", "encoder.model_name", "encoder.trainable", "encoder.use_pretrained"}


@pytest.mark.parametrize(
    ("typed", "gone", "kept"),
    [
        (["lr=1"], {"lr"}, {"encoder"}),
        (["encoder=resnet"], ENCODER_KEYS, {"decoder"}),
        (["encoder=convnextv2"], {"encoder"}, {"x"}),
        (["encoder.trainable=false"], {"encoder.trainable"}, {"encoder", "encoder.model_name"}),
        (["decoder=fpn"], {"decoder", "data.num_classes"}, {"loss"}),
        (["data=folder"], {"data", "data.image", "data.target"}, {"data.num_classes"}),
        (["data=table"], {"data"}, {"data.image"}),
        (["preprocessing.height=3", "preprocessing.width=3"], {"image_size"}, {"encoder"}),
        (["outputs={a:{decoder:unet}}"], {"decoder", "loss", "data.target", "data.num_classes"}, {"encoder"}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_typed_wins(typed: list[str], gone: set[str], kept: set[str], first: bool, tmp_path: Path) -> None:
    file = f"ludwig={written(tmp_path, WHOLE)}"
    keys = {w.partition("=")[0] for w in replace([file]).words}
    found = replace([*typed, file] if first else [file, *typed])
    words = [w for w in found.words if w not in typed]
    assert {w.partition("=")[0] for w in words} == keys - gone
    assert kept - {"x"} <= keys - gone
    assert found.words[0 if first else -1] in typed


def test_the_printed_command_gives_the_same_config(tmp_path: Path) -> None:
    content = deepcopy(WHOLE) | {"defaults": {"image": {"augmentation": [{"type": "random_blur", "kernel_size": 5}]}}}
    content["output_features"][0] = content["output_features"][0] | {"column": "a, mask='x' (1)=ü"}
    content["output_features"][0]["loss"] = {"type": "softmax_cross_entropy", "class_weights": {"a b": 1, "c,d": 0.5}}
    line = read(["data.path=a b.csv", f"ludwig={written(tmp_path, content, 'my config, (1).yaml')}", "epochs=2"])
    assert line.ludwig is not None
    command = line.ludwig.report.split("\n  ", 1)[1].split("\nWithout")[0]
    copied = read(shlex.split(command.replace("\\\n", " "))[3:])
    assert sorted(copied.words) == sorted(line.words)
    assert read(line.words).words == line.words
    assert read(line.words).ludwig is None
    once, again = lv.compose(line.overrides), lv.compose(copied.overrides)
    once.output_dir = again.output_dir
    assert once == again
    assert once.data.target == "a, mask='x' (1)=ü"
    assert once.loss.class_weights == {"a b": 1, "c,d": 0.5}
    assert (once.epochs, once.data.path) == (2, "a b.csv")


def test_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, WHOLE)
    cfg = lv.compose(ludwig=file, encoder="resnet", overrides={"data.path": "x.csv", "optimizer.weight_decay": 0.5})
    assert (cfg.encoder.family, cfg.epochs, cfg.optimizer.weight_decay) == ("resnet", 30, 0.5)
    assert capsys.readouterr().out.count("in words of this package") == 1
    assert lv.compose([f"ludwig={file}", "data.path=x.csv"]).encoder.model_name == "convnextv2_tiny"


def test_beside_a_checkpoint_the_file_says_where_the_data_are(tmp_path: Path) -> None:
    words = replace([f"ludwig={written(tmp_path, WHOLE)}", "test", "checkpoint=best.ckpt", "data.path=x.csv"]).words
    assert {w.partition("=")[0] for w in words} == {
        *("data", "data.image", "data.target", "data.num_classes", "batch_size", "trainer.precision"),
        *("test", "checkpoint", "data.path"),
    }


def test_columns_of_a_table_that_is_written_here_are_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    values = {"data": "table", "data.path": "x.tsv", "image_size": 32}
    found = replace([f"ludwig={file}"], values, unread=("data.image", "data.inputs", "data.target"))
    assert not any(w.startswith(("data.image", "data.target", "image_size")) for w in found.words)
    # The command may be broken into lines anywhere between its words.
    command = " ".join(found.report.split("\nLeft out")[0].split("\nWithout")[0].replace("\\\n", " ").split())
    assert command.endswith("data=table data.path=x.tsv image_size=32")


@pytest.mark.parametrize(
    ("words", "aside"), [(["--cfg", "job"], True), (["check", "report=-"], True), (["check"], False)]
)
def test_the_report_stays_out_of_what_programs_read(
    words: list[str], aside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["lightning-vision", f"ludwig={written(tmp_path, {'trainer': {'epochs': 3}})}", *words]
    )
    main()
    said = capsys.readouterr()
    assert "in words of this package" in (said.err if aside else said.out)
    assert "in words of this package" not in (said.out if aside else said.err)


def test_no_torch_for_a_look_at_the_config(tmp_path: Path) -> None:
    code = "import sys; from lightning_vision.__main__ import main; main(); sys.exit('torch' in sys.modules)"
    words = [f"ludwig={written(tmp_path, WHOLE)}", "data.path=x.csv", "--cfg", "job"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["encoder"]["model_name"] == "convnextv2_tiny"


def test_an_error_names_the_key_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, {"encoder": {"type": "stacked_cnn", "conv_dropout": 3}})
    with pytest.raises(ConfigError) as caught:
        lv.compose(ludwig=str(file))
    assert f"(encoder.conv_dropout in {file})" in str(caught.value)


def parts(section: str) -> list[dict[str, Any]]:
    """All encoders, decoders or losses of the blocks."""
    features = [f for b in BLOCKS for f in (*b.get("input_features", ()), *b.get("output_features", ()), b)]
    return [f[section] for f in features if isinstance(f.get(section), dict) and "type" in f[section]]


def some_of(section: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    rest = {key: st.just(value) for key, value in section.items() if key != "type"}
    return st.fixed_dictionaries({"type": st.just(section["type"])} if "type" in section else {}, optional=rest)


OF_IMAGES = ("unet", "segformer", "fpn")
ENCODER = st.sampled_from(parts("encoder")).flatmap(some_of)
DECODER = st.sampled_from([d for d in parts("decoder") if d["type"] in OF_IMAGES]).flatmap(some_of)
LOSS = st.sampled_from(parts("loss")).flatmap(some_of)
PREPROCESSING = some_of(next(b for b in BLOCKS if set(b) == {"preprocessing"})["preprocessing"])
AUGMENTATION = st.sampled_from([b["augmentation"] for b in BLOCKS if "augmentation" in b])
TYPO = st.dictionaries(st.sampled_from(["colour", "nmae", "heigth"]), st.integers(0, 3), max_size=1)


def with_typo(section: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda known, typo: known | typo, section, TYPO)


IMAGE_FEATURE = with_typo(
    st.fixed_dictionaries(
        {"name": st.just("image"), "type": st.just("image")},
        optional={
            **{"encoder": with_typo(ENCODER), "preprocessing": with_typo(PREPROCESSING), "augmentation": AUGMENTATION},
            "tied": st.none(),
        },
    )
)
MASK_FEATURE = with_typo(
    st.fixed_dictionaries(
        {"name": st.just("mask"), "type": st.just("image")},
        optional={
            **{"decoder": with_typo(DECODER), "loss": with_typo(LOSS), "preprocessing": with_typo(PREPROCESSING)},
            **{"reduce_input": st.just("sum"), "dependencies": st.just([]), "reduce_dependencies": st.just("sum")},
        },
    )
)
LABEL_FEATURE = with_typo(
    st.fixed_dictionaries(
        {"name": st.just("label"), "type": st.sampled_from(["category", "binary", "set"])},
        optional={"loss": with_typo(LOSS), "dependencies": st.just(["mask"]), "top_k": st.just(3)},
    )
)
TRAINER = with_typo(
    st.fixed_dictionaries(
        {},
        optional={
            **{
                "epochs": st.just(3),
                "batch_size": st.sampled_from([4, "auto"]),
                "early_stop": st.sampled_from([-1, 2]),
            },
            **{"learning_rate": st.sampled_from([0.1, "auto"]), "use_mixed_precision": st.booleans()},
            "optimizer": with_typo(some_of({"type": "adam", "lr": 0.1, "betas": [0.9, 0.9], "eps": 1e-3})),
            "learning_rate_scheduler": with_typo(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "type": st.sampled_from(["cosine", None, "wsd", "linear"]),
                        **{"warmup_fraction": st.just(0.1), "eta_min": st.just(0), "reduce_on_plateau": st.just(1)},
                    },
                )
            ),
            "gradient_clipping": st.sampled_from([None, {"clipvalue": 1}, {"clipnorm": 1, "clipglobalnorm": None}]),
            "validation_metric": st.sampled_from(["loss", "accuracy"]),
            "validation_field": st.sampled_from(["mask", "combined", "other"]),
            "regularization_lambda": st.just(0.1),
        },
    )
)
DEFAULTS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.fixed_dictionaries(
            {}, optional={"encoder": ENCODER, "decoder": DECODER, "loss": LOSS, "preprocessing": PREPROCESSING}
        ),
        "category": st.fixed_dictionaries({}, optional={"loss": LOSS, "preprocessing": TYPO}),
        "text": st.fixed_dictionaries({}, optional={"encoder": ENCODER}),
    },
)
CONFIG = with_typo(
    st.fixed_dictionaries(
        {"model_type": st.just("ecd")},
        optional={
            "input_features": st.just([]) | IMAGE_FEATURE.map(lambda feature: [feature]),
            "output_features": st.tuples(st.none() | MASK_FEATURE, st.none() | LABEL_FEATURE).map(
                lambda found: [feature for feature in found if feature]
            ),
            **{"trainer": TRAINER, "defaults": DEFAULTS, "combiner": st.just({"type": "concat"})},
            "preprocessing": with_typo(
                st.fixed_dictionaries({"image": PREPROCESSING, "split": st.just({"type": "x"})})
            ),
        },
    )
)


@settings(max_examples=60)
@given(CONFIG)
def test_no_key_is_lost(content: dict[str, Any]) -> None:
    t = translated(content)
    assert UNREAD not in t.notes.values()
    known = t.used | set(t.notes)
    for place, _ in places(content):
        steps = place.split(".")
        assert any(".".join(steps[:n]) in known for n in range(1, len(steps) + 1)), place
    # Nothing is named that is not there.
    everything = {place for place, _ in places(content)}
    assert all(any(p == k or p.startswith((f"{k}.", f"{k}[")) or k.startswith(p) for p in everything) for k in t.notes)


def test_a_misspelt_section_of_features_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("input_feature:\n- {name: a, type: image}\noutput_features:\n- {name: b, type: category}\n")
    with pytest.raises(ConfigError, match="input_features:"):
        lv.compose(ludwig=str(file))
