from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm

from lightning_vision.checks import check
from lightning_vision.config import compose
from lightning_vision.encoders.timm import TimmEncoder
from lightning_vision.encoders.timm_families import FAMILIES, UNPUBLISHED, model_names
from lightning_vision.errors import ConfigError

FIRST = ("sail_in22k_ft_in1k", "sail_in22k_ft_in1k_384")
METAFORMER = ("s18", "s36", "m36", "b36")
CONVNEXTV2 = ("atto", "femto", "pico", "nano", "tiny", "base", "large", "huge")
LARGE = ("base", "large", "huge")
POOLFORMER = ("s12", "s24", "s36", "m36", "m48")
# As the documents list them.
DOCUMENTED: dict[str, list[str]] = {
    "convnextv2": [
        *(f"convnextv2_{s}" for s in CONVNEXTV2),
        *(f"convnextv2_{s}.fcmae_ft_in1k" for s in CONVNEXTV2),
        *(f"convnextv2_{s}.fcmae_ft_in22k_in1k" for s in LARGE),
        *(f"convnextv2_{s}.fcmae_ft_in22k_in1k_384" for s in LARGE),
    ],
    **{
        family: [f"{family}_{s}" for s in METAFORMER] + [f"{family}_{s}.{t}" for s in METAFORMER for t in FIRST]
        for family in ("caformer", "convformer")
    },
    "poolformer": [f"poolformerv2_{s}" for s in POOLFORMER] + [f"poolformer_{s}" for s in POOLFORMER],
}
DEFAULT = {
    "convnextv2": "convnextv2_base",
    "caformer": "caformer_s18",
    "convformer": "convformer_s18",
    "poolformer": "poolformerv2_s12",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_documented_name_is_an_option(family: str) -> None:
    cfg = compose([f"encoder={family}"])
    assert cfg.encoder.model_name == DEFAULT[family]
    assert cfg.encoder.use_pretrained is True
    assert list(FAMILIES[family][: len(DOCUMENTED[family])]) == DOCUMENTED[family]
    for name in FAMILIES[family]:
        cfg.encoder.model_name = name
        check(cfg)


def test_every_name_is_one_of_timms() -> None:
    known = {*timm.list_models(), *timm.list_models(pretrained=True)}
    for names in FAMILIES.values():
        assert len(set(names)) == len(names)
        assert {n for n in names if n not in known} <= set(UNPUBLISHED)


def test_any_model_goes_without_a_family() -> None:
    assert model_names({"family": None}) == []
    compose(["encoder=timm", "encoder.model_name=anything"])


def test_a_wrong_name_is_refused_before_torch_is_imported() -> None:
    code = """
import sys
from lightning_vision.config import compose
try:
    compose(["encoder=caformer", "encoder.model_name=cafomer_s18"])
except Exception as error:
    print(error)
print("torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean: caformer_s18\n" in run.stdout
    assert run.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("caformer", "convformer_s18"), "encoder=timm encoder.model_name=convformer_s18"),
        (("cafomer", "caformer_s18"), "did you mean: caformer"),
    ],
)
def test_python_is_told_the_same(arguments: tuple[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmEncoder(*arguments, use_pretrained=False)


def test_a_documented_name_without_weights_gives_the_architecture_only() -> None:
    name = UNPUBLISHED[0]
    encoder = TimmEncoder(
        "convnextv2", name, {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8]}, use_pretrained=False, num_channels=1
    )
    assert encoder.info.channels == (8, 8, 8, 8)
    with pytest.raises(ConfigError, match=f"did you mean: {name}_"):
        TimmEncoder("convnextv2", name)


def test_a_checkpoint_of_a_family_rebuilds() -> None:
    arguments: dict[str, Any] = {
        "family": "caformer",
        "model_name": "caformer_s18.sail_in1k_384",
        "model_kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 8, 32, 32]},
        "use_pretrained": False,
    }
    encoder = TimmEncoder(**arguments)
    again = TimmEncoder(**{**arguments, **encoder.rebuild_kwargs()})
    again.load_state_dict(encoder.state_dict())
    assert again.info == encoder.info
    assert again.rebuild_kwargs() == encoder.rebuild_kwargs()
