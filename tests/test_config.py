"""Composing and building in Python: any value by key, anywhere, as often as wanted."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lightning_vision import config, searchpath, signatures
from lightning_vision.config import compose, conf_dir, instantiate
from lightning_vision.errors import ConfigError
from lightning_vision.listing import listing
from lightning_vision.overrides import grammar, is_path_key, override, quote_path
from lightning_vision.types import FeatureInfo

# What a shell can pass in one word, and a file system can hold.
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def test_words_choices_and_values() -> None:
    cfg = compose(["epochs=3", "loss=softmax_cross_entropy"], batch_size=4, decoder="classifier")
    assert (cfg.epochs, cfg.batch_size) == (3, 4)
    assert cfg.loss._target_.endswith("SoftmaxCrossEntropyLoss")
    assert "classifier" in cfg.decoder._target_
    assert "hydra" not in cfg


def test_values_by_dotted_key() -> None:
    values = {"image_size": (32, 48), "preprocessing.mode": "eager", "checkpoint": Path("a b") / "c,d=e.ckpt"}
    cfg = compose(values)
    assert cfg.image_size == [32, 48]
    assert cfg.preprocessing.mode == "eager"
    assert cfg.checkpoint == "a b/c,d=e.ckpt"
    assert compose(["epochs=2"], overrides={"source": "x"}, lr=0.5).source == "x"


def test_settings_of_a_part_as_a_mapping() -> None:
    cfg = compose(preprocessing={"mode": "eager"})
    assert cfg.preprocessing.mode == "eager"
    assert cfg.preprocessing._target_ == compose().preprocessing._target_


def test_a_part_with_settings_is_its_option_and_its_keys() -> None:
    parts = {"decoder": {"type": "classifier", "normalize": True}, "encoder": {"type": "resnet", "trainable": False}}
    words = ["decoder=classifier", "encoder=resnet", "decoder.normalize=true", "encoder.trainable=false"]
    assert compose(**parts, output_dir="run") == compose([*words, "output_dir=run"])
    module = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 8, "kernel_size": 4, "stride": 4}
    assert compose(encoder={"type": "custom", "module": module}).encoder.module == module
    with pytest.raises(ConfigError, match="trainable"):
        compose(encoder={"type": "stacked_cnn", "trainabel": False})
    assert "rotate" in str(compose(augmentation={"type": "random_rotate", "degree": 7}).augmentation)


@given(PATHS)
def test_a_value_by_key_is_taken_as_it_is(path: str) -> None:
    assume("${" not in path and not path.startswith("~") and path != "???")
    cfg = _composed_once()
    config._set(cfg, "source", path)
    assert cfg.source == path


@functools.cache
def _composed_once() -> Any:
    return compose()


@given(PATHS)
def test_any_path_survives_the_command_line(path: str) -> None:
    assume("${" not in path and not path.startswith("~") and path not in ("null", "???", "true", "false"))
    assume(
        (path[0] + path[-1]) not in ("[]", "{}") and not (len(path) > 1 and path[0] == path[-1] and path[0] in "'\"")
    )
    word = quote_path(f"data.path={path}")
    assert OverridesParser.create().parse_override(word).value() == path
    assert quote_path(word) == word


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5))
def test_any_value_survives_the_grammar(value: Any) -> None:
    assert OverridesParser.create().parse_override(f"key={grammar(value)}").value() == value


@pytest.mark.parametrize(
    "word",
    ["source=null", "source='a b'", 'source="a b"', "source=${output_dir}/x y", "data.class_names=[a,b]", "lr=a,b"],
)
def test_left_alone(word: str) -> None:
    assert quote_path(word) == word


def test_lists_in_brackets_unless_a_folder_is_named_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert quote_path("source=[a]") == "source=[a]"
    (tmp_path / "[a]").mkdir()
    assert quote_path("source=[a]") == "source='[a]'"


def test_a_home_is_expanded() -> None:
    assert quote_path("encoder.saved_weights_in_checkpoint=false") == "encoder.saved_weights_in_checkpoint=false"
    assert quote_path("encoder.weights=~/w.pt") == f"encoder.weights={Path.home() / 'w.pt'}"
    assert compose({"source": "~/x"}).source == str(Path.home() / "x")


@pytest.mark.parametrize(
    ("word", "tries"),
    [
        ("lr=1e-3,1e-2", ["-m lr=1e-3,1e-2"]),
        ("encoder.conv_dropout=0.1,0.2", ["-m encoder.conv_dropout=0.1,0.2"]),
        ("image_size=224,320", ["-m image_size=224,320", "'image_size=[224,320]'"]),
        ("decoder=unet,fpn", ["-m decoder=unet,fpn"]),
        (
            "monitor=val/loss,val/dice",
            ["-m monitor=val/loss,val/dice", "\"monitor='val/loss,val/dice'\""],
        ),
        ("data.colors=red,blue", ["'data.colors=[red,blue]'"]),
    ],
)
def test_commas_without_a_sweep(word: str, tries: list[str]) -> None:
    more = ["data=table"] if word.startswith("data.") else []
    with pytest.raises(ConfigError, match="several values") as caught:
        compose([*more, word])
    assert caught.value.overrides == tries


def test_code_of_another_package_comes_as_a_plugin() -> None:
    with pytest.raises(ConfigError) as caught:
        config.refuse_untrusted("some.other.Class", "encoder.module")
    assert '[project.entry-points."lightning_vision.plugins"] some = "some"' in str(caught.value.expected)
    assert not caught.value.overrides


def test_commas_sweep_only_over_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b c.csv"):
        (tmp_path / name).touch()
    swept = quote_path("data.path=a.csv,b c.csv", multirun=True)
    assert swept == "data.path=a.csv,'b c.csv'"
    assert quote_path(swept, multirun=True) == swept
    assert quote_path("data.path=a.csv,b c.csv") == "data.path='a.csv,b c.csv'"
    assert quote_path("data.path=a.csv,missing", multirun=True) == "data.path=a.csv,missing"
    assert quote_path("data.path=none,missing", multirun=True) == "data.path='none,missing'"
    assert quote_path("data.path=choice(a.csv,x)", multirun=True) == "data.path=choice(a.csv,x)"


@pytest.mark.parametrize("value", ["my fill (1),a.png", "0, 127.png", "a=b.png", "12px"])
def test_a_fill_value_may_be_any_path(value: str) -> None:
    word = quote_path(f"preprocessing.fill_value={value}")
    assert OverridesParser.create().parse_override(word).value() == value
    assert compose([word]).preprocessing.fill_value == value


@pytest.mark.parametrize("value", [0, 127, 255, None])
def test_a_fill_value_may_be_a_number(value: int | None) -> None:
    word = override("preprocessing.fill_value", value)
    assert quote_path(word) == word
    assert OverridesParser.create().parse_override(word).value() == value
    assert quote_path("preprocessing.fill_value=0,127", multirun=True) == "preprocessing.fill_value=0,127"


def test_path_keys() -> None:
    for key in ("source", "data.path", "data.mask_folder", "encoder.weights", "lazy_cache_dir", "hydra.run.dir"):
        assert is_path_key(key)
    for key in ("lr", "loss.class_weights", "encoder", "data.target"):
        assert not is_path_key(key)


def test_composes_while_hydra_is_in_use() -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        HydraConfig.instance().set_config(hydra_compose("config", return_hydra_config=True))
        running = HydraConfig.get()
        assert compose().epochs == compose(epochs=10).epochs
        assert HydraConfig.get() is running
        assert hydra_compose("config").epochs == 10


def test_the_run_folder_outside_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = compose().output_dir, compose().output_dir
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}", str(Path(first).relative_to(tmp_path)))
    assert first != second
    assert compose(output_dir="here").output_dir == "here"
    assert not OmegaConf.to_yaml(compose(), resolve=True).count("hydra:")


@pytest.mark.parametrize(
    ("words", "values", "override"),
    [
        (["encoder=resnt"], {}, "encoder=resnet"),
        ([], {"encoder": "resnt"}, "encoder=resnet"),
        ([], {"encodr": "resnet"}, "encoder=resnet"),
        (["encodr=resnet"], {}, "encoder=resnet"),
        ([], {"preprocessing.mod": "eager"}, "preprocessing.mode=eager"),
        (["preprocessing.mod=eager"], {}, "preprocessing.mode=eager"),
        (["mode=eager"], {}, "preprocessing.mode=eager"),
        (["+epochs=3"], {}, "epochs=3"),
        (["~loger"], {}, "~logger"),
        (["+encoder=resnet"], {}, "encoder=resnet"),
        (["encoder=50_2"], {}, "encoder=stacked_cnn"),
        (["encoder=null"], {}, "encoder=stacked_cnn"),
        (["callbacks=null"], {}, "~callbacks"),
        (["trainer.limit_train_batches=2"], {}, "+trainer.limit_train_batches=2"),
        (["encoder=resnet,stacked_cnn"], {}, "-m encoder=resnet,stacked_cnn"),
        (["image_size=32,48"], {}, "-m image_size=32,48"),
        (["monitor=[a"], {}, "\"monitor='[a'\""),
        (["a b=3"], {}, "epochs=3"),
    ],
)
def test_refuses_as_the_command_line_does(words: list[str], values: dict[str, Any], override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words, overrides=values)
    assert caught.value.overrides[0] == override
    assert "+enc" not in str(caught.value.overrides)


CLASSIFIER = "lightning_vision.decoders.classifier.ClassifierDecoder"


class TestInstantiate:
    def test_builds_with_plain_containers_and_injected_objects(self) -> None:
        info = FeatureInfo((8,), (4,), 8)
        node = OmegaConf.create({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "${.in_features}"})
        assert instantiate(node).weight.shape == (2, 2)
        made = instantiate({"_target_": "lightning_vision.types.TargetSpec", "kind": "label"}, class_names=info)
        assert made.class_names is info
        named = instantiate(
            OmegaConf.create({"_target_": "lightning_vision.types.PixelStats", "mean": [0.5], "std": {"_target_": "x"}})
        )
        assert type(named.mean) is list
        assert named.std == {"_target_": "x"}, "nested nodes are not built"

    def test_partial(self) -> None:
        part = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, momentum=0.1)
        assert isinstance(part, functools.partial)
        made = part([torch.nn.Parameter(torch.zeros(1))])
        assert (made.defaults["lr"], made.defaults["momentum"]) == (0.5, 0.1)

    @pytest.mark.parametrize(
        "target", ["os.system", "builtins.eval", "torch.load", "torch.hub.load", "lightning_visionx.a.B", "torch.nnx.A"]
    )
    def test_refuses_code_from_elsewhere(self, target: str) -> None:
        with pytest.raises(ConfigError, match="may not build"):
            instantiate({"_target_": target, "x": 1})

    def test_a_refused_argument_names_the_node(self) -> None:
        cfg = OmegaConf.create({"decoder": {"_target_": "torch.nn.Linear", "wrong": 2}})
        with pytest.raises(ConfigError, match=r"decoder cannot be built.*wrong"):
            instantiate(cfg.decoder)
        with pytest.raises(ConfigError, match=r"FeatureInfo cannot be built.*same levels"):
            instantiate({"_target_": "lightning_vision.types.FeatureInfo"}, channels=(1,), strides=(), embed_dim=1)

    def test_our_own_errors_pass(self) -> None:
        with pytest.raises(ConfigError, match="at least one class"):
            instantiate({"_target_": CLASSIFIER}, info=FeatureInfo((8,), (4,), 8), num_classes=0)

    @pytest.mark.parametrize(
        "target",
        [
            "lightning_vision.runfolder.os.system",
            "lightning_vision.data.sources.shapes.shutil.rmtree",
            "lightning_vision.data.sources.shapes.Image.open",
            "lightning_vision.runfolder.Path",
            "lightning_vision.data.sources.memory.spool",
            "torch.nn.functional.torch.load",
        ],
    )
    def test_a_good_beginning_leads_nowhere_else_and_runs_nothing(self, target: str, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        with pytest.raises(ConfigError, match=r"may not build|blocklisted"):
            instantiate({"_target_": target, "_args_": [str(tmp_path / "kept")]})
        assert (tmp_path / "kept").is_dir()

    def test_the_wrong_kind_of_part(self) -> None:
        with pytest.raises(ConfigError, match="wrong kind of part"):
            instantiate({"_target_": CLASSIFIER}, torch.optim.Optimizer)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, known by its metadata alone: importing it fails."""
    package = tmp_path / "my_ext"
    (package / "conf" / "decoder").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError\n")
    (package / "parts.py").write_text("class Head:\n    def __init__(self, width: int = 3) -> None: ...\n")
    text = "# A head from elsewhere\n_target_: my_ext.parts.Head\nwidth: 3\n"
    (package / "conf" / "decoder" / "my_head.yaml").write_text(text)
    metadata = tmp_path / "my_ext-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my_ext\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[lightning_vision.plugins]\nmine = my_ext\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield package
    _forget()


