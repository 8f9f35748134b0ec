"""Wrong names and values: each is refused, and each message ends with an override that works."""

from __future__ import annotations

import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lightning_vision.annotations import kind_of
from lightning_vision.checks import check, plain
from lightning_vision.config import compose, conf_dir
from lightning_vision.errors import ConfigError
from lightning_vision.signatures import describe

# annotation, values that it allows, values that it refuses
ANNOTATIONS: list[tuple[str, list[Any], list[Any]]] = [
    ("int", [0, -3], [True, 1.0, "1", None, [1]]),
    ("float", [0, 1.5], [True, "1", None, []]),
    ("bool", [True, False], [0, 1, "true", None]),
    ("str", ["", "a", 5, 1.5], [True, None, []]),
    ("int | None", [3, None], ["a", 1.5]),
    ("Optional[int]", [3, None], ["a", 1.5]),
    ("Union[int, str]", [3, "a"], [None, []]),
    ("'int | None'", [3, None], ["a"]),
    ("list", [[], [1, "a"]], ["a", {}, None]),
    ("list[int]", [[], [1, 2]], [["a"], 3, [None]]),
    ("Sequence[str]", [["a", 3]], ["a", [None]]),
    ("tuple[int, ...]", [[1, 2, 3], (1,)], [["a"], 1]),
    ("tuple[int, float]", [[1, 2.5]], [[1], [1, 2, 3], ["a", 1]]),
    ("dict[str, Any]", [{}, {"a": [1]}], [[], "a", 1]),
    ("dict[str, int]", [{"a": 1}], [{"a": "b"}]),
    ("Literal['lazy', 'lazy_cached']", ["lazy", "lazy_cached"], ["eager", None, True]),
    ("Literal['50_2', '1_0']", ["50_2", 502, 10, "502"], [50, "50"]),
    ("Literal[1, 2, None]", [1, 2, None], [3, True, "1"]),
    ("Literal[True, 'auto']", [True, "auto"], [1, False]),
    ("Annotated[float, Between(0, 1)]", [0, 1, 0.5], [-0.1, 1.1, "a", float("nan"), True]),
    ("Annotated[float, Between(0, 1, high_open=True)]", [0, 0.99], [1]),
    ("Annotated[int, Between(1)] | None", [1, 9, None], [0, 1.5]),
    ("Annotated[float, Between(None, 3, True, True)]", [-9.5], [3, float("-inf")]),
    ("Annotated[float, Between(0, low_open=True), Below('x')]", [0.5, 0.9], [1, 2, 0, "a"]),
    ("Annotated[float, Below('nothing')]", [0.5, 9], ["a"]),
    ("Annotated[float, Below('x', or_equal=True)]", [0.5, 1], [1.1, "a"]),
    ("Annotated[tuple[Fraction, Fraction], Ordered()]", [[0, 1], [0.5, 0.5]], [[1, 0], [0, 2], [0], ["a", "b"], 1]),
    ("Fraction | Annotated[tuple[float, float], Ordered()] | None", [1, [2, 3], None], [[3, 2], 2, [1]]),
    ("Annotated[int, Between(1), Odd()]", [1, 7], [-1, 2, 1.5]),
    ("Fraction", [0.5], [2]),
    ("Mode", ["a"], ["c"]),
    ("list[Fraction]", [[0, 1]], [[0, 2]]),
    ("Annotated[str, OptionsFrom('{package}.options.names')]", ["only_this", "onlythis"], ["other"]),
    ("Annotated[str, OptionsFrom('{package}.options.nothing')]", ["anything"], [None]),
    ("Annotated[str, OptionsFrom('{package}.options.names')] | None", [None, "only_this"], ["other"]),
    ("Tensor", [1, "a", None], []),
    ("Any", [1, None, []], []),
    ("Callable[[int], int]", [1], []),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("annotated")
    name = "annotated_parts"
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    (folder / name / "options.py").write_text(
        "def names(node):\n    return ['only_this'] if node['x'] else []\n\ndef nothing(node):\n    return []\n"
    )
    (folder / name / "aliases.py").write_text("from typing import Literal\nMode = Literal['a', 'b']\n")
    lines = [
        "from typing import Annotated, Any, Callable, Literal, Optional, Sequence, Union",
        "from torch import Tensor",
        "from lightning_vision.types import Below, Between, Odd, OptionsFrom, Ordered",
        "from .aliases import Mode",
        "Fraction = Annotated[float, Between(0, 1)]",
        "raise SystemError",
    ]
    for i, (annotation, _, _) in enumerate(ANNOTATIONS):
        text = annotation.replace("{package}", name)
        lines.append(f"class Part{i}:\n    def __init__(self, value: {text}) -> None: ...")
    (folder / name / "parts.py").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield name


@pytest.mark.parametrize("i", range(len(ANNOTATIONS)), ids=[a for a, _, _ in ANNOTATIONS])
def test_annotations(i: int, package: str) -> None:
    _, allowed, refused = ANNOTATIONS[i]
    signature = describe(f"{package}.parts.Part{i}")
    assert signature is not None
    kind = kind_of(signature.parameters["value"], {"x": 1})
    assert [v for v in allowed if not kind.allows(v)] == []
    assert [v for v in refused if kind.allows(v)] == []


def test_of_two_numbers_that_do_not_go_together_the_wrong_one_is_named() -> None:
    for word, key, better in (
        ("min=3", "min", "0.5"),
        ("max=0.2", "min", "0.1"),
        ("max=0", "max", "2.0"),
        ("max=much", "max", "2.0"),
    ):
        with pytest.raises(ConfigError) as caught:
            compose(["augmentation=random_gamma", f"augmentation.random_gamma.{word}"])
        assert caught.value.overrides == [f"augmentation.random_gamma.{key}={better}"]


@pytest.mark.parametrize(
    ("name", "key", "value", "better"),
    [
        ("random_affine", "scale", "[2,1]", "[1,2]"),
        ("random_affine", "degree", "400", "10.0"),
        ("random_rotate", "degree", "400", "15.0"),
        ("scale_jitter", "scale", "[2,1]", "[1,2]"),
        ("scale_jitter", "scale", "[0,1]", "[0.5,2.0]"),
        ("random_resized_crop", "scale", "[0.9,0.1]", "[0.1,0.9]"),
        ("random_resized_crop", "scale", "[0.5,1.5]", "[0.2,1.0]"),
        ("random_resized_crop", "ratio", "[2,1]", "[1,2]"),
        ("random_blur", "sigma", "[2,1]", "[1,2]"),
        ("random_erasing", "min_area", "0.9", "0.02"),
        ("random_erasing", "min_aspect", "4 augmentation.random_erasing.max_aspect=3", "0.3"),
    ],
)
def test_a_range_of_an_augmentation_is_refused_before_data_are_read(
    name: str, key: str, value: str, better: str
) -> None:
    place = f"augmentation.{name}.{key}"
    with pytest.raises(ConfigError) as caught:
        compose([f"augmentation={name}", *f"{place}={value}".split(" ")])
    words = shlex.split(" ".join(caught.value.overrides))
    assert words == [f"{place}={better}"]
    compose([f"augmentation={name}", *words])


@cache
def _default() -> dict[str, Any]:
    return plain(compose())


@pytest.fixture
def root() -> dict[str, Any]:
    return deepcopy(_default())


def test_the_default_config_is_right(root: dict[str, Any]) -> None:
    check(root)


def _set(root: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    node = root
    *above, last = key.split(".")
    for name in above:
        node = node[name]
    node[last] = value
    return root


@pytest.mark.parametrize(
    ("key", "value", "expected", "override"),
    [
        ("batch_size", 0, "at least 1", "batch_size=16"),
        ("batch_size", 8.0, "an integer", "batch_size=8"),
        ("batch_size", "8", "an integer", "batch_size=8"),
        ("epochs", None, "an integer", "epochs=10"),
        ("lr", 0, "greater than 0", "lr=0.001"),
        ("lr", "fast", "a number", "lr=0.001"),
        ("seed", -1, "from 0 to 4294967295", "seed=0"),
        ("image_size", [32], "a list of 2", "image_size=32"),
        ("image_size", [32, 0], "at least 1", "image_size=null"),
        ("image_size", "32", "an integer", "image_size=32"),
        ("task", "segmentatoin", "auto, classification, multilabel, open_set, segmentation", "task=segmentation"),
        ("action", "train", "fit, test, predict, export, check", "action=fit"),
        ("monitor", None, "text", "monitor=auto"),
        ("optimzer", {}, "optimizer", "optimizer=adamw"),
        ("bach_size", 4, "batch_size", "batch_size=4"),
        ("encoder", None, "stacked_cnn", "encoder=stacked_cnn"),
        ("trainer", "gpu", "default", "trainer=default"),
        ("loss.gamma", 2, "a loss by name", "loss=focal_loss loss.gamma=2"),
        ("preprocessing.mode", "lazi", "eager, lazy, lazy_cached", "preprocessing.mode=lazy"),
        ("preprocessing.modes", "lazy", "mode", "preprocessing.mode=lazy"),
        ("preprocessing._target_", "lightning_vision.data.preprocessing.Preprocesing", "Preprocessing", None),
        ("preprocessing._target_", "lightning_vision.data.nowhere.Preprocessing", None, "preprocessing=default"),
        ("preprocessing._target_", "os.system", "lightning_vision.", "preprocessing=default"),
        ("decoder.info", 3, None, "~decoder.info"),
        ("decoder.num_stages", 2.5, "an integer", None),
        ("callbacks.early_stopping.patiance", 3, "patience", "callbacks.early_stopping.patience=3"),
        ("callbacks.stray", 3, "early_stopping", None),
        ("optimizer.weight_decai", 0.1, "weight_decay", "optimizer.weight_decay=0.1"),
        ("trainer.accelerater", "cpu", "accelerator", "trainer.accelerator=cpu"),
    ],
)
def test_refuses(root: dict[str, Any], key: str, value: Any, expected: str | None, override: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        check(_set(root, key, value))
    error = caught.value
    assert key.split(".")[0] in str(error)
    if expected is not None:
        assert expected in str(error.expected)
    assert error.overrides
    if override is not None:
        assert error.overrides[0] == override
    if not error.overrides[0].startswith("~"):
        compose(shlex.split(error.overrides[0]))


def test_a_value_that_must_be_given(root: dict[str, Any]) -> None:
    root["preprocessing"]["mode"] = "???"
    with pytest.raises(ConfigError, match="must be given") as caught:
        check(root)
    assert caught.value.overrides == ["preprocessing.mode=lazy"]


def test_a_part_may_be_switched_off(root: dict[str, Any]) -> None:
    root["callbacks"]["early_stopping"] = None
    root["logger"] = None
    root["augmentation"] = {}
    check(root)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook", "ddp_fork_find_unused_parameters_true"])
def test_strategies_whose_processes_keep_the_figures(strategy: str) -> None:
    with pytest.raises(ConfigError, match="would be lost") as caught:
        compose([f"trainer.strategy={strategy}", "trainer.devices=2"])
    assert "trainer.strategy=ddp" in caught.value.overrides


def test_strategies_that_are_offered_are_taken(root: dict[str, Any]) -> None:
    lines = (conf_dir() / "trainer" / "default.yaml").read_text(encoding="utf-8").splitlines()
    comment = next(line.partition("#")[2] for line in lines if line.startswith("strategy:"))
    offered = comment.replace("...", "").split("|")
    assert len(offered) == 3
    for strategy in offered:
        root["trainer"]["strategy"] = strategy.strip()
        check(root)


def test_an_interpolation_that_leads_nowhere() -> None:
    with pytest.raises(ConfigError, match="refers to something that is not there"):
        compose(["monitor=${nowhere}"])


def test_checking_imports_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from lightning_vision.config import compose; compose();"
        "print(sorted({'torch', 'lightning', 'timm', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("word", "better"),
    [
        ("callbacks=[default,emma]", "callbacks=[default,ema]"),
        ("callbacks=emma", "callbacks=[default,ema]"),
        ("callbacks=[zzzzz,default]", "callbacks=[default]"),
        ("augmentation=yes", "augmentation=true"),
        ("augmentation=off", "augmentation=false"),
        ("encoder.drop_path=0.1", "encoder=convnext encoder.drop_path=0.1"),
    ],
)
def test_what_a_message_proposes_keeps_what_was_right(word: str, better: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([word])
    assert " ".join(shlex.split(caught.value.overrides[0])) == better
    compose(better.split())
