"""No setting is typed in vain."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from lightning_vision.actions.heeded import HEEDED, refuse_unheeded
from lightning_vision.config import ACTIONS, Settings, compose
from lightning_vision.errors import ConfigError

# A value of each that is not its default.
GIVEN: dict[str, Any] = {
    "source": "photos/",
    "save": ["embeddings"],
    "table": "parquet",
    "frame_step": 3,
    "split": "val",
    "tile": [64, 32],
    "overlap": 0.5,
    "tta": "flips",
    "format": ["onnx", "torch"],
    "push": "me/model",
    "quick": True,
    "report": "-",
    "plots": ["classes"],
    "cache": "list",
}


@pytest.mark.parametrize("action", [*ACTIONS, "build"])
def test_what_an_action_does_not_heed_is_refused(action: str) -> None:
    assert GIVEN.keys() == HEEDED.keys()
    refuse_unheeded(vars(Settings()), action)
    refuse_unheeded({}, action)  # the config of an old checkpoint
    for key, value in GIVEN.items():
        given = {**vars(Settings()), key: value}
        if action in HEEDED[key]:
            refuse_unheeded(given, action)
            continue
        with pytest.raises(ConfigError, match=f"^{action} does not heed {key}: only") as error:
            refuse_unheeded(given, action)
        instead, default = error.value.overrides
        assert instead.split()[0] in HEEDED[key]
        assert default == f"{key}={str(getattr(Settings, key)).lower().replace('none', 'null')}"


def test_settings_of_one_kind_are_named_together() -> None:
    cfg = compose(["tile=[64,32]", "overlap=0.5", "tta=[0.75]", "push=me/model", "save=[embeddings]"])
    with pytest.raises(ConfigError, match="fit does not heed tile, overlap, tta: only test and predict can") as error:
        refuse_unheeded({**cfg, "save": None}, "fit")
    given = "'tile=[64,32]' overlap=0.5 'tta=[0.75]'"
    assert error.value.overrides[0] == f"test checkpoint=RUN/checkpoints/best.ckpt {given}"
    with pytest.raises(ConfigError) as error:
        refuse_unheeded(cfg, "fit")
    assert error.value.overrides[0].endswith("source=photos/ 'save=[embeddings]'")


def test_it_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from lightning_vision.app import run; from lightning_vision.config import compose\n"
        "try: run(compose(['action=predict', 'checkpoint=x.ckpt', 'source=photos', 'split=val']))\n"
        "except Exception as error: print(error)\n"
        "assert 'torch' not in sys.modules"
    )
    done = run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("predict does not heed split: only test can"), done.stderr
    assert done.returncode == 0, done.stderr