def _forget() -> None:
    """Forget what was found on Python's path, which has changed."""
    for cached in (searchpath.plugins, *(getattr(signatures, n) for n in ("package_folders", "source_file", "parse"))):
        cached.cache_clear()
    signatures.describe.cache_clear()


def test_a_plugin_joins_the_search_path(plugin: Path) -> None:
    cfg = compose(decoder="my_head")
    assert cfg.decoder == {"_target_": "my_ext.parts.Head", "width": 3}
    assert compose(decoder="unet").decoder._target_.startswith("lightning_vision.")
    with pytest.raises(ConfigError, match="no setting 'widht'"):
        compose(["decoder=my_head", "+decoder.widht=4"])


def test_a_plugin_may_be_built(plugin: Path) -> None:
    config.refuse_untrusted("my_ext.parts.Head", "decoder._target_")
    with pytest.raises(ConfigError):
        config.refuse_untrusted("my_ext2.parts.Head", "decoder._target_")


def test_a_plugin_with_the_name_of_a_built_in_option(plugin: Path) -> None:
    (plugin / "conf" / "decoder" / "unet.yaml").write_text("# Mine\n_target_: my_ext.parts.Head\n")
    with pytest.raises(ConfigError, match="Two packages have an option decoder=unet"):
        compose()


