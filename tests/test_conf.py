"""Every file of conf/ against the constructor that it names: a setting is written down in one place only."""

from __future__ import annotations

from dataclasses import fields
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lightning_vision.config import Settings, compose, conf_dir
from lightning_vision.listing import summary
from lightning_vision.recipes import RECIPES
from lightning_vision.searchpath import groups
from lightning_vision.testing.options import check_settings, parts_in

FILES = sorted(f for f in conf_dir().glob("*/*.yaml") if f.parent.name != "hydra")


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def load(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file))


PARTS = [pytest.param(f, p, id=f"{name_of(f)}:{k}".rstrip(":")) for f in FILES for k, p in parts_in(load(f))]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_first_line_says_what_it_is(file: Path) -> None:
    line = summary(file)
    assert 10 <= len(line) <= 140, f"{file}: the listing shows the comment on the first line"


@pytest.mark.parametrize(("file", "part"), PARTS)
def test_keys_and_defaults_are_the_constructors(file: Path, part: dict[str, Any]) -> None:
    check_settings(file, part)


def test_the_settings_are_declared_as_they_are_written() -> None:
    config = load(conf_dir() / "config.yaml")
    written = {k: v for k, v in config.items() if k not in ("defaults", "hydra")}
    assert written == {f.name: f.default for f in fields(Settings)}
    assert list(written) == [f.name for f in fields(Settings)]


def test_every_group_has_a_default_that_exists() -> None:
    defaults = load(conf_dir() / "config.yaml")["defaults"]
    chosen = {k: v for entry in defaults if isinstance(entry, dict) for k, v in entry.items()}
    assert set(groups()) <= set(chosen)
    chosen = {k: v for k, v in chosen.items() if not k.startswith("override hydra/")}
    missing = {k: v for k, v in chosen.items() if v is not None and not (conf_dir() / k / f"{v}.yaml").is_file()}
    assert not missing


def options() -> list[list[Path]]:
    """Options that are typed together: one of each group at a time, and each recipe alone, as it sets all groups."""
    by_group = [list(files) for _, files in groupby(FILES, lambda f: f.parent.name)]
    recipes = [[f] for files in by_group for f in files if f.parent.name in RECIPES]
    parts_of_runs = zip_longest(*(files for files in by_group if files[0].parent.name not in RECIPES))
    return [[f for f in turn if f is not None] for turn in parts_of_runs] + recipes


@pytest.mark.parametrize("files", options(), ids=lambda files: ",".join(map(name_of, files)))
def test_every_option_can_be_typed(files: list[Path]) -> None:
    words = []
    for file in files:
        group, option = file.parent.name, "[dice_loss]" if file.stem == "combined" else file.stem
        words += [f"{group}={option}", *(f"{group}.{key}=given" for key, v in load(file).items() if v == "???")]
    cfg = compose(words)
    for file in files:
        if file.parent.name not in RECIPES:
            assert set(load(file)) - {"defaults"} <= set(cfg[file.parent.name]), name_of(file)