def test_a_plugin_without_configs_holds_nothing_up(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plugin / "conf").rename(plugin / "other")
    compose()
    assert "warning: the plugin mine is left out: there is no installed package my_ext" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="my_head"):
        compose(decoder="my_head")


@pytest.mark.parametrize("text", [b"# Mine\n_target_: [", b"# Mine\n_target_: \xff\n"], ids=["no YAML", "no UTF-8"])
def test_a_broken_option_of_a_plugin_holds_up_the_runs_that_choose_it(plugin: Path, text: bytes) -> None:
    (plugin / "conf" / "decoder" / "my_head.yaml").write_bytes(text)
    compose()
    assert "my_head" in listing("decoder")
    with pytest.raises(ConfigError, match=r"did you mean: decoder\.channels"):
        compose(["decoder.chanels=[1]"])
    for words in (["decoder=my_head"], ["outputs={label:{decoder:my_head}}"]):
        with pytest.raises(ConfigError, match="decoder=my_head cannot be read; it comes from the plugin my_ext"):
            compose(words)


def test_a_part_of_a_plugin_that_cannot_be_imported_is_named(plugin: Path) -> None:
    with pytest.raises(ConfigError, match=r"my_ext\.parts\.Head"):
        instantiate(compose(decoder="my_head").decoder)


def test_values_of_a_plugin_are_checked(plugin: Path) -> None:
    with pytest.raises(ConfigError, match=r"decoder\.width") as caught:
        compose(["decoder=my_head", "decoder.width=wide"])
    assert caught.value.overrides == ["decoder.width=3"]


@pytest.mark.parametrize(
    "typed", ["[#ff0000,001e10]", "[ff0000, #001e10]", "['#ff0000','#001e10']", '["#ff0000","#001e10"]']
)
def test_colors_arrive_however_they_are_typed(typed: str) -> None:
    word = quote_path(f"data.colors={typed}")
    assert quote_path(word) == word
    cfg = compose([word, "data=table", "data.path=x.csv"])
    assert list(cfg.data.colors) == ["#ff0000", "#001e10"]
